//! The tests that depend on the kernel, in a guest: the programs' own, two hosts end to end, uplinks of all kinds, and the
//! kernel's tunnel devices as peers.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{
    Lab,
    guest::{Guest, quote},
    kernel::Series,
};
use crate::command;

/// The test binaries of the harness's crate.
const BINARIES: [&str; 4] = ["programs", "smoke", "uplinks", "kinds_kernel"];

/// Kinds of uplink that every kernel here has: their tests run or fail.
const UPLINKS: [&str; 4] = ["vlan", "bond", "wireguard", "tun"];

/// Network cards: the emulator's name, and the driver. Two that hypervisors give their guests, and two as in real machines:
/// one without XDP in its driver, one with. Older emulators do not have the last.
const CARDS: [(&str, &str); 4] =
    [("virtio-net-pci", "virtio_net"), ("vmxnet3", "vmxnet3"), ("e1000e", "e1000e"), ("igb", "igb")];

/// An emulated guest on a machine with other things to do.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(1800);

/// Packets for the fuzzer: an emulated CPU takes an order of magnitude longer than for the usual number.
const FUZZ_PACKETS: u32 = 2_000;

/// How many times as long as usual the tests wait for what has to happen: a daemon that starts has its programs verified,
/// by an emulated CPU that others may use too.
const PATIENCE: u32 = 30;

/// Where lines of the tests' output go.
type Sink<'a> = dyn FnMut(&[u8]) -> Result<()> + Send + 'a;

/// Builds, then runs the tests on each kernel, or those whose names contain `filter`. Returns the kernels on which they
/// failed.
pub(crate) fn run_all(
    kernels: &[Series],
    filter: Option<&str>,
    timeout: Duration,
    sink: &mut Sink<'_>,
) -> Result<Vec<String>> {
    let lab = Lab::open()?;
    // The guest reads this machine's files as they are: nothing may be built while it runs.
    let target = command::target_dir()?;
    command::build_binaries(&target)?;
    let tests = build_tests(&target)?;
    let guest = guest(&tests, filter, &target, &cards(&lab), timeout);
    let mut failed = Vec::new();
    for series in kernels {
        let status = lab.run(series, &guest, &mut Lines::new(sink))?;
        if status != 0 {
            failed.push(series.to_string());
        }
    }
    Ok(failed)
}

/// All kernels that `cargo xtask vm` takes by default.
pub(crate) fn all_kernels() -> Vec<Series> {
    ["6.1", "6.12"]
        .map(|series| Series::Packaged(series.to_owned()))
        .into_iter()
        .chain([Series::Sid])
        .collect()
}

/// The cards that the emulator has.
fn cards(lab: &Lab) -> Vec<(&'static str, &'static str)> {
    let (cards, missing): (Vec<_>, Vec<_>) =
        CARDS.into_iter().partition(|(model, _)| lab.emulator.has_card(model));
    for (model, _) in missing {
        eprintln!("this qemu has no {model}: what needs one is skipped");
    }
    cards
}

fn guest(
    tests: &[PathBuf],
    filter: Option<&str>,
    target: &Path,
    cards: &[(&'static str, &'static str)],
    timeout: Duration,
) -> Guest {
    let uplinks = UPLINKS.into_iter().chain(cards.iter().map(|(_, driver)| *driver));
    let variables = [
        ("OVERLAYD_TEST_UPLINKS", uplinks.collect::<Vec<_>>().join(",")),
        ("OVERLAYD_BIN_DIR", target.join("release").display().to_string()),
        ("OVERLAYD_TEST_DEVICES", "all".to_owned()),
        ("OVERLAYD_FUZZ_PACKETS", FUZZ_PACKETS.to_string()),
        ("OVERLAYD_TEST_PATIENCE", PATIENCE.to_string()),
    ];
    let (mut lines, filter) = (String::from("failed=0\n"), filter.map(quote).unwrap_or_default());
    for test in tests {
        let test = quote(&test.display().to_string());
        lines.push_str(&format!("{test} --test-threads=2 {filter} || failed=1\n"));
    }
    lines.push_str("exit $failed\n");
    // Where cargo runs them.
    let directory = command::workspace().join("tests");
    let guest = Guest::script(&directory, &variables, &lines, BINARIES.join(", "), timeout);
    guest.with_cards(cards.iter().map(|(model, _)| *model))
}

/// Builds the test binaries, and asks cargo where they are.
fn build_tests(target: &Path) -> Result<Vec<PathBuf>> {
    let mut cargo = command::cargo(&["test", "--no-run", "--package", "overlay-tests"]);
    cargo.env("CARGO_TARGET_DIR", target).arg("--message-format=json-render-diagnostics");
    for binary in BINARIES {
        cargo.args(["--test", binary]);
    }
    eprintln!("+ {}", command::shown(&cargo));
    let output = cargo.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    ensure!(output.status.success(), "`{}` failed: {}", command::shown(&cargo), output.status);
    let text = String::from_utf8_lossy(&output.stdout);
    BINARIES
        .iter()
        .map(|name| {
            let found = text.lines().find_map(|line| executable(line, name));
            found.with_context(|| format!("cargo built no test binary {name}"))
        })
        .collect()
}

/// The executable of a test target, where this line of cargo's tells of it.
fn executable(line: &str, name: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    (message["target"]["name"] == name).then(|| message["executable"].as_str().map(PathBuf::from))?
}

/// Whole lines out of what is written.
struct Lines<'a, 'b> {
    sink: &'a mut Sink<'b>,
    rest: Vec<u8>,
}

impl<'a, 'b> Lines<'a, 'b> {
    fn new(sink: &'a mut Sink<'b>) -> Self {
        Self { sink, rest: Vec::new() }
    }
}

impl Write for Lines<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.rest.extend(bytes);
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            (self.sink)(&line).map_err(io::Error::other)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_tells_where_a_test_binary_is() {
        let line = r#"{"reason":"compiler-artifact","target":{"name":"smoke"},"executable":"/t/smoke-1"}"#;
        assert_eq!(executable(line, "smoke"), Some("/t/smoke-1".into()));
        assert_eq!(executable(line, "programs"), None);
        assert_eq!(executable(r#"{"target":{"name":"smoke"},"executable":null}"#, "smoke"), None);
        assert_eq!(executable("no JSON", "smoke"), None);
    }

    #[test]
    fn output_comes_in_whole_lines() {
        let mut lines = Vec::new();
        let mut sink = |line: &[u8]| {
            lines.push(String::from_utf8_lossy(line).into_owned());
            Ok(())
        };
        let mut writer = Lines::new(&mut sink);
        for part in ["a", "b\nc\n", "", "d"] {
            writer.write_all(part.as_bytes()).unwrap();
        }
        assert_eq!(lines, ["ab\n", "c\n"]);
    }
}
