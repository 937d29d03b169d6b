//! What a run ran on: a figure without its machine, kernel and versions says nothing.

use std::{env, fs, process::Command};

use crate::measure::cpu;

/// The variable by which `cargo xtask bench` hands the commit over: git may refuse a user's tree to root.
pub const COMMIT_VARIABLE: &str = "OVERLAYD_BENCH_COMMIT";

/// The programs whose versions are told, with the argument that makes them tell.
const TOLD: [(&str, &str); 4] =
    [("iperf3", "--version"), ("dockerd", "--version"), ("etcd", "--version"), ("ovs-vswitchd", "--version")];

/// A machine, in words.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// Model and number.
    pub cpu: String,
    /// In GiB.
    pub memory: String,
    /// Release.
    pub kernel: String,
    /// How work is accounted for.
    pub accounting: String,
    /// What holds TCP's senders back.
    pub congestion_control: String,
    /// Of each program, its first line.
    pub versions: Vec<String>,
    /// Of this repository.
    pub commit: String,
    /// The day, in UTC.
    pub day: String,
}

impl Machine {
    /// This one.
    #[must_use]
    pub fn this() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let unknown = || "unknown".to_owned();
        Self {
            cpu: processor(&read("/proc/cpuinfo")).unwrap_or_else(unknown),
            memory: memory(&read("/proc/meminfo")).unwrap_or_else(unknown),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            congestion_control: read("/proc/sys/net/ipv4/tcp_congestion_control").trim().to_owned(),
            accounting: accounting(cpu::idle_is_measured()).to_owned(),
            versions: TOLD.into_iter().filter_map(|(program, argument)| version(program, argument)).collect(),
            commit: env::var(COMMIT_VARIABLE).unwrap_or_else(|_| unknown()),
            day: version("date", "-u +%F").unwrap_or_else(unknown),
        }
    }
}

fn processor(cpuinfo: &str) -> Option<String> {
    let models = || cpuinfo.lines().filter_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let (_, model) = models().next()?;
    Some(format!("{}, {} CPUs", model.trim(), models().count()))
}

fn memory(meminfo: &str) -> Option<String> {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: f64 = total.split_whitespace().next()?.parse().ok()?;
    Some(format!("{:.1} GiB", kib / 1024.0 / 1024.0))
}

fn accounting(idle_is_measured: Option<bool>) -> &'static str {
    match idle_is_measured {
        Some(true) => "idle time is measured; CPU figures are exact to 10 ms a run",
        Some(false) => "idle time is sampled at each tick; CPU figures are some percent wrong",
        None => "the kernel does not tell whether idle time is measured or sampled",
    }
}

/// The first line that it prints; `None` where it is not there.
fn version(program: &str, arguments: &str) -> Option<String> {
    let output = Command::new(program).args(arguments.split(' ')).output().ok()?;
    let line = String::from_utf8_lossy(&output.stdout).lines().next()?.trim().to_owned();
    (output.status.success() && !line.is_empty()).then_some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_counted_and_named() {
        let cpuinfo =
            "processor\t: 0\nmodel name\t: AMD EPYC\nflags\t: x\nprocessor\t: 1\nmodel name\t: AMD EPYC\n";
        assert_eq!(processor(cpuinfo).unwrap(), "AMD EPYC, 2 CPUs");
        assert_eq!(processor(""), None);
        assert_eq!(memory("MemTotal:       25165824 kB\nMemFree: 1 kB\n").unwrap(), "24.0 GiB");
    }

    #[test]
    fn a_program_that_is_not_there_has_no_version() {
        assert_eq!(version("no-such-program-anywhere", "--version"), None);
        assert!(version("date", "-u +%F").unwrap().starts_with("20"));
    }
}
