//! The fast path is taken by both versions over both: neither bridge nor netfilter sees packets between containers,
//! and the peers' counters have every one.

use harness::{
    Netns, Topology, Versions,
    container::docker_mac,
    counters::{self, Netfilter},
    host::{BRIDGE, Host},
    tables::Traffic,
    traffic::transfer,
};

use crate::{
    bed::{self, Probes, VERSIONS, Version, end, no_drops},
    expected::cells,
};

/// Packets that a bridge may see meanwhile: multicast of who is new, such as MLD reports.
const CHATTER: u64 = 30;

/// Bytes that TCP carries each way: many more aggregates than that.
const BYTES: usize = 16 << 20;

#[test]
fn over_ipv4() {
    bulk_stays_off_the_bridge(Versions::V4);
}

#[test]
fn over_ipv6() {
    bulk_stays_off_the_bridge(Versions::V6);
}

#[test]
fn over_both() {
    bulk_stays_off_the_bridge(Versions::Both);
}

fn bulk_stays_off_the_bridge(underlay: Versions) {
    let topology = bed::builder(underlay).up().unwrap();
    bed::settle(&topology);
    for host in [topology.h(1), topology.h(2)] {
        pin_neighbours(host);
    }
    let hosts = [(topology.h(1), topology.h(2)), (topology.h(2), topology.h(1))];
    let netfilter = hosts.map(|(host, _)| {
        [Netfilter::count(&host.ns, "-p udp").unwrap(), Netfilter::count_v6(&host.ns, "-p udp").unwrap()]
    });
    let (before, seen) = (traffic(&topology, underlay), hosts.map(|(host, _)| on_the_bridge(host)));

    let probes = Probes::start(&topology);
    std::thread::sleep(std::time::Duration::from_secs(2));
    let sent = probes.clean();

    let after = traffic(&topology, underlay);
    let moved =
        [0, 1].map(|n| Traffic { to: after[n].to - before[n].to, from: after[n].from - before[n].from });
    let (forth, back) = (sent[0].0 + sent[1].0, sent[0].1 + sent[1].1);
    assert_eq!(moved, [Traffic { to: forth, from: back }, Traffic { to: back, from: forth }]);
    for netfilter in netfilter.iter().flatten() {
        assert_eq!(netfilter.seen().unwrap(), [], "netfilter saw packets of the flows");
    }
    for cell in cells(underlay) {
        transfer(end(hosts[0].0, 1, cell.inner), end(hosts[0].1, 1, cell.inner), BYTES).unwrap();
    }
    for ((host, _), before) in hosts.into_iter().zip(seen) {
        let passed = on_the_bridge(host) - before;
        assert!(passed < CHATTER, "{passed} packets on {}'s bridge or out of its port", host.name);
    }
    no_drops(&topology);
}

/// ARP and neighbour discovery of what is known go over the bridge, and are no packets of the flow.
fn pin_neighbours(host: &Host) {
    let pin = |ns: &Netns, device: &str, ip: std::net::IpAddr, mac: &str| {
        ns.ip(&format!("neigh replace {ip} lladdr {mac} dev {device} nud permanent")).unwrap();
    };
    let (container, gateway) = (docker_mac(host.c(1).ip), docker_mac(host.bridge.ip));
    for version in VERSIONS {
        pin(&host.ns, BRIDGE, version.ip(host.c(1)), &container);
        pin(&host.c(1).ns, "eth0", version.gateway(host), &gateway);
    }
}

/// What the bridge has received and sent, and what went out of the container's port: delivery is into the namespace
/// behind it.
fn on_the_bridge(host: &Host) -> u64 {
    let bridge = counters::packets(&host.ns, BRIDGE).unwrap();
    bridge.rx + bridge.tx + counters::packets(&host.ns, &host.c(1).port).unwrap().tx
}

/// What each of two hosts has exchanged with the other. A peer with two addresses is one peer.
fn traffic(topology: &Topology, underlay: Versions) -> [Traffic; 2] {
    [(1, 2), (2, 1)].map(|(host, peer)| {
        let (host, peer) = (topology.h(host), topology.h(peer));
        let by = |version: Version| host.overlayd().traffic(version.underlay(peer)).unwrap();
        let first = cells(underlay).next().unwrap().outer;
        let same = cells(underlay).all(|cell| by(cell.outer) == by(first));
        assert!(same, "a peer's addresses have counters of their own");
        by(first)
    })
}
