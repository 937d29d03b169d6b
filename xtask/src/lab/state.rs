//! What a running lab consists of, written down for the commands that come later.

use std::{
    fmt, fs, io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use harness::{
    Topology, binaries,
    docker::{self, EngineState},
    scope::Remains,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

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
    /// The record of its Docker engine, where it has one.
    engine: Option<Value>,
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
                engine: host.docker_engine().map(|engine| engine.state().to_json()),
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

    /// `h1` or `h1/c1`.
    pub(crate) fn find(&self, place: &str) -> Result<Found<'_>> {
        for host in &self.hosts {
            if host.name == place {
                return Ok(Found { host, container: None });
            }
            if let Some(container) = host.containers.iter().find(|container| container.name == place) {
                return Ok(Found { host, container: Some(container) });
            }
        }
        let containers = self.hosts.iter().flat_map(|host| &host.containers).map(|c| c.name.as_str());
        let names: Vec<&str> = self.hosts.iter().map(|host| host.name.as_str()).chain(containers).collect();
        bail!("the lab `{}` has no `{place}`: it has {}", self.name, names.join(", "))
    }
}

/// A host of the lab, or one of its containers.
pub(crate) struct Found<'a> {
    pub(crate) host: &'a HostState,
    container: Option<&'a ContainerState>,
}

impl Found<'_> {
    /// Its network namespace. A Docker container that was restarted has another one: its engine knows.
    pub(crate) fn netns(&self) -> Result<PathBuf> {
        let Some(container) = self.container else { return Ok(self.host.netns.clone()) };
        let Some(docker) = self.host.docker()? else { return Ok(container.netns.clone()) };
        let name = container.name.rsplit('/').next().unwrap_or(&container.name);
        Ok(format!("/proc/{}/ns/net", docker.container(name).pid()?).into())
    }
}

impl HostState {
    /// Its Docker engine, where it has one.
    pub(crate) fn docker(&self) -> Result<Option<docker::Client>> {
        self.engine.as_ref().map(|record| Ok(EngineState::from_json(record)?.client())).transpose()
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
        for host in self.hosts.iter().filter(|host| host.engine.is_some()) {
            writeln!(f, "  cargo xtask lab exec{option} {} docker ps", host.name)?;
        }
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
