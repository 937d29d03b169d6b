//! A host: a namespace with an uplink, docker0, containers and overlayd.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result};

use crate::{
    Netns, Scope,
    container::{Bridge, Container, Engine, Spec},
    docker,
    overlayd::Overlayd,
    versions::Versions,
    wire::{self, Wire},
};

/// The first uplink's name on every host.
pub const UPLINK: &str = "eth0";

/// The bridge's name on every host.
pub const BRIDGE: &str = "docker0";

/// A host. Its daemon goes first, then its containers, then its namespace.
#[derive(Debug)]
pub struct Host {
    /// `h1`, `h2` …
    pub name: String,
    /// The daemon, once it was started.
    pub overlayd: Option<Overlayd>,
    /// Its containers; add and remove them with the methods below.
    pub containers: Vec<Container>,
    /// Its docker0.
    pub bridge: Bridge,
    /// Its IPv4 address on the wire, where it speaks that.
    pub ip: Ipv4Addr,
    /// Its IPv6 address on the wire, where it speaks that.
    pub ip_v6: Ipv6Addr,
    /// What it speaks on the wire.
    pub underlay: Versions,
    engine: Box<dyn Engine>,
    netns_prefix: String,
    /// Its network namespace.
    pub ns: Netns,
}

/// What a host is to be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plan {
    /// What it speaks on the wire.
    pub underlay: Versions,
    /// Whether docker0 has an IPv6 subnet besides.
    pub bridge_v6: bool,
}

impl Host {
    /// Host number `index`, plugged into the wire, docker0 up, without containers. `before` are the hosts
    /// made so far.
    ///
    /// # Errors
    /// No root, or the engine did not start.
    pub fn boot(
        scope: &Scope,
        wire: &Wire,
        index: usize,
        plan: Plan,
        before: &[Self],
        mut engine: Box<dyn Engine>,
    ) -> Result<Self> {
        let name = format!("h{}", index + 1);
        let ns = scope.netns(&name)?;
        // Docker sets FORWARD to DROP only if it is the one to turn forwarding on: start as a fresh host does.
        ns.sysctl("ipv4/ip_forward", "0")?;
        // systemd's default on every distribution that uses it.
        ns.sysctl("ipv4/conf/default/rp_filter", "2")?;
        let ip = wire::address_of(index);
        let others: Vec<&Netns> = before.iter().map(|h| &h.ns).collect();
        wire.plug_speaking(&ns, &name, ip, &others, plan.underlay)?;
        let bridge = Bridge {
            name: BRIDGE.to_owned(),
            ip: Ipv4Addr::new(172, wire::step(index), 0, 1),
            prefix_len: 16,
            ip_v6: plan.bridge_v6.then(|| wire::bridge_v6_of(index)),
        };
        engine.start(&ns, &bridge).with_context(|| format!("{BRIDGE} on {name}"))?;
        let netns_prefix = scope.netns_name(&name);
        Ok(Self {
            name,
            overlayd: None,
            containers: Vec::new(),
            bridge,
            ip,
            ip_v6: wire::address_v6_of(ip),
            underlay: plan.underlay,
            engine,
            netns_prefix,
            ns,
        })
    }

    /// Starts container number `number`, counted from 1: `c1` has the first address after the gateway's.
    ///
    /// # Errors
    /// It is running already, or the engine failed.
    pub fn start_container(&mut self, number: u32, mtu: u32) -> Result<&Container> {
        let name = format!("c{number}");
        let spec = Spec {
            netns_name: format!("{}.{name}", self.netns_prefix),
            ip: self.bridge.container_ip(number - 1),
            ip_v6: self.bridge.container_ip_v6(number - 1),
            name,
            mtu,
        };
        let container = self
            .engine
            .run(&self.ns, &self.bridge, &spec)
            .with_context(|| format!("container {} on {}", spec.name, self.name))?;
        self.containers.push(container);
        self.containers.last().context("a container was just pushed")
    }

    /// Its addresses on the wire.
    #[must_use]
    pub fn addresses(&self) -> Vec<IpAddr> {
        let v4 = self.underlay.v4().then_some(IpAddr::V4(self.ip));
        v4.into_iter().chain(self.underlay.v6().then_some(IpAddr::V6(self.ip_v6))).collect()
    }

    /// Stops a container and removes it.
    ///
    /// # Errors
    /// There is none of this name, or the engine failed.
    pub fn remove_container(&mut self, name: &str) -> Result<()> {
        let index = self.containers.iter().position(|c| c.name == name);
        let index = index.with_context(|| format!("{} has no container {name}", self.name))?;
        let container = self.containers.remove(index);
        self.engine.remove(&self.ns, container)
    }

    /// Removes container number `number` and starts it again: same name and address, new interfaces.
    ///
    /// # Errors
    /// There is none of this number, or the engine failed.
    pub fn restart_container(&mut self, number: u32, mtu: u32) -> Result<&Container> {
        self.remove_container(&format!("c{number}"))?;
        self.start_container(number, mtu)
    }

    /// Container number `number`.
    ///
    /// # Panics
    /// There is none.
    #[must_use]
    pub fn c(&self, number: u32) -> &Container {
        let name = format!("c{number}");
        self.containers
            .iter()
            .find(|c| c.name == name)
            .unwrap_or_else(|| panic!("{} has no container {name}", self.name))
    }

    /// Its Docker engine.
    ///
    /// # Panics
    /// Something else runs its containers.
    #[must_use]
    pub fn docker(&self) -> &docker::Engine {
        self.docker_engine().unwrap_or_else(|| panic!("no Docker engine runs on {}", self.name))
    }

    /// Its Docker engine, to restart it.
    ///
    /// # Panics
    /// Something else runs its containers.
    pub fn docker_mut(&mut self) -> &mut docker::Engine {
        let name = &self.name;
        self.engine.docker_mut().unwrap_or_else(|| panic!("no Docker engine runs on {name}"))
    }

    /// Its Docker engine, where it has one.
    #[must_use]
    pub fn docker_engine(&self) -> Option<&docker::Engine> {
        self.engine.docker()
    }

    /// The daemon.
    ///
    /// # Panics
    /// It was never started.
    #[must_use]
    pub fn overlayd(&self) -> &Overlayd {
        self.overlayd.as_ref().unwrap_or_else(|| panic!("overlayd was never started on {}", self.name))
    }

    /// The daemon, to stop or restart it.
    ///
    /// # Panics
    /// It was never started.
    pub fn overlayd_mut(&mut self) -> &mut Overlayd {
        let name = &self.name;
        self.overlayd.as_mut().unwrap_or_else(|| panic!("overlayd was never started on {name}"))
    }
}
