//! How long the machine's CPUs worked: all of them, for whatever, interrupts and softirqs included.
//!
//! It is the time that they were not idle, and not the sum of `user`, `system`, `irq` and `softirq`: without
//! `CONFIG_VIRT_CPU_ACCOUNTING_GEN` and `CONFIG_IRQ_TIME_ACCOUNTING` those are samples taken at each tick, 250 a second
//! say, some percent wrong over a second. Idle time is measured where ticks stop on idle CPUs (`CONFIG_NO_HZ_IDLE`), and
//! an interrupt that wakes a CPU ends it.

use std::{fs, time::Instant};

use anyhow::{Context, Result};
use nix::unistd::{SysconfVar, sysconf};

/// Idle time up to a moment.
#[derive(Clone, Copy, Debug)]
pub struct Idle {
    at: Instant,
    seconds: f64,
    cpus: usize,
}

impl Idle {
    /// Up to now.
    ///
    /// # Errors
    /// `/proc/stat` cannot be read.
    pub fn now() -> Result<Self> {
        let stat = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
        let at = Instant::now();
        let hz = sysconf(SysconfVar::CLK_TCK)?.context("the kernel names no clock ticks")?;
        let (ticks, cpus) = parse(&stat).context("/proc/stat has no line of all CPUs")?;
        Ok(Self { at, seconds: ticks as f64 / hz as f64, cpus })
    }

    /// What the CPUs worked since then, together, in seconds. A hypervisor's other guests do not count.
    ///
    /// # Errors
    /// As [`Self::now`].
    pub fn busy_since(&self) -> Result<f64> {
        let now = Self::now()?;
        let all = (now.at - self.at).as_secs_f64() * now.cpus as f64;
        // Idle time comes in hundredths of a second: over a short time it may exceed the whole.
        Ok((all - (now.seconds - self.seconds)).max(0.0))
    }
}

/// The ticks in which no CPU worked for us, idle, waiting for a disk or stolen, and how many CPUs there are.
fn parse(stat: &str) -> Option<(u64, usize)> {
    let all = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let fields: Vec<u64> = all.split_whitespace().map_while(|field| field.parse().ok()).collect();
    let [_user, _nice, _system, idle, iowait, _irq, _softirq, steal, ..] = fields[..] else { return None };
    let cpus = stat.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu "));
    Some((idle + iowait + steal, cpus.count()))
}

/// Whether idle time is measured, or sampled as everything else; in a line of the report. `None` where the kernel does
/// not tell.
#[must_use]
pub fn idle_is_measured() -> Option<bool> {
    nohz(&fs::read_to_string("/proc/timer_list").ok()?)
}

/// `.nohz : 1` of each CPU (0: its tick never stops).
fn nohz(timer_list: &str) -> Option<bool> {
    let field = |line: &str| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == ".nohz" || name.trim() == ".nohz_mode").then(|| value.trim() != "0")
    };
    timer_list.lines().filter_map(field).reduce(|all, one| all && one)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_not_work_is_idle_iowait_and_steal() {
        let stat = "cpu  3008903 510227 1061264 2389593 22714 0 55807 3435 0 0\n\
                    cpu0 1466366 272661 506166 1245121 6791 0 26322 1710 0 0\n\
                    cpu1 1542536 237566 555098 1144472 15922 0 29484 1724 0 0\nintr 1 2\n";
        assert_eq!(parse(stat), Some((2_389_593 + 22_714 + 3435, 2)));
        assert_eq!(parse("cpu 1 2 3\n"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn one_cpu_whose_tick_never_stops_is_enough() {
        assert_eq!(nohz("  .nohz           : 1\n  .nohz           : 1\n"), Some(true));
        assert_eq!(nohz("  .nohz           : 1\n  .nohz           : 0\n"), Some(false));
        assert_eq!(nohz("  .nohz_mode      : 2\n"), Some(true));
        assert_eq!(nohz("jiffies: 7\n"), None);
    }

    /// Others may work beside us, so there is a least, and the most is all CPUs.
    #[test]
    fn work_shows() {
        let begin = Idle::now().unwrap();
        let thread = || nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap();
        let spun = Duration::from(thread()) + Duration::from_millis(300);
        while Duration::from(thread()) < spun {}
        let elapsed = begin.at.elapsed().as_secs_f64();
        let busy = begin.busy_since().unwrap();
        assert!(busy > 0.27, "{busy}");
        assert!(busy < (elapsed + 0.1) * begin.cpus as f64, "{busy} in {elapsed}");
    }
}
