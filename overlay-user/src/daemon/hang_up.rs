//! SIGHUP while nobody listens to it: without a handler it ends a process, and a start takes as long as etcd takes to
//! answer. It is held until then. What is held is no interruption: one would fail the loading of a program with EAGAIN. And
//! it outlives execve(2), as the mask does, so that the process that starts again leaves it to the one that it becomes.

use nix::sys::signal::{SigSet, Signal};
use tracing::debug;

/// Holds it, on this thread and those that it begins.
pub fn hold() {
    if let Err(error) = hang_ups().thread_block() {
        debug!("SIGHUP cannot be held: {error}");
    }
}

/// Lets it through, on the thread that waits for the daemon: there is a handler now.
pub(super) fn let_through() -> nix::Result<()> {
    hang_ups().thread_unblock()
}

fn hang_ups() -> SigSet {
    let mut set = SigSet::empty();
    set.add(Signal::SIGHUP);
    set
}
