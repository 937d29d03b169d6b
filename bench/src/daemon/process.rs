//! What the kernel says of a process.

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::{Context, Result};
use nix::unistd::{SysconfVar, sysconf};

/// A process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Process(u32);

/// Memory, MiB.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    /// Resident now.
    pub(super) resident: f64,
    /// Resident at most, so far.
    pub(super) highest: f64,
}

impl Process {
    pub(super) fn new(pid: u32) -> Self {
        Self(pid)
    }

    fn read(self, file: &str) -> Result<String> {
        let path = format!("/proc/{}/{file}", self.0);
        fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
    }

    pub(super) fn memory(self) -> Result<Memory> {
        let status = self.read("status")?;
        let field = |name: &str| -> Result<f64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
            Ok(kib.with_context(|| format!("no {name} of process {}", self.0))? / 1024.0)
        };
        Ok(Memory { resident: field("VmRSS:")?, highest: field("VmHWM:")? })
    }

    /// User and system time so far.
    pub(super) fn cpu(self) -> Result<Duration> {
        let stat = self.read("stat")?;
        // The name may hold anything, but for the last bracket.
        let (_, fields) = stat.rsplit_once(')').context("a stat without a name")?;
        let ticks: Vec<u64> =
            fields.split_whitespace().skip(11).take(2).filter_map(|n| n.parse().ok()).collect();
        let per_second = sysconf(SysconfVar::CLK_TCK)?.context("no clock ticks")?;
        Ok(Duration::from_secs_f64(ticks.iter().sum::<u64>() as f64 / per_second as f64))
    }

    /// MiB that its maps take in the kernel, each once.
    pub(super) fn map_memory(self) -> Result<f64> {
        let dir = format!("/proc/{}/fdinfo", self.0);
        let mut maps = BTreeMap::new();
        for entry in fs::read_dir(&dir).with_context(|| format!("cannot read {dir}"))? {
            // It may have been closed meanwhile.
            let Ok(text) = fs::read_to_string(entry?.path()) else { continue };
            let field = |name: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(name));
                line.and_then(|value| value.trim().parse::<u64>().ok())
            };
            maps.extend(field("map_id:").zip(field("memlock:")));
        }
        Ok(maps.values().sum::<u64>() as f64 / f64::from(1 << 20))
    }
}
