//! Where this process runs.

use std::{fs::File, path::Path};

use anyhow::{Context, Result};
use nix::{
    sched::{CloneFlags, CpuSet, sched_setaffinity, setns},
    sys::{prctl, signal::Signal},
    unistd::Pid,
};

/// Enters the network namespace and stays on the CPU, until whoever started this process is gone.
pub(super) fn enter(netns: &Path, cpu: usize) -> Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL).context("cannot follow the parent")?;
    let file = File::open(netns).with_context(|| format!("cannot open {}", netns.display()))?;
    setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter {}", netns.display()))?;
    let mut set = CpuSet::new();
    set.set(cpu).with_context(|| format!("there is no CPU {cpu}"))?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("cannot stay on CPU {cpu}"))
}
