//! A real etcd.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    Netns,
    process::{Background, Cmd, Output, fresh_log},
    wait::eventually_some,
};

/// How long it may take to serve: it syncs its files to a disk that others use too.
const READY: Duration = Duration::from_secs(30);

/// An etcd of one member; dropping it kills it and removes its data.
#[derive(Debug)]
pub struct Etcd {
    ns: PathBuf,
    ip: IpAddr,
    dir: PathBuf,
    args: Vec<String>,
    process: Option<Background>,
}

impl Etcd {
    /// Starts it in a namespace that has the address `ip`, its files in the new directory `dir`, and waits
    /// until it serves.
    ///
    /// # Errors
    /// etcd is not installed, or does not come up; the error holds the end of its log.
    pub fn start(ns: &Netns, ip: impl Into<IpAddr>, dir: &Path) -> Result<Self> {
        Self::start_with(ns, ip, dir, &[])
    }

    /// Starts it as [`Self::start`] does, with more arguments.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(ns: &Netns, ip: impl Into<IpAddr>, dir: &Path, args: &[&str]) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let args = args.iter().map(|&arg| arg.to_owned()).collect();
        let (ns, dir) = (ns.path().to_owned(), dir.to_owned());
        let mut etcd = Self { ns, ip: ip.into(), dir, args, process: None };
        fresh_log(&etcd.log())?;
        etcd.start_again()?;
        Ok(etcd)
    }

    /// Starts it on the data it has, after [`Self::kill`].
    ///
    /// # Errors
    /// It does not come up; the error holds the end of its log.
    pub fn start_again(&mut self) -> Result<()> {
        let client = self.endpoint();
        let data = self.dir.join("data").display().to_string();
        // The peer port is the namespace's own: a member of one talks to nobody.
        let peer = "http://127.0.0.1:2380";
        let cmd = Cmd::new("etcd").netns(&self.ns).args([
            "--name=etcd",
            "--logger=zap",
            "--log-level=warn",
            &format!("--data-dir={data}"),
            &format!("--listen-client-urls={client}"),
            &format!("--advertise-client-urls={client}"),
            &format!("--listen-peer-urls={peer}"),
            &format!("--initial-advertise-peer-urls={peer}"),
            &format!("--initial-cluster=etcd={peer}"),
        ]);
        let cmd = cmd.args(&self.args);
        let mut process = cmd.spawn(&self.log())?;
        let ready = eventually_some("etcd serves", READY, || {
            if !process.alive() {
                return Ok(Some(false));
            }
            self.etcdctl(&["endpoint", "health"]).map(|_| Some(true))
        });
        match ready {
            Ok(true) => self.process = Some(process),
            Ok(false) => bail!("etcd ended at once:\n{}", process.tail(15)),
            Err(e) => bail!("{e:#}\n{}", process.tail(15)),
        }
        Ok(())
    }

    /// Its process id while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Background::pid)
    }

    /// What clients connect to.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", SocketAddr::new(self.ip, 2379))
    }

    /// Where it logs.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.dir.join("etcd.log")
    }

    /// Runs etcdctl on it.
    ///
    /// # Errors
    /// etcdctl failed; the error tells all it said.
    pub fn etcdctl(&self, args: &[&str]) -> Result<Output> {
        Cmd::new("etcdctl")
            .netns(&self.ns)
            .env("ETCDCTL_API", "3")
            .args([&format!("--endpoints={}", self.endpoint()), "--dial-timeout=2s", "--command-timeout=5s"])
            .args(args)
            .check()
    }

    /// Writes a key.
    ///
    /// # Errors
    /// etcd is out of reach.
    pub fn put(&self, key: &str, value: &str) -> Result<()> {
        self.etcdctl(&["put", "--", key, value]).map(drop)
    }

    /// Reads a key; `None` where there is none.
    ///
    /// # Errors
    /// etcd is out of reach.
    pub fn get(&self, key: &str) -> Result<Option<String>> {
        let output = self.etcdctl(&["get", "--", key])?;
        Ok(output.stdout.split_once('\n').map(|(_, value)| value.trim_end_matches('\n').to_owned()))
    }

    /// Reads all keys that begin with `prefix`. Keys and values are taken to be single lines.
    ///
    /// # Errors
    /// etcd is out of reach.
    pub fn get_prefix(&self, prefix: &str) -> Result<BTreeMap<String, String>> {
        let output = self.etcdctl(&["get", "--prefix", "--", prefix])?;
        let lines: Vec<&str> = output.stdout.lines().collect();
        Ok(lines.chunks_exact(2).map(|pair| (pair[0].to_owned(), pair[1].to_owned())).collect())
    }

    /// Deletes a key.
    ///
    /// # Errors
    /// etcd is out of reach.
    pub fn del(&self, key: &str) -> Result<()> {
        self.etcdctl(&["del", "--", key]).map(drop)
    }

    /// Grants a lease; its id.
    ///
    /// # Errors
    /// etcd is out of reach, or says something else than usual.
    pub fn grant(&self, seconds: u32) -> Result<String> {
        let said = self.etcdctl(&["lease", "grant", &seconds.to_string()])?.stdout;
        let id = said.strip_prefix("lease ").and_then(|rest| rest.split_once(' '));
        id.map(|(id, _)| id.to_owned()).with_context(|| format!("etcdctl granted no lease: {said}"))
    }

    /// Writes a key that goes with a lease.
    ///
    /// # Errors
    /// etcd is out of reach, or there is no such lease.
    pub fn put_leased(&self, key: &str, value: &str, lease: &str) -> Result<()> {
        self.etcdctl(&["put", &format!("--lease={lease}"), "--", key, value]).map(drop)
    }

    /// Ends a lease, and the keys that hang on it.
    ///
    /// # Errors
    /// etcd is out of reach, or there is no such lease.
    pub fn revoke(&self, lease: &str) -> Result<()> {
        self.etcdctl(&["lease", "revoke", lease]).map(drop)
    }

    /// Forgets the history: whoever watches from the past has missed it.
    ///
    /// # Errors
    /// It is out of reach.
    pub fn compact(&self) -> Result<()> {
        let said = self.etcdctl(&["endpoint", "status", "-w", "json"])?.stdout;
        let said: Value = serde_json::from_str(&said)?;
        let revision = said[0]["Status"]["header"]["revision"].as_i64().context("etcd tells no revision")?;
        self.etcdctl(&["compact", &revision.to_string()]).map(drop)
    }

    /// Kills it; its data stays.
    pub fn kill(&mut self) -> Option<ExitStatus> {
        self.process.take().map(|mut process| process.kill())
    }

    /// Freezes it: its sockets stay open and nobody answers.
    ///
    /// # Errors
    /// It is not running.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets it go on after [`Self::pause`].
    ///
    /// # Errors
    /// It is not running.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        match &self.process {
            Some(process) => process.signal(signal),
            None => bail!("etcd is not running"),
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.dir);
    }
}
