//! A network namespace that goes when it is dropped.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use nix::{
    sched::{CloneFlags, setns},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    process::{Cmd, Output},
    wait::eventually,
};

/// Where iproute2 keeps the named ones.
pub const DIR: &str = "/run/netns";

/// A network namespace.
#[derive(Debug)]
pub struct Netns {
    path: PathBuf,
    /// Named namespaces are ours to delete; borrowed ones belong to somebody else, such as a Docker engine.
    owned: bool,
}

impl Netns {
    /// Creates a named namespace with its loopback up.
    ///
    /// # Errors
    /// No root, or the name is taken.
    pub fn create(name: &str) -> Result<Self> {
        Cmd::new("ip").args(["netns", "add", name]).check()?;
        let ns = Self { path: Path::new(DIR).join(name), owned: true };
        ns.ip("link set lo up")?;
        Ok(ns)
    }

    /// Uses the namespace at `path`, for example `/proc/<pid>/ns/net`, and leaves it alone at the end.
    #[must_use]
    pub fn borrow(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), owned: false }
    }

    /// Where it can be entered: `nsenter --net=<path>`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its name, or the path where it has none.
    #[must_use]
    pub fn name(&self) -> String {
        self.path.strip_prefix(DIR).unwrap_or(&self.path).display().to_string()
    }

    /// A command that runs inside.
    #[must_use]
    pub fn cmd(&self, program: impl AsRef<str>) -> Cmd {
        Cmd::new(program).netns(&self.path)
    }

    /// Runs a command inside; anything but exit code 0 is an error that tells all it said.
    ///
    /// # Errors
    /// The command failed.
    pub fn exec(&self, argv: &[&str]) -> Result<Output> {
        let (program, args) = argv.split_first().context("an empty command")?;
        self.cmd(program).args(args).check()
    }

    /// Runs `ip` inside, its arguments separated by blanks.
    ///
    /// # Errors
    /// `ip` failed.
    pub fn ip(&self, args: &str) -> Result<Output> {
        self.cmd("ip").args(args.split_whitespace()).check()
    }

    /// Runs many `ip` commands in one process.
    ///
    /// # Errors
    /// One of them failed; the rest is not run.
    pub fn ip_batch(&self, lines: &[String]) -> Result<()> {
        self.cmd("ip")
            .args(["-batch", "-"])
            .stdin(lines.join("\n"))
            .check()
            .map(drop)
            .with_context(|| format!("ip -batch in {}:\n    {}", self.name(), lines.join("\n    ")))
    }

    /// Runs `f` on a thread of its own inside: the namespace is a thread's property, and a socket keeps the
    /// one it was made in.
    ///
    /// # Errors
    /// The namespace cannot be entered.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let file =
                    File::open(&self.path).with_context(|| format!("cannot open {}", self.path.display()))?;
                setns(file, CloneFlags::CLONE_NEWNET)
                    .with_context(|| format!("cannot enter {}", self.path.display()))?;
                Ok(f())
            });
            thread.join().map_err(|_| anyhow!("a thread panicked in {}", self.name()))?
        })
    }

    /// Sets `net.<key>`, given with slashes or dots.
    ///
    /// # Errors
    /// There is no such key here.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = sysctl_path(key);
        self.run(|| fs::write(&path, value).with_context(|| format!("cannot write {}", path.display())))?
    }

    /// Sets `net.<key>` where the kernel has it.
    ///
    /// # Errors
    /// It is there, but does not take the value.
    pub fn sysctl_if_present(&self, key: &str, value: &str) -> Result<()> {
        let path = sysctl_path(key);
        if self.run(|| path.exists())? { self.sysctl(key, value) } else { Ok(()) }
    }

    /// The processes inside.
    #[must_use]
    pub fn processes(&self) -> Vec<i32> {
        let Ok(own) = fs::metadata(&self.path) else { return Vec::new() };
        let inside = |pid: &i32| {
            fs::metadata(format!("/proc/{pid}/ns/net"))
                .is_ok_and(|m| m.ino() == own.ino() && m.dev() == own.dev())
        };
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).filter(inside).collect()
    }

    /// Ends what runs inside, ourselves excepted: SIGTERM, and SIGKILL for what is left after `grace`.
    pub fn end_processes(&self, grace: Duration) {
        let own = std::process::id().cast_signed();
        let signal = |signal| {
            for pid in self.processes().into_iter().filter(|pid| *pid != own) {
                let _ = kill(Pid::from_raw(pid), signal);
            }
        };
        let gone = || self.processes().iter().all(|pid| *pid == own);
        if gone() {
            return;
        }
        signal(Signal::SIGTERM);
        if eventually("the processes end", grace, gone).is_err() {
            signal(Signal::SIGKILL);
            let _ = eventually("the processes are dead", Duration::from_secs(2), gone);
        }
    }

    /// Deletes a namespace by name, what runs inside ended first.
    ///
    /// # Errors
    /// There is none, or no root.
    pub fn delete(name: &str, grace: Duration) -> Result<()> {
        Self::borrow(Path::new(DIR).join(name)).end_processes(grace);
        Cmd::new("ip").args(["netns", "del", name]).check().map(drop)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if !self.owned {
            return;
        }
        if let Err(e) = Self::delete(&self.name(), Duration::ZERO) {
            eprintln!("cannot remove the namespace {}: {e:#}", self.name());
        }
    }
}

fn sysctl_path(key: &str) -> PathBuf {
    let key = if key.contains('/') { key.to_owned() } else { key.replace('.', "/") };
    Path::new("/proc/sys/net").join(key)
}
