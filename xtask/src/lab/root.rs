//! Becoming root, which namespaces and BPF need; the build is done before, as whoever called.

use std::{env, os::unix::process::CommandExt, process::Command};

use anyhow::{Context, Result, bail};
use harness::binaries;
use nix::unistd::geteuid;

/// What sudo would take away and the second run needs.
const KEPT: [&str; 6] =
    ["PATH", "CARGO", "CARGO_HOME", "CARGO_TARGET_DIR", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN"];

/// Set for the second run, so that what the first one has done is not done again.
const AGAIN: &str = "OVERLAYD_XTASK_AS_ROOT";

/// Whether this is the run as root that a first one started.
pub(crate) fn is_second_run() -> bool {
    env::var_os(AGAIN).is_some()
}

/// Goes on as root: returns if this is root already, else starts the same command through sudo and does not
/// return.
pub(crate) fn ensure() -> Result<()> {
    if geteuid().is_root() {
        return Ok(());
    }
    if is_second_run() {
        bail!("sudo did not give root: run this as root");
    }
    let mut sudo = Command::new("sudo");
    sudo.arg("env").arg(format!("{AGAIN}=1"));
    let kept = KEPT.iter().filter_map(|key| Some((*key, env::var(key).ok()?)));
    sudo.args(kept.map(|(key, value)| format!("{key}={value}")));
    // With their directory given nothing is built as root, which would leave root's files in the target directory.
    sudo.arg(format!("{}={}", binaries::DIR_VARIABLE, std::path::absolute(binaries::dir()?)?.display()));
    sudo.arg(env::current_exe()?).args(env::args_os().skip(1));
    Err(sudo.exec()).context("this needs root: run it as root, or install sudo")
}
