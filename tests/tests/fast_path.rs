//! The fast path: packets between containers touch neither the bridge nor netfilter, and every one is counted.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails, in its helpers too")]

use std::time::Duration;

use harness::{
    Topology,
    counters::{self, Netfilter, Packets},
    eventually,
    host::{BRIDGE, Host},
    tables::Traffic,
    traffic::{Endpoint, Probe, ping, ping_with},
    two_hosts,
};

const SOON: Duration = Duration::from_secs(5);

/// Packets each way, at a rate that two busy CPUs can keep.
const PACKETS: u64 = 10_000;
const RATE: u32 = 4_000;

/// Lets both ends learn all there is to learn, and has everything else keep silent: ARP and IPv6's own
/// chatter go over the bridge, and are no packets of the flow.
fn warm_up(topology: &Topology) {
    let (h1, h2) = (topology.h(1), topology.h(2));
    for host in [h1, h2] {
        host.c(1).ns.sysctl("ipv6/conf/all/disable_ipv6", "1").unwrap();
        host.ns.sysctl("ipv6/conf/all/disable_ipv6", "1").unwrap();
    }
    assert!(ping(&h1.c(1).ns, h2.c(1).ip, 2).unwrap().clean());
    for host in [h1, h2] {
        eventually("the endpoint is known", SOON, || host.knows(1)).unwrap();
        pin_neighbour(&host.ns, BRIDGE, host.c(1).ip, &harness::container::docker_mac(host.c(1).ip));
        pin_neighbour(&host.c(1).ns, "eth0", host.bridge.ip, &harness::container::docker_mac(host.bridge.ip));
    }
}

fn pin_neighbour(ns: &harness::Netns, device: &str, ip: std::net::Ipv4Addr, mac: &str) {
    ns.ip(&format!("neigh replace {ip} lladdr {mac} dev {device} nud permanent")).unwrap();
}

/// The bridge's own counters, and what went out of the container's port: delivery is into the namespace
/// behind it.
fn bridge(host: &Host) -> (Packets, u64) {
    let port = counters::packets(&host.ns, &host.c(1).port).unwrap();
    (counters::packets(&host.ns, BRIDGE).unwrap(), port.tx)
}

#[test]
fn a_flow_touches_neither_bridge_nor_netfilter_and_is_counted_to_the_packet() {
    let topology = two_hosts().unwrap();
    warm_up(&topology);
    let hosts = [(topology.h(1), topology.h(2)), (topology.h(2), topology.h(1))];
    let traffic = || hosts.map(|(host, peer)| host.overlayd().traffic(peer.ip).unwrap());
    let netfilter = hosts.map(|(host, _)| Netfilter::count(&host.ns, "-p udp").unwrap());
    let (bridges, before) = (hosts.map(|(host, _)| bridge(host)), traffic());

    let ends = hosts.map(|(host, _)| Endpoint { ns: &host.c(1).ns, ip: host.c(1).ip });
    // Longer than that takes: a sender that is late on a busy machine does not catch up.
    let duration = Duration::from_secs(PACKETS + PACKETS / 5) / RATE;
    let report = Probe::start(ends[0], ends[1], RATE, duration).unwrap().join().unwrap();

    assert!(report.clean(), "{report}");
    assert!(report.forth.sent >= PACKETS && report.back.sent >= PACKETS, "{report}");
    assert_eq!(hosts.map(|(host, _)| bridge(host)), bridges, "docker0's counters and the ports' have moved");
    for netfilter in &netfilter {
        assert_eq!(netfilter.seen().unwrap(), [], "netfilter saw packets of the flow");
    }
    let moved =
        |n: usize| Traffic { to: traffic()[n].to - before[n].to, from: traffic()[n].from - before[n].from };
    assert_eq!(moved(0), Traffic { to: report.forth.sent, from: report.back.sent });
    assert_eq!(moved(1), Traffic { to: report.back.sent, from: report.forth.sent });
    for (host, _) in hosts {
        assert_eq!(host.overlayd().drops().unwrap().len(), 0, "on {}", host.name);
    }
}

/// The counters of the test above do move where packets take the slow path, which fragments do.
#[test]
fn the_slow_path_is_seen_by_bridge_and_netfilter() {
    let topology = two_hosts().unwrap();
    warm_up(&topology);
    let (h1, h2) = (topology.h(1), topology.h(2));
    let netfilter = Netfilter::count(&h1.ns, "-p icmp").unwrap();
    let (before, _) = bridge(h1);
    let ping = ping_with(&h1.c(1).ns, h2.c(1).ip, 5, &["-s", "3000", "-M", "dont"]).unwrap();
    assert!(ping.clean(), "{}", ping.text);
    let (after, _) = bridge(h1);
    assert!(after.rx >= before.rx + 15, "{before:?} {after:?}");
    let seen = netfilter.seen().unwrap();
    for chain in ["raw/PREROUTING", "filter/FORWARD", "mangle/POSTROUTING"] {
        assert!(seen.iter().any(|(name, packets)| name == chain && *packets >= 5), "{chain}: {seen:?}");
    }
}
