//! The measuring thread: on one CPU, and before everything else there where the kernel lets it.

use anyhow::{Context, Result};
use nix::{
    libc,
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

/// The CPU, and whether what runs there runs before all others (`SCHED_FIFO`).
pub(super) type Place = (usize, bool);

/// Pins the calling thread to the last CPU that it may use: the first one serves most interrupts. Tells which.
pub(super) fn take() -> Result<Place> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).context("cannot read the CPUs of this thread")?;
    let last = (0..CpuSet::count()).rev().find(|cpu| allowed.is_set(*cpu).unwrap_or(false));
    let cpu = last.context("this thread may use no CPU")?;
    let mut one = CpuSet::new();
    one.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &one).with_context(|| format!("cannot pin to CPU {cpu}"))?;
    let parameters = libc::sched_param { sched_priority: 1 };
    // SAFETY: the pointer is to a whole sched_param; 0 is the calling thread.
    let first = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) } == 0;
    Ok((cpu, first))
}
