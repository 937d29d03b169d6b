//! Signals, and what becomes of those for which nobody waits.
//!
//! SIGHUP without a handler ends a process, and a start takes as long as etcd takes to answer. It is held until then. What
//! is held is no interruption: one would fail the loading of a program with EAGAIN. And it outlives execve(2), as the mask
//! does, so that the process that starts again leaves it to the one that it becomes.

use std::{io, time::Duration};

use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use tokio::{
    signal::unix::{Signal as Caught, SignalKind},
    time::timeout,
};
use tracing::debug;

/// How long it takes at most until what a handler has caught is told.
const TOLD: Duration = Duration::from_millis(50);

/// Holds SIGHUP, on this thread and those that it begins.
pub fn hold() {
    if let Err(error) = hang_ups().thread_block() {
        debug!("SIGHUP cannot be held: {error}");
    }
}

/// Waits for SIGHUP from now on, and lets through what was held, on the thread that waits for the daemon.
pub(super) fn hang_up() -> io::Result<Caught> {
    let caught = tokio::signal::unix::signal(SignalKind::hangup())?;
    hang_ups().thread_unblock()?;
    Ok(caught)
}

fn hang_ups() -> SigSet {
    let mut set = SigSet::empty();
    set.add(Signal::SIGHUP);
    set
}

/// SIGTERM and SIGINT.
pub(super) struct Ends {
    terminate: Caught,
    interrupt: Caught,
}

impl Ends {
    /// Waits for them from now on.
    pub(super) fn new() -> io::Result<Self> {
        let caught = tokio::signal::unix::signal;
        Ok(Self { terminate: caught(SignalKind::terminate())?, interrupt: caught(SignalKind::interrupt())? })
    }

    /// Returns when there was one.
    pub(super) async fn told(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Leaves them to the kernel, which ends the process of the next one. True where there was one before: nobody else
    /// would hear of it.
    pub(super) async fn leave(mut self) -> bool {
        for ends in [Signal::SIGTERM, Signal::SIGINT] {
            // SAFETY: the default is no handler, so nothing runs that would have to be safe for signals.
            if let Err(error) = unsafe { signal(ends, SigHandler::SigDfl) } {
                debug!("{ends} is not left to the kernel: {error}");
            }
        }
        timeout(TOLD, self.told()).await.is_ok()
    }
}
