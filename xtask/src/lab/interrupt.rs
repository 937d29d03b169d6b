//! Ctrl-C: the step under way ends, and everything is removed as after a failure.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{SigSet, Signal};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From here on SIGINT, SIGTERM and SIGHUP are noted and end nothing by themselves. Call it while there is one
/// thread: threads inherit the signal mask. Commands do not, the standard library empties it for them.
pub(crate) fn watch() -> Result<()> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    signals.thread_block().context("cannot block signals")?;
    thread::spawn(move || {
        while let Ok(signal) = signals.wait() {
            if !INTERRUPTED.swap(true, Ordering::Relaxed) {
                eprintln!("==> {signal}: cleaning up");
            }
        }
    });
    Ok(())
}

/// Whether a signal came.
pub(crate) fn came() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Fails if a signal came.
pub(crate) fn check() -> Result<()> {
    if came() {
        bail!("interrupted");
    }
    Ok(())
}

/// Prints a heading, unless a signal came.
pub(crate) fn step(what: &str) -> Result<()> {
    check()?;
    println!("==> {what}");
    Ok(())
}
