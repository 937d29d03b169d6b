//! Two hosts on one wire: what every system begins with.

use std::{
    net::{IpAddr, Ipv4Addr},
    thread,
};

use anyhow::{Context, Result, anyhow};
use harness::{
    Netns, Scope, Versions,
    docker::{Engine, EngineOptions},
    image::Image,
    wire::{self as underlay, WireKind},
};

use super::{Side, Wire, cpu, offloads};

/// Every uplink's name, and its MTU.
pub(super) const UPLINK: &str = "eth0";
const UPLINK_MTU: u32 = 1500;

/// One of the two hosts.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) name: &'static str,
    /// On the wire.
    pub(super) ip: Ipv4Addr,
    /// Of the containers on docker0.
    pub(super) subnet: String,
    /// For all that belongs to the host.
    pub(super) cpu: usize,
    engine: Option<Engine>,
    pub(super) ns: Netns,
}

/// The hosts, the wire between them, and the name that all of it bears.
#[derive(Debug)]
pub(super) struct Bed {
    pub(super) hosts: [Host; 2],
    pub(super) wire: Wire,
    pub(super) scope: Scope,
}

impl Bed {
    /// Two hosts that reach each other, and run nothing.
    pub(super) fn lay(scope: Scope, wire: Wire) -> Result<Self> {
        let hosts = [Host::new(&scope, 0)?, Host::new(&scope, 1)?];
        let pair = underlay::Wire::lay(&scope, WireKind::Veth, UPLINK_MTU, Versions::V4)?;
        let mut before: Vec<&Netns> = Vec::new();
        for host in &hosts {
            pair.plug(&host.ns, host.name, host.ip, &before)?;
            before.push(&host.ns);
        }
        if wire == Wire::Mtu {
            hosts.iter().try_for_each(|host| offloads::mtu_sized(&host.ns, UPLINK))?;
        }
        Ok(Self { hosts, wire, scope })
    }

    /// A Docker engine on each host, both at once; `args` are more flags for dockerd.
    pub(super) fn start_engines(&mut self, args: &[&str]) -> Result<()> {
        let (scope, image) = (&self.scope, Image::build(&self.scope.dir())?);
        thread::scope(|threads| {
            let starts =
                self.hosts.each_mut().map(|host| threads.spawn(|| host.start_engine(scope, &image, args)));
            let ended =
                starts.map(|start| start.join().map_err(|_| anyhow!("starting an engine panicked"))?);
            ended.into_iter().collect()
        })
    }

    /// A container on each host, on this network, or on docker0.
    pub(super) fn start_containers(&self, network: Option<&str>) -> Result<[Side; 2]> {
        let [one, two] = &self.hosts;
        Ok([one.start_container(network)?, two.start_container(network)?])
    }

    /// The hosts themselves.
    pub(super) fn host_sides(&self) -> [Side; 2] {
        self.hosts.each_ref().map(|host| Side {
            name: host.name.to_owned(),
            netns: host.ns.path().to_owned(),
            address: host.ip.into(),
            cpu: host.cpu,
        })
    }

    /// Each host, and the other one.
    pub(super) fn pairs(&self) -> [(&Host, &Host); 2] {
        let [one, two] = &self.hosts;
        [(one, two), (two, one)]
    }
}

impl Drop for Bed {
    /// An engine takes a second or two to end, so both at once.
    fn drop(&mut self) {
        thread::scope(|threads| {
            for host in &mut self.hosts {
                threads.spawn(|| host.engine = None);
            }
        });
    }
}

impl Host {
    fn new(scope: &Scope, index: usize) -> Result<Self> {
        let name = ["h1", "h2"][index];
        let ns = scope.netns(name)?;
        // Docker sets FORWARD to DROP only if it is the one to turn forwarding on: start as a fresh host does.
        ns.sysctl("ipv4/ip_forward", "0")?;
        // systemd's default on every distribution that uses it.
        ns.sysctl("ipv4/conf/default/rp_filter", "2")?;
        let ip = underlay::address_of(index);
        let subnet = format!("172.{}.0.0/16", ip.octets()[3]);
        Ok(Self { name, ip, subnet, cpu: index, engine: None, ns })
    }

    /// The containers' gateway.
    pub(super) fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::new(172, self.ip.octets()[3], 0, 1)
    }

    pub(super) fn engine(&self) -> Result<&Engine> {
        self.engine.as_ref().with_context(|| format!("no Docker engine runs on {}", self.name))
    }

    fn start_engine(&mut self, scope: &Scope, image: &Image, args: &[&str]) -> Result<()> {
        let options = EngineOptions {
            bip: format!("{}/16", self.gateway()),
            // Docker's other bridges would take the other host's container subnet.
            address_pool: Some(format!("base=10.{}.0.0/16,size=24", self.ip.octets()[3])),
            extra_args: args.iter().map(|&arg| arg.to_owned()).collect(),
            ..EngineOptions::default()
        };
        let netns = self.ns.path().to_string_lossy();
        let engine = Engine::start(&netns, &scope.dir(), options);
        let engine = self.engine.insert(engine.with_context(|| format!("a Docker engine on {}", self.name))?);
        for process in engine.state().place.processes()? {
            cpu::pin(process.pid, self.cpu)?;
        }
        engine.import(image)
    }

    fn start_container(&self, network: Option<&str>) -> Result<Side> {
        let engine = self.engine()?;
        let args = network.map(|network| ["--network", network]);
        let name = format!("c{}", self.cpu + 1);
        let container = engine.run(&name, Image::NAME, args.as_ref().map_or(&[], |args| args), &[])?;
        let address = format!(
            "{{{{(index .NetworkSettings.Networks \"{}\").IPAddress}}}}",
            network.unwrap_or("bridge")
        );
        let address = engine.docker(&["container", "inspect", "-f", &address, &name])?;
        let ip: IpAddr = address.parse().with_context(|| format!("{name} has no address: '{address}'"))?;
        Ok(Side {
            name: format!("{name} on {}", self.name),
            netns: format!("/proc/{}/ns/net", container.pid()?).into(),
            address: ip,
            cpu: self.cpu,
        })
    }

    /// Runs `iptables`, its arguments separated by blanks. All namespaces share its lock.
    pub(super) fn iptables(&self, args: &str) -> Result<()> {
        self.ns.cmd("iptables").arg("-w").args(args.split_whitespace()).check().map(drop)
    }
}
