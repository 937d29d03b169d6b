//! A Docker engine as the engine of a topology's host.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use super::{Engine, EngineOptions};
use crate::container::{self, Bridge, Container, Spec};
use crate::host::BRIDGE;
use crate::image::Image;
use crate::{Netns, Scope};

/// Makes docker0 and runs containers on it with a Docker engine of the host's own, which is started with the host.
#[derive(Debug)]
pub struct OnHost {
    scratch: PathBuf,
    options: EngineOptions,
    engine: Option<Engine>,
}

impl OnHost {
    /// For the host of this number, counted from 0; its files lie with those of the topology.
    #[must_use]
    pub fn new(index: usize, scope: &Scope) -> Self {
        // Networks other than the default bridge get their subnets here: no two hosts the same ones.
        let pool = format!("base=10.{}.0.0/16,size=24", crate::wire::step(index));
        let options = EngineOptions { address_pool: Some(pool), ..EngineOptions::default() };
        Self { scratch: scope.dir(), options, engine: None }
    }

    /// More flags for dockerd.
    #[must_use]
    pub fn args(mut self, args: &[&str]) -> Self {
        self.options.extra_args.extend(args.iter().map(|&arg| arg.to_owned()));
        self
    }

    /// The engine outlives this process where the topology is kept.
    #[must_use]
    pub fn persistent(mut self) -> Self {
        self.options.persistent = true;
        self
    }

    fn engine(&self) -> Result<&Engine> {
        self.engine.as_ref().context("the Docker engine was not started")
    }
}

impl container::Engine for OnHost {
    fn start(&mut self, host: &Netns, bridge: &Bridge) -> Result<()> {
        ensure!(bridge.name == BRIDGE, "a Docker engine makes {BRIDGE}, not {}", bridge.name);
        let bip = format!("{}/{}", bridge.ip, bridge.prefix_len);
        let netns = host.path().to_string_lossy();
        let mut options = EngineOptions { bip, ..self.options.clone() };
        if let Some(subnet) = bridge.subnet_v6() {
            options.extra_args.extend(["--ipv6".to_owned(), format!("--fixed-cidr-v6={subnet}")]);
        }
        let engine = Engine::start(&netns, &self.scratch, options)?;
        engine.import(&Image::build(&self.scratch)?)?;
        self.engine = Some(engine);
        Ok(())
    }

    /// Docker gives out the addresses of its default bridge itself: the lowest free one.
    fn run(&mut self, host: &Netns, _bridge: &Bridge, spec: &Spec) -> Result<Container> {
        let container = self.engine()?.run(&spec.name, Image::NAME, &[], &[])?;
        let ready = settle(&container, host, spec);
        if ready.is_err() {
            // The reason why it is of no use is what counts.
            let _ = container.rm();
        }
        ready
    }

    fn remove(&mut self, _host: &Netns, container: Container) -> Result<()> {
        self.engine()?.client().container(&container.name).rm()
    }

    fn docker(&self) -> Option<&Engine> {
        self.engine.as_ref()
    }

    fn docker_mut(&mut self) -> Option<&mut Engine> {
        self.engine.as_mut()
    }
}

/// What the topology wants to know of a container that runs.
fn settle(container: &super::Container, host: &Netns, spec: &Spec) -> Result<Container> {
    let ns = Netns::borrow(format!("/proc/{}/ns/net", container.pid()?));
    let ip: Ipv4Addr = container.ip()?;
    let port = container.host_veth()?.name;
    // All containers of an engine have one MTU, which is docker0's.
    if spec.mtu != DOCKER_MTU {
        ns.ip(&format!("link set eth0 mtu {}", spec.mtu))?;
        host.ip(&format!("link set {port} mtu {}", spec.mtu))?;
    }
    let ip_v6 = if spec.ip_v6.is_some() { Some(global_v6(&ns)?) } else { None };
    Ok(Container { name: spec.name.clone(), ns, ip, ip_v6, port })
}

/// The IPv6 address that Docker gave a container, made from its MAC address or not.
fn global_v6(ns: &Netns) -> Result<Ipv6Addr> {
    let said = ns.ip("-6 -brief addr show dev eth0 scope global")?.stdout;
    let address = said.split_whitespace().find_map(|word| word.split_once('/')?.0.parse().ok());
    address.with_context(|| format!("the container has no IPv6 address: {said}"))
}

/// What Docker gives its bridges and containers unless told otherwise.
const DOCKER_MTU: u32 = 1500;
