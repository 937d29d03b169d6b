//! What a running lab consists of, written down for the commands that come later.

use std::{
    fmt, fs, io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use harness::{Topology, binaries, scope::Remains};
use serde::{Deserialize, Serialize};

/// The name of a lab that was given none.
pub(crate) const DEFAULT_NAME: &str = "lab";

const DIR: &str = "/run/overlayd-lab";

/// A running lab.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) name: String,
    pub(crate) etcd: Option<String>,
    pub(crate) hosts: Vec<HostState>,
}

/// One of its hosts.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct HostState {
    pub(crate) name: String,
    pub(crate) ip: Ipv4Addr,
    pub(crate) bridge_ip: Ipv4Addr,
    pub(crate) netns: PathBuf,
    pub(crate) pin_dir: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) containers: Vec<ContainerState>,
}

/// One of a host's containers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ContainerState {
    pub(crate) name: String,
    pub(crate) ip: Ipv4Addr,
    pub(crate) netns: PathBuf,
}

impl State {
    /// What this topology consists of.
    pub(crate) fn of(topology: &Topology) -> Self {
        let hosts = topology.hosts.iter().enumerate().map(|(index, host)| {
            let config = topology.overlayd_config(index);
            let containers = host.containers.iter().map(|c| ContainerState {
                name: format!("{}/{}", host.name, c.name),
                ip: c.ip,
                netns: c.ns.path().to_owned(),
            });
            HostState {
                name: host.name.clone(),
                ip: host.ip,
                bridge_ip: host.bridge.ip,
                netns: host.ns.path().to_owned(),
                pin_dir: config.pin_dir,
                log: config.log,
                containers: containers.collect(),
            }
        });
        Self {
            name: topology.scope.name().to_owned(),
            etcd: topology.etcd.as_ref().map(harness::etcd::Etcd::endpoint),
            hosts: hosts.collect(),
        }
    }

    /// Reads what a running lab consists of.
    pub(crate) fn load(name: &str) -> Result<Self> {
        let path = path(name);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound && Remains::of(name).is_empty() => {
                bail!("there is no lab `{name}`: `cargo xtask lab up{}` makes one", option(name))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                bail!("the lab `{name}` did not come up: `cargo xtask lab down{}` removes it", option(name))
            }
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
        };
        serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))
    }

    /// Writes it down.
    pub(crate) fn save(&self) -> Result<()> {
        let path = path(&self.name);
        fs::create_dir_all(DIR).with_context(|| format!("cannot create {DIR}"))?;
        fs::write(&path, serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// The namespace of `h1` or `h1/c1`.
    pub(crate) fn netns(&self, place: &str) -> Result<&Path> {
        let hosts = self.hosts.iter().map(|h| (h.name.as_str(), h.netns.as_path()));
        let containers = self.hosts.iter().flat_map(|h| &h.containers);
        let containers = containers.map(|c| (c.name.as_str(), c.netns.as_path()));
        let all: Vec<(&str, &Path)> = hosts.chain(containers).collect();
        match all.iter().find(|(name, _)| *name == place) {
            Some((_, netns)) => Ok(netns),
            None => {
                let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
                bail!("the lab `{}` has no `{place}`: it has {}", self.name, names.join(", "))
            }
        }
    }
}

/// How to use it.
impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let option = option(&self.name);
        writeln!(f, "The lab `{}` is up:", self.name)?;
        for host in &self.hosts {
            writeln!(f, "  {:<6} {}, docker0 {}", host.name, host.ip, host.bridge_ip)?;
            for container in &host.containers {
                writeln!(f, "  {:<6} {}", container.name, container.ip)?;
            }
        }
        let containers: Vec<&ContainerState> = self.hosts.iter().flat_map(|h| &h.containers).collect();
        writeln!(f, "Use it (as root):")?;
        if let (Some(first), Some(last)) = (containers.first(), containers.last()) {
            writeln!(f, "  cargo xtask lab exec{option} {} ping -c 3 {}", first.name, last.ip)?;
            writeln!(f, "  nsenter --net={} bash", first.netns.display())?;
        }
        let overlayctl = binaries::find("overlayctl").unwrap_or_else(|_| "overlayctl".to_owned());
        for host in &self.hosts {
            let pins = host.pin_dir.display();
            writeln!(f, "  cargo xtask lab exec{option} {} {overlayctl} --pin-dir {pins} routes", host.name)?;
        }
        if let (Some(etcd), Some(host)) = (&self.etcd, self.hosts.first()) {
            let etcdctl = format!("env ETCDCTL_API=3 etcdctl --endpoints {etcd} get --prefix /");
            writeln!(f, "  cargo xtask lab exec{option} {} {etcdctl}", host.name)?;
        }
        writeln!(f, "  cargo xtask lab status{option}")?;
        write!(f, "Remove it:\n  cargo xtask lab down{option}")
    }
}

/// Forgets a lab; tells whether there was anything to forget.
pub(crate) fn remove(name: &str) -> Result<bool> {
    let path = path(name);
    let removed = match fs::remove_file(&path) {
        Ok(()) => true,
        Err(e) if e.kind() == io::ErrorKind::NotFound => false,
        Err(e) => return Err(e).with_context(|| format!("cannot remove {}", path.display())),
    };
    // Succeeds when this was the last one.
    let _ = fs::remove_dir(DIR);
    Ok(removed)
}

/// Fails where the name is taken, by a running lab or by what a crash left.
pub(crate) fn ensure_free(name: &str) -> Result<()> {
    if path(name).exists() || !Remains::of(name).is_empty() {
        bail!("there is a lab `{name}` already: `cargo xtask lab down{}` removes it", option(name));
    }
    Ok(())
}

fn path(name: &str) -> PathBuf {
    Path::new(DIR).join(format!("{name}.json"))
}

/// ` --name NAME`, where it is needed.
fn option(name: &str) -> String {
    if name == DEFAULT_NAME { String::new() } else { format!(" --name {name}") }
}
