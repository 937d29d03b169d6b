//! A process known by its pid and start time, so that a reused pid is never signalled.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// One process of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// The process id.
    pub pid: i32,
    /// Clock ticks between boot and the process's start: field 22 of `/proc/PID/stat`.
    pub start: u64,
}

impl Process {
    /// The process that has `pid` now.
    pub fn of(pid: i32) -> Result<Self> {
        let start = Stat::of(pid).with_context(|| format!("there is no process {pid}"))?.start;
        Ok(Self { pid, start })
    }

    /// Whether it still runs; a zombie does not, unless only its first thread is one.
    pub fn alive(self) -> bool {
        let Some(stat) = Stat::of(self.pid).filter(|stat| stat.start == self.start) else { return false };
        match stat.state {
            // Reaps it if it is our child; otherwise ECHILD, and its parent's business.
            'Z' => match waitpid(Pid::from_raw(self.pid), Some(WaitPidFlag::WNOHANG)) {
                Ok(status) => status == WaitStatus::StillAlive,
                Err(_) => stat.threads > 1,
            },
            state => state != 'X',
        }
    }

    /// TERM, up to `grace` for an orderly end, then KILL. An error if even that does not end it.
    pub fn terminate(self, grace: Duration) -> Result<()> {
        for (signal, patience) in [(Signal::SIGTERM, grace), (Signal::SIGKILL, Duration::from_secs(5))] {
            if self.alive() {
                // ESRCH means that it went between the two lines.
                let _ = kill(Pid::from_raw(self.pid), signal);
            }
            if self.gone_within(patience) {
                return Ok(());
            }
        }
        bail!("process {} does not end on SIGKILL", self.pid)
    }

    fn gone_within(self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while self.alive() {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }
}

/// Every process whose arguments name `text` and which lives in another mount namespace than we do.
pub(super) fn elsewhere_naming(text: &str) -> Result<Vec<Process>> {
    let here = fs::read_link("/proc/thread-self/ns/mnt").context("reading our own mount namespace")?;
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("reading /proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        // A process may end between any two of these reads: then it is of no interest.
        let Ok(arguments) = fs::read(entry.path().join("cmdline")) else { continue };
        let Ok(namespace) = fs::read_link(entry.path().join("ns/mnt")) else { continue };
        if namespace != here && String::from_utf8_lossy(&arguments).contains(text) {
            found.extend(Process::of(pid));
        }
    }
    Ok(found)
}

/// What we need of `/proc/PID/stat` (proc(5)).
struct Stat {
    state: char,
    threads: u32,
    start: u64,
}

impl Stat {
    fn of(pid: i32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The command's name, in brackets, may hold anything: count from the last one.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let state = fields.first()?.chars().next()?;
        Some(Self { state, threads: fields.get(17)?.parse().ok()?, start: fields.get(19)?.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    #[expect(clippy::zombie_processes, reason = "that `terminate` reaps it is what the test is about")]
    fn a_child_is_ended_and_reaped() {
        let child = Command::new("sleep").arg("60").spawn().expect("sleep starts");
        let pid = i32::try_from(child.id()).expect("a pid");
        let process = Process::of(pid).expect("it runs");
        assert!(process.alive());
        process.terminate(Duration::from_secs(5)).expect("it ends");
        assert!(!process.alive());
        assert!(Process::of(pid).is_err(), "reaped");
    }

    #[test]
    fn another_start_time_is_another_process() {
        let own = Process::of(i32::try_from(std::process::id()).expect("a pid")).expect("we run");
        let earlier = Process { start: own.start - 1, ..own };
        assert!(own.alive() && !earlier.alive());
        earlier.terminate(Duration::ZERO).expect("nobody to end, and we live on");
    }
}
