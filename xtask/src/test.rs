//! `cargo xtask test`: all levels, and last a line with the sums.

mod suites;

use std::env;
use std::io::{BufRead as _, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio, exit};

use anyhow::{Context, Result, bail};

use crate::{command, next, setup, tally::Tally, vm};

/// The tests that need root and a kernel.
const ROOT_PACKAGE: &str = "overlay-tests";

/// The benchmark's tests, of which some need root too.
const BENCH_PACKAGE: &str = "overlay-bench";

/// Every bpffs mount is a tree of its own: mount where nothing is, one at a time, as the harness does too.
const MOUNT_BPFFS: &str = "flock /run/overlayd-bpffs.lock \
    sh -c 'mountpoint -q /sys/fs/bpf || mount -t bpf bpf /sys/fs/bpf'";

/// Arguments.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run the long suites too, and the tests that depend on the kernel under other kernels
    #[arg(long)]
    full: bool,
    /// Run only tests whose names contain this
    filter: Option<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    setup::ensure(setup::Set::Test)?;
    let target = command::target_dir()?;
    command::build_binaries(&target)?;
    if args.full {
        next::build(&target)?;
    }
    mount_bpffs()?;

    let mut total = Tally::default();
    let mut host_tests = host_tests(args);
    host_tests.env("CARGO_TARGET_DIR", &target).envs(variables(args, &target));
    let (part, succeeded) = stream(&mut host_tests, &mut std::io::stdout())?;
    total.add_run(part, succeeded);
    root_tests(args, &target, &mut total)?;
    if args.full && args.filter.is_none() {
        let (part, succeeded) = other_kernels()?;
        total.add_run(part, succeeded);
    }
    if let (Some(filter), 0) = (&args.filter, total.passed + total.failed) {
        bail!("no test has a name with `{filter}` in it");
    }
    println!("{total}");
    // An error's message would come after the sums, which are to be the last line.
    if total.failed > 0 { exit(1) } else { Ok(()) }
}

fn host_tests(args: &Args) -> Command {
    let mut cargo = command::cargo(&["test", "--no-fail-fast", "--workspace"]);
    cargo.args(["--exclude", ROOT_PACKAGE, "--exclude", BENCH_PACKAGE, "--"]).args(&args.filter);
    cargo
}

/// Those that need root, two suites at a time; the long ones want the machine to themselves.
fn root_tests(args: &Args, target: &Path, total: &mut Tally) -> Result<()> {
    let variables = variables(args, target);
    let mut cargo = command::cargo(&["test", "--package", ROOT_PACKAGE, "--package", BENCH_PACKAGE]);
    let suites = suites::compile(cargo.env("CARGO_TARGET_DIR", target))?;
    let start = |program: &Path| {
        let mut command = if command::is_root() {
            Command::new(program)
        } else {
            let mut sudo = Command::new("sudo");
            sudo.arg("env")
                .args(variables.iter().map(|(name, value)| format!("{name}={value}")))
                .arg(program);
            sudo
        };
        command.envs(variables.iter().map(|(name, value)| (name, value))).args(&args.filter);
        command
    };
    let at_once = if args.full { 1 } else { suites::AT_ONCE };
    suites::run(suites, at_once, start, |source, output, succeeded| {
        println!("     Running {source}");
        std::io::stdout().write_all(output)?;
        let mut part = Tally::default();
        String::from_utf8_lossy(output).lines().for_each(|line| part.add_line(line));
        total.add_run(part, succeeded);
        Ok(())
    })
}

/// The tests that depend on the kernel, on the kernels that are supported.
fn other_kernels() -> Result<(Tally, bool)> {
    let mut tally = Tally::default();
    let failed = vm::run_all(&vm::all_kernels(), None, vm::TIMEOUT, &mut |line| {
        std::io::stdout().write_all(line)?;
        tally.add_line(&String::from_utf8_lossy(line));
        Ok(())
    })?;
    Ok((tally, failed.is_empty()))
}

/// `cargo test` of the tests that need root, with more arguments of cargo's own.
pub(crate) fn root_test(target: &Path, variables: &[(&str, String)], arguments: &[&str]) -> Command {
    let mut cargo = command::cargo(&["test", "--package", ROOT_PACKAGE]);
    cargo.args(arguments).env("CARGO_TARGET_DIR", target);
    cargo.envs(variables.iter().map(|(name, value)| (name, value)));
    if !command::is_root() {
        // Cargo itself stays the user's, so that the target directory does.
        cargo.arg("--config").arg(runner(variables));
    }
    cargo
}

/// Mounts the bpffs that the tests pin in, where there is none.
pub(crate) fn mount_bpffs() -> Result<()> {
    command::run(command::as_root("sh")?.args(["-c", MOUNT_BPFFS]))
}

/// What the tests read, and what helps when one fails.
fn variables(args: &Args, target: &Path) -> Vec<(&'static str, String)> {
    let mut variables = vec![("OVERLAYD_BIN_DIR", target.join("release").display().to_string())];
    if args.full {
        variables.push(("OVERLAYD_TEST_FULL", "1".to_owned()));
        variables.push((next::DIR_VARIABLE, next::binaries(target).display().to_string()));
    }
    for name in ["OVERLAYD_BUDGET_UPDATE", "PATH", "RUST_BACKTRACE", "RUST_LOG"] {
        variables.extend(env::var(name).ok().map(|value| (name, value)));
    }
    variables
}

/// Cargo's setting to run test binaries as root. `env`, because sudo drops the environment and may be
/// told to refuse `-E`; a list, because a path may contain spaces. A JSON array of strings is one of TOML.
fn runner(variables: &[(&str, String)]) -> String {
    let words = ["sudo", "env"].map(str::to_owned).into_iter();
    let words: Vec<_> =
        words.chain(variables.iter().map(|(name, value)| format!("{name}={value}"))).collect();
    format!("target.'cfg(unix)'.runner={}", serde_json::json!(words))
}

/// Runs cargo test, shows its output as it comes, and counts.
fn stream(cargo: &mut Command, shown: &mut impl Write) -> Result<(Tally, bool)> {
    eprintln!("+ {}", command::shown(cargo));
    let mut child = cargo.stdout(Stdio::piped()).spawn().context("cannot start cargo test")?;
    let mut tally = Tally::default();
    for line in BufReader::new(child.stdout.take().context("cargo test has no stdout")?).split(b'\n') {
        // Bytes, not text: a test that prints a packet must not end the run.
        let line = line.context("cannot read the output of cargo test")?;
        shown.write_all(&line)?;
        shown.write_all(b"\n")?;
        tally.add_line(&String::from_utf8_lossy(&line));
    }
    let status = child.wait().context("cannot wait for cargo test")?;
    Ok((tally, status.success()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runner_is_a_list_that_survives_spaces_and_quotes() {
        let runner = runner(&[("OVERLAYD_BIN_DIR", "/a b/\"c\"/release".to_owned())]);
        assert_eq!(
            runner,
            r#"target.'cfg(unix)'.runner=["sudo","env","OVERLAYD_BIN_DIR=/a b/\"c\"/release"]"#
        );
    }

    #[test]
    fn the_tests_learn_where_the_binaries_are_and_how_long_to_take() {
        let names = |full| {
            let args = Args { full, filter: None };
            variables(&args, Path::new("/t")).into_iter().collect::<std::collections::BTreeMap<_, _>>()
        };
        assert_eq!(names(false)["OVERLAYD_BIN_DIR"], "/t/release");
        assert!(!names(false).keys().any(|name| ["OVERLAYD_TEST_FULL", next::DIR_VARIABLE].contains(name)));
        assert_eq!(names(true)["OVERLAYD_TEST_FULL"], "1");
        assert!(names(true)[next::DIR_VARIABLE].starts_with("/t/next/"));
    }

    #[test]
    fn output_is_counted_whatever_bytes_come_with_it() {
        let script = r"printf '\377\n'; echo 'test result: ok. 2 passed; 1 failed; 0 ignored'; exit 101";
        // Shown into a buffer: on stdout the line would be counted by the run this test is part of.
        let mut shown = Vec::new();
        let counted = stream(Command::new("sh").args(["-c", script]), &mut shown).unwrap();
        assert_eq!(counted, (Tally { passed: 2, failed: 1, skipped: 0 }, false));
        assert_eq!(shown, b"\xff\ntest result: ok. 2 passed; 1 failed; 0 ignored\n");
    }
}
