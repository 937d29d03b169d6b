//! A real etcd of three members, with TLS between them and towards clients, which need certificates of their own.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use serde_json::Value;

use crate::{
    Netns,
    process::{Background, Cmd, Output, fresh_log},
    wait::{eventually, eventually_some},
};

/// Members.
pub const MEMBERS: usize = 3;

const READY: Duration = Duration::from_secs(40);

/// The cluster; dropping it kills it.
#[derive(Debug)]
pub struct Cluster {
    ns: PathBuf,
    ip: Ipv4Addr,
    dir: PathBuf,
    args: Vec<String>,
    /// How often it was made anew: another cluster has another token.
    age: u32,
    members: [Option<Background>; MEMBERS],
    user: Option<String>,
}

impl Cluster {
    /// Starts it in a namespace that has the address, its files in the new directory, with more arguments for each member,
    /// and waits until it has a leader.
    ///
    /// # Errors
    /// etcd is not installed, or does not come up.
    pub fn start(ns: &Netns, ip: Ipv4Addr, dir: &Path, args: &[&str]) -> Result<Self> {
        fs::create_dir_all(dir)?;
        certificates(ip, dir)?;
        let args = args.iter().map(|&arg| arg.to_owned()).collect();
        let (ns, dir) = (ns.path().to_owned(), dir.to_owned());
        let mut cluster = Self { ns, ip, dir, args, age: 0, members: [const { None }; MEMBERS], user: None };
        for member in 0..MEMBERS {
            fresh_log(&cluster.log(member))?;
        }
        cluster.start_all()?;
        Ok(cluster)
    }

    /// Starts the members that do not run, and waits until all serve.
    ///
    /// # Errors
    /// One of them does not come up; the error holds the end of its log.
    pub fn start_all(&mut self) -> Result<()> {
        for member in 0..MEMBERS {
            self.spawn(member)?;
        }
        eventually("all members of etcd serve", READY, || self.etcdctl(&["endpoint", "health"]).is_ok())
            .map_err(|error| {
                let tails = self.members.iter().flatten().map(|process| process.tail(5));
                anyhow::anyhow!("{error:#}\n{}", tails.collect::<Vec<_>>().join("\n"))
            })
    }

    /// Starts one member on the data it has, without waiting.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(&mut self, member: usize) -> Result<()> {
        if self.members[member].is_some() {
            return Ok(());
        }
        let [client, peer] = [self.client(member), self.peer(member)];
        let all: Vec<_> = (0..MEMBERS).map(|n| format!("m{n}={}", self.peer(n))).collect();
        let pem = |name: &str| self.dir.join(name).display().to_string();
        let cmd = Cmd::new("etcd").netns(&self.ns).args([
            format!("--name=m{member}"),
            "--logger=zap".into(),
            "--log-level=warn".into(),
            format!("--data-dir={}", self.data(member).display()),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster={}", all.join(",")),
            format!("--initial-cluster-token=overlayd-{}", self.age),
            "--heartbeat-interval=100".into(),
            "--election-timeout=1000".into(),
            format!("--cert-file={}", pem("node.pem")),
            format!("--key-file={}", pem("node.key")),
            format!("--trusted-ca-file={}", pem("ca.pem")),
            "--client-cert-auth=true".into(),
            format!("--peer-cert-file={}", pem("node.pem")),
            format!("--peer-key-file={}", pem("node.key")),
            format!("--peer-trusted-ca-file={}", pem("ca.pem")),
            "--peer-client-cert-auth=true".into(),
        ]);
        self.members[member] = Some(cmd.args(&self.args).spawn(&self.log(member))?);
        Ok(())
    }

    /// Ends a member as a power cut does.
    pub fn kill(&mut self, member: usize) {
        if let Some(mut process) = self.members[member].take() {
            process.kill();
        }
    }

    /// Ends all as a power cut does.
    pub fn kill_all(&mut self) {
        (0..MEMBERS).for_each(|member| self.kill(member));
    }

    /// Sends all members a signal.
    ///
    /// # Errors
    /// One of them does not run.
    pub fn signal_all(&self, signal: Signal) -> Result<()> {
        self.members.iter().flatten().try_for_each(|member| member.signal(signal))
    }

    /// Sends a member a signal.
    ///
    /// # Errors
    /// It does not run.
    pub fn signal(&self, member: usize, signal: Signal) -> Result<()> {
        self.members[member].as_ref().context("the member does not run")?.signal(signal)
    }

    /// The member that leads.
    ///
    /// # Errors
    /// None does, in time.
    pub fn leader(&self) -> Result<usize> {
        eventually_some("etcd has a leader", READY, || {
            let said = self.etcdctl(&["endpoint", "status", "-w", "json"])?.stdout;
            let said: Value = serde_json::from_str(&said)?;
            Ok(said.as_array().and_then(|members| {
                let leads = |member: &&Value| {
                    let status = &member["Status"];
                    status["leader"] == status["header"]["member_id"]
                };
                let endpoint = members.iter().find(leads)?["Endpoint"].as_str()?.to_owned();
                (0..MEMBERS).find(|member| self.client(*member) == endpoint)
            }))
        })
    }

    /// Makes it another cluster: without data, or with those of a snapshot.
    ///
    /// # Errors
    /// The snapshot cannot be restored.
    pub fn replace(&mut self, snapshot: Option<&Path>) -> Result<()> {
        self.kill_all();
        self.age += 1;
        let all: Vec<_> = (0..MEMBERS).map(|n| format!("m{n}={}", self.peer(n))).collect();
        for member in 0..MEMBERS {
            let data = self.data(member);
            fs::remove_dir_all(&data)?;
            let Some(snapshot) = snapshot else { continue };
            Cmd::new("etcdctl")
                .env("ETCDCTL_API", "3")
                .args(["snapshot", "restore", &snapshot.display().to_string()])
                .args([
                    format!("--data-dir={}", data.display()),
                    format!("--name=m{member}"),
                    format!("--initial-cluster={}", all.join(",")),
                    format!("--initial-cluster-token=overlayd-{}", self.age),
                    format!("--initial-advertise-peer-urls={}", self.peer(member)),
                ])
                .check()?;
        }
        self.start_all()
    }

    /// Saves what the first member has.
    ///
    /// # Errors
    /// It is out of reach.
    pub fn save(&self, file: &Path) -> Result<()> {
        self.cmd(&self.client(0)).args(["snapshot", "save", &file.display().to_string()]).check().map(drop)
    }

    /// What clients connect to, joined by commas.
    #[must_use]
    pub fn endpoints(&self) -> String {
        (0..MEMBERS).map(|member| self.client(member)).collect::<Vec<_>>().join(",")
    }

    /// What overlayd needs besides.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let pem = |flag: &str, name: &str| format!("--etcd-{flag}={}", self.dir.join(name).display());
        vec![pem("cafile", "ca.pem"), pem("certfile", "node.pem"), pem("keyfile", "node.key")]
    }

    /// Who `etcdctl` is from now on, as in `root:password`.
    pub fn log_in(&mut self, user: Option<&str>) {
        self.user = user.map(str::to_owned);
    }

    /// Runs etcdctl on all members.
    ///
    /// # Errors
    /// etcdctl failed; the error tells all it said.
    pub fn etcdctl(&self, args: &[&str]) -> Result<Output> {
        self.cmd(&self.endpoints()).args(args).check()
    }

    /// As [`Self::etcdctl`], on those that run: a frozen one would take the time of all.
    ///
    /// # Errors
    /// As [`Self::etcdctl`].
    pub fn etcdctl_at(&self, members: &[usize], args: &[&str]) -> Result<Output> {
        let endpoints: Vec<_> = members.iter().map(|member| self.client(*member)).collect();
        self.cmd(&endpoints.join(",")).args(args).check()
    }

    /// Runs `put` and `del` lines of etcdctl in one transaction.
    ///
    /// # Errors
    /// etcdctl failed.
    pub fn transact(&self, lines: &[String]) -> Result<()> {
        let script = format!("\n{}\n\n\n", lines.join("\n"));
        self.cmd(&self.client(0)).arg("txn").stdin(script).check().map(drop)
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

    /// Where a member logs.
    #[must_use]
    pub fn log(&self, member: usize) -> PathBuf {
        self.dir.join(format!("m{member}.log"))
    }

    /// The ports of clients.
    #[must_use]
    pub fn ports(&self) -> [u16; MEMBERS] {
        [0, 1, 2].map(|member| 2379 + 100 * member)
    }

    fn cmd(&self, endpoints: &str) -> Cmd {
        let pem = |flag: &str, name: &str| format!("--{flag}={}", self.dir.join(name).display());
        let cmd = Cmd::new("etcdctl").netns(&self.ns).env("ETCDCTL_API", "3").args([
            format!("--endpoints={endpoints}"),
            "--dial-timeout=2s".into(),
            "--command-timeout=5s".into(),
            pem("cacert", "ca.pem"),
            pem("cert", "node.pem"),
            pem("key", "node.key"),
        ]);
        match &self.user {
            Some(user) => cmd.arg(format!("--user={user}")),
            None => cmd,
        }
    }

    fn client(&self, member: usize) -> String {
        format!("https://{}:{}", self.ip, 2379 + 100 * member)
    }

    fn peer(&self, member: usize) -> String {
        format!("https://{}:{}", self.ip, 2380 + 100 * member)
    }

    fn data(&self, member: usize) -> PathBuf {
        self.dir.join(format!("m{member}"))
    }
}

/// One authority, and one certificate that everybody has: nobody is told apart here.
fn certificates(ip: Ipv4Addr, dir: &Path) -> Result<()> {
    let mut ca = CertificateParams::new(Vec::new())?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate()?;
    fs::write(dir.join("ca.pem"), ca.self_signed(&ca_key)?.pem())?;
    let issuer = Issuer::new(ca, ca_key);
    let mut node = CertificateParams::new(Vec::new())?;
    node.subject_alt_names = vec![SanType::IpAddress(ip.into())];
    let key = KeyPair::generate()?;
    let signed = node.signed_by(&key, &issuer)?;
    fs::write(dir.join("node.pem"), signed.pem())?;
    fs::write(dir.join("node.key"), key.serialize_pem())?;
    Ok(())
}
