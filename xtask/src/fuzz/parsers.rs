//! The parsers' part: cargo-fuzz, on the workspace's own toolchain.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::command;

/// What is installed where there is none.
const CARGO_FUZZ: &str = "0.13.2";

/// The sanitizer and the coverage that cargo-fuzz asks rustc for are unstable; a nightly would be another
/// compiler than the one that builds the rest.
const UNSTABLE: (&str, &str) = ("RUSTC_BOOTSTRAP", "1");

/// Runs every target for so many seconds.
pub(super) fn run(seconds: u32) -> Result<()> {
    install()?;
    let (fuzz, target_dir) = (command::workspace().join("fuzz"), command::target_dir()?.join("fuzz-parsers"));
    let targets = targets(&fuzz)?;
    // What a run finds new goes beside the target directory's other files: the committed corpus is the minimal one.
    let found = target_dir.join("corpus");
    let mut failed = Vec::new();
    for target in &targets {
        let (grown, committed) = (found.join(target), fuzz.join("corpus").join(target));
        fs::create_dir_all(&grown).with_context(|| format!("cannot create {}", grown.display()))?;
        let mut cargo = cargo_fuzz(&["run", target]);
        cargo.args([&grown, &committed]).args(["--", &format!("-max_total_time={seconds}")]);
        cargo.args(["-print_final_stats=1", "-print_funcs=0", "-verbosity=0"]);
        if let Err(error) = command::run(cargo.env("CARGO_TARGET_DIR", &target_dir)) {
            eprintln!("{target}: {error:#}");
            failed.push(target.as_str());
        }
    }
    if failed.is_empty() {
        println!("{} parsers fuzzed for {seconds} s each, nothing found", targets.len());
        return Ok(());
    }
    bail!("found something in: {}; the inputs are in fuzz/artifacts", failed.join(", "))
}

/// cargo-fuzz comes from the registry: it is in no distribution.
fn install() -> Result<()> {
    if command::find("cargo-fuzz").is_some() {
        return Ok(());
    }
    command::run(&mut command::cargo(&["install", "--locked", "cargo-fuzz", "--version", CARGO_FUZZ]))
}

fn cargo_fuzz(arguments: &[&str]) -> Command {
    let mut cargo = command::cargo(&["fuzz"]);
    cargo.args(arguments).env(UNSTABLE.0, UNSTABLE.1);
    cargo
}

/// One file, one target.
fn targets(fuzz: &Path) -> Result<Vec<String>> {
    let directory = fuzz.join("fuzz_targets");
    let entries = fs::read_dir(&directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let name = |entry: fs::DirEntry| Some(entry.file_name().to_str()?.strip_suffix(".rs")?.to_owned());
    let mut targets: Vec<String> = entries.filter_map(|entry| name(entry.ok()?)).collect();
    targets.sort();
    if targets.is_empty() {
        bail!("no targets in {}", directory.display());
    }
    Ok(targets)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A target without its entry in the manifest, or without inputs to start from, would never be noticed.
    #[test]
    fn every_target_is_known_to_cargo_and_has_a_corpus() {
        let fuzz = command::workspace().join("fuzz");
        let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
        for target in targets(&fuzz).unwrap() {
            assert!(manifest.contains(&format!("name = \"{target}\"")), "{target} is not in fuzz/Cargo.toml");
            assert!(fuzz.join("corpus").join(&target).is_dir(), "{target} has no corpus");
        }
    }
}
