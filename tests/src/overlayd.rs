//! The daemon on a host, as its user runs it.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{
    Netns, binaries, bpffs,
    process::{Background, Cmd, Output, fresh_log, tail},
    wait::eventually_some,
};

/// How long it may take to attach and to read its store.
const READY: Duration = Duration::from_secs(10);

/// How long it may take to end.
const END: Duration = Duration::from_secs(10);

/// Where it gets its routes.
#[derive(Clone, Debug)]
pub enum Store {
    /// An etcd.
    Etcd {
        /// What it connects to.
        endpoint: String,
        /// The prefix of all keys.
        prefix: String,
    },
    /// A file of peers.
    Peers(PathBuf),
}

/// How it is started.
#[derive(Clone, Debug)]
pub struct Config {
    /// `--iface`, each.
    pub ifaces: Vec<String>,
    /// `--bridge`, each.
    pub bridges: Vec<String>,
    /// `--node-name`.
    pub node_name: String,
    /// `--public-ip`, each; without it the uplinks' own addresses are announced, whatever they are.
    pub public_ips: Vec<IpAddr>,
    /// `--vni`.
    pub vni: u32,
    /// `--port`.
    pub port: u16,
    /// `--etcd-endpoints` and `--etcd-prefix`, or `--peers`.
    pub store: Store,
    /// `--pin-dir`.
    pub pin_dir: PathBuf,
    /// `--state-dir`.
    pub state_dir: PathBuf,
    /// Where its log goes.
    pub log: PathBuf,
    /// More arguments, at the end.
    pub args: Vec<String>,
    /// Variables of its environment.
    pub env: Vec<(String, String)>,
    /// The directory of another build's binaries.
    pub build: Option<PathBuf>,
}

impl Config {
    /// `--socket`.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.state_dir.join("overlayd.sock")
    }

    /// One of the binaries.
    fn binary(&self, name: &str) -> Result<String> {
        self.build.as_deref().map_or_else(|| binaries::find(name), |build| binaries::find_in(build, name))
    }

    /// All arguments.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let mut args = vec![
            format!("--node-name={}", self.node_name),
            format!("--vni={}", self.vni),
            format!("--port={}", self.port),
            format!("--pin-dir={}", self.pin_dir.display()),
            format!("--state-dir={}", self.state_dir.display()),
            format!("--socket={}", self.socket().display()),
            "--log-format=text".to_owned(),
        ];
        args.extend(self.ifaces.iter().map(|iface| format!("--iface={iface}")));
        args.extend(self.public_ips.iter().map(|ip| format!("--public-ip={ip}")));
        args.extend(self.bridges.iter().map(|bridge| format!("--bridge={bridge}")));
        match &self.store {
            Store::Etcd { endpoint, prefix } => {
                args.extend([format!("--etcd-endpoints={endpoint}"), format!("--etcd-prefix={prefix}")]);
            }
            Store::Peers(file) => args.push(format!("--peers={}", file.display())),
        }
        args.extend(self.args.iter().cloned());
        args
    }
}

/// The daemon; dropping it kills it, detaches, and removes its pin directory.
#[derive(Debug)]
pub struct Overlayd {
    /// How it is started; a change takes effect at the next start.
    pub config: Config,
    ns: PathBuf,
    process: Option<Background>,
    attached: bool,
}

impl Overlayd {
    /// Starts it in the host's namespace and waits until it is ready.
    ///
    /// # Errors
    /// The binaries are not built, or it is not ready in time; the error holds the end of its log.
    pub fn start(ns: &Netns, config: Config) -> Result<Self> {
        let mut overlayd = Self::idle(ns, config)?;
        overlayd.start_again()?;
        Ok(overlayd)
    }

    /// Prepares everything for it, and does not start it yet.
    ///
    /// # Errors
    /// Its directories or its log cannot be made.
    pub fn idle(ns: &Netns, config: Config) -> Result<Self> {
        bpffs::ensure()?;
        for dir in [config.pin_dir.parent(), Some(config.state_dir.as_path())].into_iter().flatten() {
            fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        }
        fresh_log(&config.log)?;
        Ok(Self { config, ns: ns.path().to_owned(), process: None, attached: false })
    }

    /// Starts it again after it ended, and waits until it is ready.
    ///
    /// # Errors
    /// It is running, or not ready in time; the error holds the end of its log.
    pub fn start_again(&mut self) -> Result<()> {
        let log = self.config.log.clone();
        let before = fs::metadata(&log).map_or(0, |m| m.len());
        let mut process = self.spawn()?;
        let ready = eventually_some("overlayd is ready", READY, || {
            // The state first: what it said before it ended is then all there.
            let alive = process.alive();
            Ok(if says_ready(&log, before)? { Some(true) } else { (!alive).then_some(false) })
        });
        let node = &self.config.node_name;
        match ready {
            Ok(true) => self.process = Some(process),
            Ok(false) => bail!("overlayd on {node} ended before it was ready:\n{}", process.tail(30)),
            Err(e) => bail!("on {node}: {e:#}\n{}", process.tail(30)),
        }
        Ok(())
    }

    /// Starts it again after it ended, and waits for nothing.
    ///
    /// # Errors
    /// It is running, or could not be started.
    pub fn launch(&mut self) -> Result<()> {
        self.process = Some(self.spawn()?);
        Ok(())
    }

    fn spawn(&mut self) -> Result<Background> {
        if self.running() {
            bail!("overlayd is running on {}", self.config.node_name);
        }
        self.attached = true;
        let cmd = Cmd::new(self.config.binary("overlayd")?).args(self.config.arguments());
        let cmd = self.config.env.iter().fold(cmd, |cmd, (name, value)| cmd.env(name, value));
        cmd.netns(&self.ns).env("NO_COLOR", "1").spawn(&self.config.log)
    }

    /// Its process id while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Background::pid)
    }

    /// Whether it runs.
    pub fn running(&mut self) -> bool {
        self.process.as_mut().is_some_and(Background::alive)
    }

    /// Ends it with SIGTERM.
    ///
    /// # Errors
    /// It is not running, or did not end in time.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.process.take().context("overlayd is not running")?.terminate(END)
    }

    /// Kills it, as the kernel would for want of memory.
    pub fn kill9(&mut self) -> Option<ExitStatus> {
        self.process.take().map(|mut process| process.kill())
    }

    /// Ends it with SIGTERM and starts it again.
    ///
    /// # Errors
    /// Either failed.
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.start_again()
    }

    /// Runs `overlayd detach`, whatever its exit code.
    ///
    /// # Errors
    /// It could not be run, or did not end in time.
    pub fn detach(&mut self) -> Result<Output> {
        // Nobody sends any more where a test ends.
        self.detach_draining(0)
    }

    /// Runs `overlayd detach`, which takes packets for so many seconds more.
    ///
    /// # Errors
    /// As [`Self::detach`].
    pub fn detach_draining(&mut self, seconds: u64) -> Result<Output> {
        let Config { pin_dir, state_dir, .. } = &self.config;
        let output = Cmd::new(self.config.binary("overlayd")?)
            .netns(&self.ns)
            .args(["detach", "--pin-dir", &pin_dir.display().to_string()])
            .args(["--state-dir", &state_dir.display().to_string()])
            .args(["--socket", &self.config.socket().display().to_string()])
            .arg(format!("--drain={seconds}"))
            .run()?;
        self.attached &= output.code != Some(0);
        Ok(output)
    }

    /// Runs overlayctl and reads its JSON: `ctl(&["routes", "-o", "json"])`.
    ///
    /// # Errors
    /// It failed (degraded, exit code 3, is no failure), or what it printed is no JSON.
    pub fn ctl(&self, args: &[&str]) -> Result<Value> {
        let output = self.ctl_output(args)?;
        if !matches!(output.code, Some(0 | 3)) {
            bail!("overlayctl {} ended with {:?}{}", args.join(" "), output.code, output.text());
        }
        serde_json::from_str(&output.stdout)
            .with_context(|| format!("overlayctl {} printed no JSON{}", args.join(" "), output.text()))
    }

    /// Runs overlayctl as it is, whatever its exit code.
    ///
    /// # Errors
    /// It could not be run.
    pub fn ctl_output(&self, args: &[&str]) -> Result<Output> {
        overlayctl_of(&self.config.binary("overlayctl")?, &self.ns, &self.config.pin_dir, args)
    }

    /// The end of its log.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        tail(&self.config.log, lines)
    }

    /// The prefixes it has routes for, in the order overlayctl gives them.
    ///
    /// # Errors
    /// overlayctl failed.
    pub fn routes(&self) -> Result<Vec<String>> {
        let routes = self.ctl(&["routes", "-o", "json"])?;
        let prefix = |r: &Value| r["prefix"].as_str().map(str::to_owned).context("a route without prefix");
        routes.as_array().context("routes is no array")?.iter().map(prefix).collect()
    }
}

impl Drop for Overlayd {
    fn drop(&mut self) {
        self.kill9();
        if self.attached && self.config.pin_dir.exists() {
            // 3: etcd was gone, 4: there was nothing to detach.
            match self.detach() {
                Ok(o) if matches!(o.code, Some(0 | 3 | 4)) => {}
                Ok(o) => eprintln!("detach on {}: {:?}{}", self.config.node_name, o.code, o.text()),
                Err(e) => eprintln!("detach on {}: {e:#}", self.config.node_name),
            }
        }
        if let Err(e) = bpffs::remove_tree(&self.config.pin_dir) {
            eprintln!("{e:#}");
        }
    }
}

/// Runs overlayctl on a pin directory, whatever its exit code.
///
/// # Errors
/// It is not built, or did not end in time.
pub fn overlayctl(ns: &Path, pin_dir: &Path, args: &[&str]) -> Result<Output> {
    overlayctl_of(&binaries::find("overlayctl")?, ns, pin_dir, args)
}

fn overlayctl_of(binary: &str, ns: &Path, pin_dir: &Path, args: &[&str]) -> Result<Output> {
    Cmd::new(binary)
        .netns(ns)
        .env("NO_COLOR", "1")
        .arg(format!("--pin-dir={}", pin_dir.display()))
        .args(args)
        .run()
}

/// Whether the log has the word after its first `skip` bytes; `already` is another word.
fn says_ready(log: &Path, skip: u64) -> Result<bool> {
    let bytes = fs::read(log)?;
    let text = String::from_utf8_lossy(&bytes[usize::try_from(skip)?.min(bytes.len())..]).into_owned();
    Ok(text.split(|c: char| !c.is_alphanumeric()).any(|word| word == "ready"))
}
