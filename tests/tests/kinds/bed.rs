//! Hosts whose containers speak both versions of IP.

use std::{net::IpAddr, time::Duration};

use harness::{
    Topology, Versions, eventually,
    host::Host,
    topology::{Builder, StoreKind},
    traffic::{Endpoint, Probe, ping},
};

/// How long anything may take on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// Datagrams a second, each way.
const RATE: u32 = 500;

pub(crate) fn builder(underlay: Versions, encap: &str) -> Builder {
    let builder = Topology::builder().store(StoreKind::Etcd).versions(underlay, true);
    builder.overlayd_args(&[&format!("--encap={encap}")])
}

pub(crate) fn hosts(underlay: Versions, encap: &str) -> Topology {
    let topology = builder(underlay, encap).up().unwrap();
    settle(&topology, 1, 2);
    topology
}

/// The addresses of a host's first container, IPv4 and IPv6.
pub(crate) fn inside(host: &Host) -> [IpAddr; 2] {
    [host.c(1).ip.into(), host.c(1).ip_v6.unwrap().into()]
}

/// The first container of a host, in IPv4 (0) or IPv6 (1).
pub(crate) fn end(host: &Host, version: usize) -> Endpoint<'_, IpAddr> {
    Endpoint { ns: &host.c(1).ns, ip: inside(host)[version] }
}

/// Two hosts' containers talk in both versions, and are known.
pub(crate) fn settle(topology: &Topology, a: usize, b: usize) {
    let (a, b) = (topology.h(a), topology.h(b));
    for to in inside(b) {
        let answers = || ping(&a.c(1).ns, to, 1).is_ok_and(|ping| ping.clean());
        eventually(&format!("{to} answers {}", a.name), SOON, answers).unwrap();
    }
    for host in [a, b] {
        eventually("it is known", SOON, || host.knows(1) && host.knows_v6(1)).unwrap();
    }
}

/// Datagrams both ways between two hosts' containers, in both versions.
pub(crate) fn probes(topology: &Topology, a: usize, b: usize) -> [Probe; 2] {
    let (a, b) = (topology.h(a), topology.h(b));
    [0, 1].map(|version| {
        Probe::start(end(a, version), end(b, version), RATE, Duration::from_secs(120)).unwrap()
    })
}

/// How packets travel from a host to another's subnets, IPv4 and IPv6, and the MTU there.
pub(crate) fn ways(from: &Host, to: &Host) -> [(String, u64); 2] {
    let peers = from.overlayd().ctl(&["peers", "-o", "json"]).unwrap();
    [Some(to.bridge.subnet()), to.bridge.subnet_v6()].map(|subnet| {
        let subnet = subnet.unwrap();
        let of = |peer: &&serde_json::Value| {
            peer["subnets"].as_array().unwrap().iter().any(|of| *of == subnet.as_str())
        };
        let Some(peer) = peers.as_array().unwrap().iter().find(of) else { return (String::new(), 0) };
        (peer["encap"].as_str().unwrap().to_owned(), peer["mtu"].as_u64().unwrap())
    })
}

/// Starts a host's daemon again, with another `--encap`.
pub(crate) fn restart_with(topology: &mut Topology, number: usize, encap: &str) {
    let overlayd = topology.h_mut(number).overlayd_mut();
    overlayd.stop().unwrap();
    overlayd.config.args = vec![format!("--encap={encap}")];
    overlayd.start_again().unwrap();
}

/// No host has dropped anything.
pub(crate) fn no_drops(topology: &Topology) {
    for host in &topology.hosts {
        let drops = host.overlayd().drops().unwrap();
        assert!(drops.is_empty(), "on {}: {drops:?}", host.name);
    }
}
