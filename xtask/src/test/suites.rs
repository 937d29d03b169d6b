//! The suites that need root, two at a time: each waits more than it computes, and one after the other they take longer
//! than anybody waits for.

use std::{
    io::{BufRead as _, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, mpsc},
    thread,
};

use anyhow::{Context, Result, bail};

use crate::command;

/// Suites at once, on two cores.
pub(super) const AT_ONCE: usize = 2;
/// Tests of a suite at once. Each has hosts and daemons of its own; more of them disturb each other's timing.
const THREADS: &str = "--test-threads=3";

/// These take longest: begun last, they would have one worker wait for the other.
const LONG: [&str; 6] = [
    "tests/ip_matrix/main.rs",
    "tests/kinds/main.rs",
    "tests/life/main.rs",
    "tests/programs/main.rs",
    "tests/systems.rs",
    "tests/decap/main.rs",
];

/// A compiled suite.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Suite {
    /// Its source, as cargo names it.
    source: String,
    program: PathBuf,
    /// Its package's directory, where it is run.
    directory: PathBuf,
}

/// Has cargo compile, and returns the suites, those that take longest first.
pub(super) fn compile(cargo: &mut Command) -> Result<Vec<Suite>> {
    cargo.args(["--no-run", "--message-format=json-render-diagnostics"]);
    eprintln!("+ {}", command::shown(cargo));
    let mut child = cargo.stdout(Stdio::piped()).spawn().context("cannot start cargo test")?;
    let output = BufReader::new(child.stdout.take().context("cargo test has no stdout")?);
    let mut suites = Vec::new();
    for line in output.lines() {
        suites.extend(suite(&line.context("cannot read the output of cargo test")?));
    }
    let status = child.wait().context("cannot wait for cargo test")?;
    if !status.success() {
        bail!("the tests do not compile: cargo's lines above say why");
    }
    suites.sort_by_key(|suite| {
        let place = LONG.iter().position(|long| suite.source == *long).unwrap_or(LONG.len());
        (place, suite.source.clone())
    });
    Ok(suites)
}

/// What a line of cargo's says of a suite, if it does.
fn suite(line: &str) -> Option<Suite> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    let is_test = message["reason"] == "compiler-artifact" && message["profile"]["test"] == true;
    let program = message["executable"].as_str().filter(|_| is_test)?;
    let directory = Path::new(message["manifest_path"].as_str()?).parent()?.to_path_buf();
    let source = Path::new(message["target"]["src_path"].as_str()?);
    let source = source.strip_prefix(&directory).unwrap_or(source).display().to_string();
    Some(Suite { source, program: program.into(), directory })
}

/// Runs the suites, so many at once. `start` makes a command of a suite's program; `seen` gets each suite's output, whole, when it is over,
/// and whether it succeeded. Returns the first error of `seen`.
pub(super) fn run(
    suites: Vec<Suite>,
    at_once: usize,
    start: impl Fn(&Path) -> Command + Sync,
    mut seen: impl FnMut(&str, &[u8], bool) -> Result<()>,
) -> Result<()> {
    let waiting = Mutex::new(suites.into_iter());
    let next = || waiting.lock().ok()?.next();
    thread::scope(|scope| {
        let (done, over) = mpsc::channel();
        for _ in 0..at_once {
            let done = done.clone();
            let (next, start) = (&next, &start);
            scope.spawn(move || {
                while let Some(suite) = next() {
                    let output = one(&suite, start(&suite.program));
                    if done.send((suite, output)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(done);
        for (suite, output) in over {
            let (output, succeeded) = output?;
            seen(&suite.source, &output, succeeded)?;
        }
        Ok(())
    })
}

/// Runs one, both its outputs in their order.
fn one(suite: &Suite, mut program: Command) -> Result<(Vec<u8>, bool)> {
    let (mut reader, writer) = std::io::pipe().context("cannot make a pipe")?;
    let cannot = || format!("cannot run {}", suite.program.display());
    program.arg(THREADS).current_dir(&suite.directory).stdin(Stdio::null());
    program.stdout(writer.try_clone().with_context(cannot)?).stderr(writer);
    let mut child = program.spawn().with_context(cannot)?;
    // It holds the ends that are written to.
    drop(program);
    let mut output = Vec::new();
    std::io::copy(&mut reader, &mut output).with_context(cannot)?;
    output.flush().with_context(cannot)?;
    Ok((output, child.wait().with_context(cannot)?.success()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_are_found_among_cargos_lines() {
        let line = r#"{"reason":"compiler-artifact","manifest_path":"/w/tests/Cargo.toml","target":
            {"src_path":"/w/tests/tests/smoke.rs"},"profile":{"test":true},"executable":"/t/smoke-1"}"#;
        let found = suite(line).unwrap();
        assert_eq!(
            (found.source.as_str(), found.program, found.directory),
            ("tests/smoke.rs", "/t/smoke-1".into(), "/w/tests".into())
        );
        for other in
            [line.replace("true", "false"), line.replace("\"/t/smoke-1\"", "null"), "text".to_owned()]
        {
            assert_eq!(suite(&other), None);
        }
    }

    #[test]
    fn all_are_run_and_each_output_is_whole() {
        let of = |n: usize| Suite { source: n.to_string(), program: "sh".into(), directory: "/".into() };
        let start = |program: &Path| {
            let mut command = Command::new(program);
            command.args(["-c", "echo one; sleep 0.05; echo two >&2; exit 3"]);
            command
        };
        let mut seen = Vec::new();
        run((0..5).map(of).collect(), AT_ONCE, start, |source, output, succeeded| {
            assert_eq!((output, succeeded), (&b"one\ntwo\n"[..], false));
            seen.push(source.to_owned());
            Ok(())
        })
        .unwrap();
        seen.sort();
        assert_eq!(seen, ["0", "1", "2", "3", "4"]);
    }
}
