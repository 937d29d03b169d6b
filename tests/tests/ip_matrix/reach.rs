//! Everybody reaches everybody, over the version of IP that is the right one.

use harness::{
    Topology, Versions,
    host::Plan,
    topology::StoreKind,
    traffic::{Ping, ping, ping_from, transfer},
};

use crate::{
    bed::{self, VERSIONS, Version, end, no_drops},
    expected::{Cell, cells},
    wire,
};

/// Bytes that TCP carries each way.
const BYTES: usize = 2 << 20;

#[test]
fn over_ipv4() {
    everybody_reaches_everybody(&bed::builder(Versions::V4).up().unwrap(), Versions::V4);
}

#[test]
fn over_ipv6() {
    everybody_reaches_everybody(&bed::builder(Versions::V6).up().unwrap(), Versions::V6);
}

#[test]
fn over_both() {
    everybody_reaches_everybody(&bed::builder(Versions::Both).up().unwrap(), Versions::Both);
}

/// The outer version is told from the packet alone in XDP, too.
#[test]
fn behind_xdp() {
    let topology = bed::builder_with_xdp(Versions::Both).up().unwrap();
    bed::settle(&topology);
    bed::await_xdp(&topology);
    everybody_reaches_everybody(&topology, Versions::Both);
}

/// The daemons know of each other from etcd, which speaks what the hosts do.
fn by_etcd(underlay: Versions) {
    let topology = bed::builder(underlay).store(StoreKind::Etcd).up().unwrap();
    everybody_reaches_everybody(&topology, underlay);
}

#[test]
fn by_etcd_over_ipv4() {
    by_etcd(Versions::V4);
}

#[test]
fn by_etcd_over_ipv6() {
    by_etcd(Versions::V6);
}

#[test]
fn by_etcd_over_both() {
    by_etcd(Versions::Both);
}

/// Hosts that differ in what they speak: each pair uses what both speak, a subnet's own version if they can.
#[test]
fn hosts_of_different_underlays() {
    let spoken = [Versions::Both, Versions::V4, Versions::V6];
    let builder = bed::builder(Versions::Both).hosts(3).without_overlayd();
    let mut topology = builder.plan(move |n| Plan { underlay: spoken[n], bridge_v6: true }).up().unwrap();
    for host in 0..3 {
        topology.start_overlayd(host).unwrap();
    }
    let sniffer = wire::watch(&topology);
    let h1 = topology.h(1);
    for (other, outer) in [(2, Version::V4), (3, Version::V6)] {
        for version in VERSIONS {
            let (here, there) = (end(h1, 1, version), end(topology.h(other), 1, version));
            let answers = || ping(here.ns, there.ip, 1).is_ok_and(|ping| ping.clean());
            harness::eventually(&format!("{version:?} to h{other}"), bed::SOON, answers).unwrap();
            transfer(here, there, BYTES / 4).unwrap();
            assert_eq!(
                h1.overlayd().mtu_to(outer.underlay(topology.h(other))).unwrap(),
                if outer == Version::V4 { 1450 } else { 1430 }
            );
        }
    }
    for packet in wire::packets(sniffer) {
        let is_second = topology.h(2).addresses().contains(&packet.outer.src)
            || topology.h(2).addresses().contains(&packet.outer.dst);
        assert_eq!(Version::of(packet.outer.src) == Version::V4, is_second, "{packet:?}");
    }
    no_drops(&topology);
}

fn everybody_reaches_everybody(topology: &Topology, underlay: Versions) {
    bed::settle(topology);
    for cell in cells(underlay) {
        let sniffer = wire::watch(topology);
        pings(topology, &cell);
        let (h1, h2) = (topology.h(1), topology.h(2));
        for (from, to) in [(h1, h2), (h2, h1)] {
            transfer(end(from, 1, cell.inner), end(to, 1, cell.inner), BYTES)
                .unwrap_or_else(|e| panic!("{cell:?} from {}: {e:#}", from.name));
        }
        on_the_wire(topology, &cell, &wire::packets(sniffer));
    }
    no_drops(topology);
}

/// Between containers, between hosts and containers, and to the other's gateway.
fn pings(topology: &Topology, cell: &Cell) {
    let version = cell.inner;
    for (here, there) in [(topology.h(1), topology.h(2)), (topology.h(2), topology.h(1))] {
        let (from, to, gateway) = (here.c(1), version.ip(there.c(1)), version.gateway(there));
        let pings: [(&str, Ping); 5] = [
            ("container to container", ping(&from.ns, to, 3).unwrap()),
            ("container to gateway", ping(&from.ns, gateway, 3).unwrap()),
            ("host to container", ping(&here.ns, to, 3).unwrap()),
            ("host to gateway", ping(&here.ns, gateway, 3).unwrap()),
            ("gateway to gateway", ping_from(&here.ns, version.gateway(here), gateway, 3).unwrap()),
        ];
        for (what, ping) in pings {
            assert!(ping.clean(), "{cell:?}, from {}, {what}: {}", here.name, ping.text);
        }
    }
}

/// Every tunnel packet is of the right outer version, between the right addresses, and as much longer as expected.
fn on_the_wire(topology: &Topology, cell: &Cell, packets: &[wire::Packet]) {
    let [one, two] = [1, 2].map(|n| cell.outer.underlay(topology.h(n)));
    for (src, dst) in [(one, two), (two, one)] {
        let sent = packets.iter().filter(|p| (p.outer.src, p.outer.dst) == (src, dst)).count();
        assert!(sent > 50, "{cell:?}: {sent} of {} packets from {src} to {dst}", packets.len());
    }
    for packet in packets {
        assert!([one, two].contains(&packet.outer.src), "{cell:?}: {packet:?}");
        assert_eq!(wire::inner_version(packet), cell.inner, "{cell:?}: {packet:?}");
        assert_eq!(packet.outer.len, packet.inner.len + cell.overhead, "{cell:?}: {packet:?}");
        assert_eq!(packet.checksum, 0, "between us there is no need for one: {cell:?}: {packet:?}");
    }
}
