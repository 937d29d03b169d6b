//! What XDP refuses, and what it leaves alone, with valid traffic that all arrives.

use std::collections::BTreeMap;

use harness::{
    Topology, eventually,
    frame::{self, Ipv4, Tunnel},
    host::{Host, UPLINK},
    traffic::{Injector, Sniffer},
};

use crate::{SOON, flow, probe, two_hosts_with_xdp};

/// Packets of each case.
const COUNT: u64 = 50;
/// In the payload of all that is forged.
const FORGED: &[u8] = b"forged by a test";

type Change = fn(&mut Tunnel);

/// A tunnel packet from host 2 to the first container of host 1, as valid as can be.
fn tunnel(topology: &Topology) -> Tunnel {
    let (h1, h2) = (topology.h(1), topology.h(2));
    Tunnel {
        eth_dst: h1.mac(UPLINK).unwrap(),
        eth_src: h2.mac(UPLINK).unwrap(),
        tos: 0,
        src: h2.ip,
        dst: h1.ip,
        src_port: 50_000,
        port: 4789,
        flags: [8, 0, 0, 0],
        vni: 1,
        reserved: 0,
        inner_dst: vtep(h1),
        inner_src: vtep(h2),
        inner_ethertype: frame::IPV4,
        inner: inner(topology, "172.27.0.200"),
    }
}

fn vtep(host: &Host) -> frame::Mac {
    let status = host.overlayd().ctl(&["status", "-o", "json"]).unwrap();
    frame::mac(status["vtep_mac"].as_str().unwrap())
}

fn inner(topology: &Topology, src: &str) -> Vec<u8> {
    let from = std::net::SocketAddrV4::new(src.parse().unwrap(), 40_001);
    let to = std::net::SocketAddrV4::new(topology.h(1).c(1).ip, 40_002);
    Ipv4::udp(from, to, FORGED).bytes()
}

/// What is refused, and under which name; what is not ours to judge has none.
const CASES: [(&str, &str, Change); 12] = [
    ("a stranger", "unknown_peer", |t| t.src = "172.16.199.99".parse().unwrap()),
    ("our own address", "unknown_peer", |t| t.src = t.dst),
    ("another VNI", "wrong_vni", |t| t.vni = 2),
    ("flags", "vxlan_flags", |t| t.flags[0] = 0x88),
    ("a reserved byte", "vxlan_flags", |t| t.reserved = 1),
    ("another VTEP", "inner_destination_mac", |t| t.inner_dst = [2, 0, 0, 0, 0, 9]),
    ("no IP inside", "inner_protocol", |t| t.inner_ethertype = 0x88b5),
    ("a length too large", "inner_malformed", |t| t.inner[3] += 1),
    ("congestion that nobody hears", "ecn_ce_not_ect", |t| t.tos = 3),
    ("another MAC address", "", |t| t.eth_dst = [2, 0, 0, 0, 0, 9]),
    ("another host's address", "", |t| t.dst = "172.16.199.99".parse().unwrap()),
    ("another port", "", |t| t.port = 4790),
];

#[test]
fn forged_packets_are_refused_by_name_in_xdp() {
    let topology = two_hosts_with_xdp();
    let h1 = topology.h(1);
    let (probe, injector) =
        (probe(&topology, 60), Injector::open(topology.wire.ns().unwrap(), "h1").unwrap());
    let container = Sniffer::everywhere(&h1.c(1).ns).unwrap();
    let mut cases: Vec<(String, &str, Vec<u8>)> = Vec::new();
    for (name, reason, change) in CASES {
        let mut packet = tunnel(&topology);
        change(&mut packet);
        cases.push((name.to_owned(), reason, packet.bytes()));
    }
    for (src, reason) in [
        ("172.37.0.2", "inner_source"),
        ("172.17.0.3", "inner_source"),
        ("172.16.199.27", "inner_source"),
        ("127.0.0.1", "inner_martian"),
        ("224.0.0.1", "inner_martian"),
    ] {
        let packet = Tunnel { inner: inner(&topology, src), ..tunnel(&topology) };
        cases.push((format!("inner source {src}"), reason, packet.bytes()));
    }
    let mut expected: BTreeMap<String, u64> = h1.overlayd().drops().unwrap();
    for (name, reason, packet) in cases {
        for _ in 0..COUNT {
            injector.send(&packet).unwrap();
        }
        if !reason.is_empty() {
            *expected.entry(reason.to_owned()).or_default() += COUNT;
        }
        let mut seen = BTreeMap::new();
        let counted = eventually("drops", SOON, || {
            seen = h1.overlayd().drops().unwrap();
            seen == expected
        });
        assert!(counted.is_ok(), "{name}: {seen:?} instead of {expected:?}");
    }
    let mut valid = tunnel(&topology);
    let at = valid.inner.len() - FORGED.len();
    valid.inner[at..].copy_from_slice(b"valid, by a test");
    injector.send(&valid.bytes()).unwrap();
    container.await_count("a valid packet arrives", 1, SOON, |f| f.contains(b"valid, by a test")).unwrap();
    assert_eq!(container.count(|f| f.contains(FORGED)), 0);
    flow(&probe, 200);
    let report = probe.finish().unwrap();
    assert!(report.forth.sent > 100 && report.clean(), "{report}");
    assert_eq!(h1.overlayd().drops().unwrap(), expected);
}

/// An inner packet that comes without its outer headers claims to have been through XDP; nothing in front of it
/// says so.
#[test]
fn naked_inner_packets_are_not_delivered() {
    let topology = two_hosts_with_xdp();
    let (h1, h2) = (topology.h(1), topology.h(2));
    let (probe, injector) =
        (probe(&topology, 30), Injector::open(topology.wire.ns().unwrap(), "h1").unwrap());
    let container = Sniffer::everywhere(&h1.c(1).ns).unwrap();
    h1.ns.sysctl("ipv4/ip_forward", "0").unwrap();
    let naked =
        [&h1.mac(UPLINK).unwrap()[..], &h2.mac(UPLINK).unwrap(), &[8, 0], &inner(&topology, "172.27.0.200")]
            .concat();
    for _ in 0..COUNT {
        injector.send(&naked).unwrap();
    }
    flow(&probe, 500);
    assert_eq!(container.count(|f| f.contains(FORGED)), 0);
    let report = probe.finish().unwrap();
    assert!(report.clean(), "{report}");
}

/// A tag that stands beside the packet XDP does not see: hardware puts it there, and so does the wire's bridge with
/// what the second host sends. The packet is another interface's.
#[test]
fn what_comes_in_a_vlan_is_not_the_uplinks() {
    let topology = two_hosts_with_xdp();
    let (h1, probe) = (topology.h(1), probe(&topology, 30));
    let container = Sniffer::everywhere(&h1.c(1).ns).unwrap();
    let injector = Injector::open(&topology.h(2).ns, UPLINK).unwrap();
    let packet = tunnel(&topology).bytes();
    let tagged = [&packet[..12], &[0x81, 0, 0, 7], &packet[12..]].concat();
    for _ in 0..COUNT {
        injector.send(&tagged).unwrap();
    }
    let expected = BTreeMap::from([("not_from_uplink".to_owned(), COUNT)]);
    eventually("they are dropped", SOON, || h1.overlayd().drops().unwrap() == expected).unwrap();
    flow(&probe, 200);
    assert_eq!(container.count(|f| f.contains(FORGED)), 0);
    let report = probe.finish().unwrap();
    assert!(report.clean(), "{report}");
}
