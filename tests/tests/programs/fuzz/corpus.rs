//! The committed inputs: each was once a finding, or stands for a kind of packet.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use super::{input::Input, worker::Worker};
use crate::bed::with_bed;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/programs")
}

fn files() -> Vec<PathBuf> {
    let entries = fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|e| e == "bin")).collect();
    files.sort();
    files
}

#[test]
fn the_corpus_is_judged_as_any_other_input() {
    let mut paths = files();
    assert!(paths.len() >= 20, "{paths:?}");
    // `cargo xtask fuzz --replay`.
    paths.extend(env::var_os("OVERLAYD_FUZZ_REPLAY").map(PathBuf::from));
    with_bed(|bed| {
        for path in &paths {
            let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let input =
                Input::from_file(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            bed.reset();
            let mut worker = Worker::new(bed);
            let name = input.name();
            let verdict = worker.run(input);
            worker.settle();
            println!("{}: {name}, verdict {verdict}, as it should be", path.display());
        }
    });
}

#[test]
fn every_file_of_the_corpus_says_what_it_is_for() {
    let readme = fs::read_to_string(directory().join("README.md")).unwrap();
    for path in files() {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        assert!(readme.contains(&format!("`{name}`")), "README.md does not say what {name} is for");
    }
    let named = readme.lines().filter_map(|line| line.strip_prefix("- `")?.split('`').next());
    for name in named {
        assert!(directory().join(name).is_file(), "README.md names {name}, which is not there");
    }
}
