//! Each side has one CPU for all that runs on it.

use std::fs;

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

/// Keeps a process, all its threads and what it will start on a CPU.
pub(super) fn pin(pid: i32, cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu).with_context(|| format!("CPU {cpu}"))?;
    let tasks = format!("/proc/{pid}/task");
    // Twice: a thread that was started meanwhile by one not yet pinned is not pinned either.
    for _ in 0..2 {
        for task in fs::read_dir(&tasks).with_context(|| format!("process {pid} is gone"))?.flatten() {
            let task = task.file_name().to_string_lossy().parse()?;
            match sched_setaffinity(Pid::from_raw(task), &set) {
                // A thread may end between the two lines.
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(e) => return Err(e).with_context(|| format!("cannot pin process {pid} to CPU {cpu}")),
            }
        }
    }
    Ok(())
}
