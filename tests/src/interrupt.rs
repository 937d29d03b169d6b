//! Ctrl-C: the step under way ends, and everything is removed as after a failure.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::{Context, Result, bail};
use nix::{
    libc::c_int,
    sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
    unistd,
};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From here on SIGINT, SIGTERM and SIGHUP are noted and end nothing by themselves.
///
/// Handlers, and not a blocked mask: exec puts handlers back to the default, but keeps the mask, and daemons that
/// outlive us could not be ended by SIGTERM.
///
/// # Errors
/// The kernel takes no handler.
pub fn watch() -> Result<()> {
    let action = SigAction::new(SigHandler::Handler(note), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler only stores to an atomic and calls write(2), which signal-safety(7) allows.
        unsafe { sigaction(signal, &action) }.with_context(|| format!("cannot handle {signal}"))?;
    }
    Ok(())
}

extern "C" fn note(_signal: c_int) {
    if !INTERRUPTED.swap(true, Ordering::Relaxed) {
        let _ = unistd::write(io::stderr(), b"==> interrupted: cleaning up\n");
    }
}

/// Whether a signal came.
#[must_use]
pub fn came() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Fails if a signal came.
///
/// # Errors
/// It did.
pub fn check() -> Result<()> {
    if came() {
        bail!("interrupted");
    }
    Ok(())
}

/// Prints a heading, unless a signal came.
///
/// # Errors
/// One did.
pub fn step(what: &str) -> Result<()> {
    check()?;
    println!("==> {what}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{env, process::Command};

    use nix::sys::signal::raise;

    use super::*;

    const CHILD: &str = "OVERLAYD_TEST_INTERRUPT";

    /// In a process of its own, as the handlers are the whole process's.
    #[test]
    fn a_signal_is_noted_and_blocked_for_no_child() {
        if env::var_os(CHILD).is_none() {
            let name = "interrupt::tests::a_signal_is_noted_and_blocked_for_no_child";
            let mut again = Command::new(env::current_exe().unwrap());
            let output = again.args(["--exact", name]).env(CHILD, "1").output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            return assert!(output.status.success() && said.contains("1 passed"), "{said}");
        }
        watch().unwrap();
        let status = Command::new("cat").arg("/proc/self/status").output().unwrap();
        let status = String::from_utf8(status.stdout).unwrap();
        assert!(status.contains("SigBlk:\t0000000000000000"), "{status}");
        assert!(check().is_ok());
        raise(Signal::SIGTERM).unwrap();
        assert_eq!(check().unwrap_err().to_string(), "interrupted");
    }
}
