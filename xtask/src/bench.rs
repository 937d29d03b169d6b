//! `cargo xtask bench`: builds the benchmark and runs it as root. Its arguments are the benchmark's own, so that they are
//! told in one place.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, exit};

use anyhow::{Context as _, Result};

use crate::{command, setup, test};

/// The binary, and the package that has it.
const BINARY: &str = "overlay-bench";

/// Arguments.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// What to measure and how long: see `cargo xtask bench --help`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    setup::ensure(setup::Set::Bench)?;
    let target = command::target_dir()?;
    command::build_binaries(&target)?;
    let build = ["build", "--release", "--package", BINARY];
    command::run(command::cargo(&build).env("CARGO_TARGET_DIR", &target))?;
    test::mount_bpffs()?;
    let status = benchmark(&target, &args.arguments)?.status().context("cannot start the benchmark")?;
    // It has said itself what is wrong.
    if status.success() { Ok(()) } else { exit(status.code().unwrap_or(1)) }
}

/// Started where the caller is, for whom paths are meant.
fn benchmark(target: &Path, arguments: &[OsString]) -> Result<Command> {
    let release = target.join("release");
    // sudo drops the environment, so env brings it in behind it.
    let mut bench = command::as_root("env")?;
    bench.arg(format!("OVERLAYD_BIN_DIR={}", release.display()));
    bench.arg(format!("OVERLAYD_BENCH_COMMIT={}", commit()));
    if let Ok(path) = std::env::var("PATH") {
        bench.arg(format!("PATH={path}"));
    }
    bench.arg(release.join(BINARY)).args(arguments);
    Ok(bench)
}

/// The commit that is measured, with a mark where files differ from it. Asked here, as git may refuse a user's tree to
/// root.
fn commit() -> String {
    let describe = ["describe", "--always", "--dirty", "--exclude", "*", "--abbrev=12"];
    let output = Command::new("git").args(describe).current_dir(command::workspace()).output();
    let said = output.ok().filter(|output| output.status.success());
    said.map_or_else(|| "unknown".to_owned(), |said| String::from_utf8_lossy(&said.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn arguments_are_passed_on_as_they_are() {
        let line = ["bench", "--quick", "--json", "a file.json", "--help"];
        let args = Cli::try_parse_from(line).unwrap().args;
        assert_eq!(args.arguments, line[1..]);
        let bench = benchmark(Path::new("/t"), &args.arguments).unwrap();
        let words: Vec<_> = bench.get_args().map(|word| word.to_string_lossy()).collect();
        assert!(words.contains(&"OVERLAYD_BIN_DIR=/t/release".into()), "{words:?}");
        assert_eq!(
            words[words.len() - 5..],
            ["/t/release/overlay-bench", "--quick", "--json", "a file.json", "--help"]
        );
    }
}
