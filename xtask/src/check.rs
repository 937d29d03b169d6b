//! `cargo xtask check`: formatting, lints and documentation, warnings denied.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use ebpf_build::{Recipe, Toolchain};

use crate::{command, setup};

/// Arguments.
#[derive(clap::Args)]
pub(crate) struct Args {}

/// Runs every check even where one before it fails, so that one run tells all.
pub(crate) fn run(_args: &Args) -> Result<()> {
    setup::ensure(setup::Set::Build)?;
    let target = command::target_dir()?;
    let mut docs = command::cargo(&["doc", "--workspace", "--no-deps"]);
    docs.env("RUSTDOCFLAGS", "-D warnings");
    let clippy = ["clippy", "--workspace", "--all-targets", "--keep-going", "--", "-D", "warnings"];
    let mut failed = Vec::new();
    for (name, outcome) in [
        ("fmt", command::run(&mut command::cargo(&["fmt", "--all", "--check"]))),
        ("clippy", command::run(command::cargo(&clippy).env("CARGO_TARGET_DIR", &target))),
        ("doc", command::run(docs.env("CARGO_TARGET_DIR", &target))),
        ("programs", programs(&target)),
    ] {
        if let Err(error) = outcome {
            eprintln!("{name}: {error:#}");
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("checks failed: {}", failed.join(", "));
    }
    println!("all checks passed");
    Ok(())
}

/// Clippy sees the host's side of the programs' crate only; rustc's warnings for BPF show in this build.
/// Cargo repeats them for a crate that is fresh.
fn programs(target: &std::path::Path) -> Result<()> {
    let recipe = Recipe {
        workspace: &command::workspace(),
        package: ebpf_build::PACKAGE,
        target_dir: &ebpf_build::target_dir(target),
        host_arch: std::env::consts::ARCH,
    };
    let mut build = Toolchain::find()?.command(&recipe);
    eprintln!("+ {}", command::shown(&build));
    let warnings = count_warnings(&mut build)?;
    ensure!(warnings == 0, "the eBPF programs compile with warnings");
    Ok(())
}

/// Runs cargo, shows its stderr, and counts the lines that start a warning.
fn count_warnings(build: &mut Command) -> Result<usize> {
    let mut child = build.stderr(Stdio::piped()).spawn().context("cannot start cargo")?;
    let mut warnings = 0;
    for line in BufReader::new(child.stderr.take().context("cargo has no stderr")?).split(b'\n') {
        let line = line.context("cannot read cargo's stderr")?;
        let line = String::from_utf8_lossy(&line);
        warnings += usize::from(line.starts_with("warning"));
        eprintln!("{line}");
    }
    let status = child.wait().context("cannot wait for cargo")?;
    ensure!(status.success(), "`{}` failed: {status}", command::shown(build));
    Ok(warnings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn warnings_are_counted_and_failures_are_failures() {
        let two = "echo 'warning: unused' >&2; echo '  warning' >&2; echo 'warning[E1]: x' >&2";
        assert_eq!(count_warnings(&mut shell(two)).unwrap(), 2);
        assert_eq!(count_warnings(&mut shell("echo '   Compiling x' >&2")).unwrap(), 0);
        assert!(count_warnings(&mut shell("exit 101")).is_err());
    }
}
