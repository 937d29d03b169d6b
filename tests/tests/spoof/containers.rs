//! From containers: the second one of host 1 says it is somebody else.

use std::net::Ipv4Addr;

use harness::{
    Topology,
    frame::{self, BROADCAST, Mac},
    host::Host,
    traffic::{Frame, Injector, Sniffer},
};

use crate::bed::{self, Account, FORGED, VALID, assert_none, clean, gateway_mac, inner, nobody, probe};

const COUNT: usize = 50;

/// Eyes wherever a container's frame could come out.
struct Everywhere(Vec<(&'static str, Sniffer)>);

impl Everywhere {
    fn watch(topology: &Topology) -> Self {
        let (h1, h2, wire) = (topology.h(1), topology.h(2), topology.wire.ns().unwrap());
        Self(vec![
            ("the wire", Sniffer::on(wire, "h1").unwrap()),
            ("host 1's uplink", Sniffer::on(&h1.ns, "eth0").unwrap()),
            ("host 2", Sniffer::everywhere(&h2.ns).unwrap()),
            ("container 1 of host 2", Sniffer::everywhere(&h2.c(1).ns).unwrap()),
            ("container 2 of host 2", Sniffer::everywhere(&h2.c(2).ns).unwrap()),
        ])
    }

    /// The control is there, and once.
    fn arrived(&self, count: usize) {
        let (_, sniffer) = &self.0[3];
        let like = |f: &Frame| !f.outgoing && f.contains(VALID);
        sniffer.await_count("what is valid arrives", count, bed::SOON, like).unwrap();
        assert_eq!(sniffer.count(like), count);
    }

    fn saw_nothing(self, like: impl Fn(&Frame) -> bool) {
        for (place, sniffer) in self.0 {
            assert_none(place, sniffer.finish().unwrap(), &like);
        }
    }
}

/// From the second container of host 1 to the first one of host 2, by way of the gateway.
fn packet(topology: &Topology, mac: Mac, src: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let ip = inner(src, topology.h(2).c(1).ip, payload);
    frame::eth(gateway_mac(topology.h(1)), mac, frame::IPV4, &ip.bytes())
}

fn impostor(host: &Host) -> (Injector, Mac) {
    let ns = &host.c(2).ns;
    (Injector::open(ns, "eth0").unwrap(), frame::mac(&harness::container::docker_mac(host.c(2).ip)))
}

/// Sources, and why their packets are dropped.
fn sources(topology: &Topology) -> Vec<(&'static str, Ipv4Addr, &'static str)> {
    let (h1, h2) = (topology.h(1), topology.h(2));
    let ip = |text: &str| text.parse().unwrap();
    vec![
        ("its neighbour's address", h1.c(1).ip, "source_spoofed"),
        ("a remote container's", h2.c(2).ip, "source_spoofed"),
        ("a remote gateway's", h2.bridge.ip, "source_spoofed"),
        ("its host's on the wire", h1.ip, "source_spoofed"),
        ("a remote host's on the wire", h2.ip, "source_spoofed"),
        ("a stranger's", ip("10.1.2.3"), "source_spoofed"),
        ("its gateway's", h1.bridge.ip, "gateway_claimed"),
        ("loopback", ip("127.0.0.1"), "source_spoofed"),
        ("nobody's", ip("0.0.0.0"), "source_spoofed"),
        ("a group's", ip("224.0.0.1"), "source_spoofed"),
        ("everybody's", ip("255.255.255.255"), "source_spoofed"),
        ("its subnet's broadcast address", ip("172.17.255.255"), "source_spoofed"),
        ("its subnet's own address", ip("172.17.0.0"), "source_spoofed"),
    ]
}

#[test]
fn a_container_speaks_for_itself_alone() {
    let topology = bed::hosts(2);
    let h1 = topology.h(1);
    let (injector, mac) = impostor(h1);
    let (probe, everywhere) = (probe(&topology), Everywhere::watch(&topology));
    let mut account = Account::of(h1);
    for (name, src, reason) in sources(&topology) {
        let frames = vec![packet(&topology, mac, src, FORGED); COUNT];
        account.send(name, &injector, &frames, reason);
    }
    let own = h1.c(2).ip;
    let neighbour = frame::mac(&harness::container::docker_mac(h1.c(1).ip));
    let macs = [
        ("an invented MAC", [2, 0, 0, 0, 0, 9], "source_mac_spoofed"),
        ("its neighbour's MAC", neighbour, "source_mac_spoofed"),
        ("its gateway's MAC", gateway_mac(h1), "gateway_claimed"),
    ];
    for (name, mac, reason) in macs {
        account.send(name, &injector, &vec![packet(&topology, mac, own, FORGED); COUNT], reason);
    }
    account.send("itself", &injector, &vec![packet(&topology, mac, own, VALID); COUNT], "");
    everywhere.arrived(COUNT);
    everywhere.saw_nothing(|frame| frame.contains(FORGED));
    clean(probe);
    account.close();
    assert!(h1.knows(1) && h1.knows(2));
}

#[test]
fn a_container_that_claims_the_gateway_by_arp_is_not_heard() {
    let topology = bed::hosts(2);
    let h1 = topology.h(1);
    let (injector, own) = impostor(h1);
    let (gateway, c1) = (h1.bridge.ip, h1.c(1));
    let neighbour = frame::mac(&harness::container::docker_mac(c1.ip));
    let (probe, mut account) = (probe(&topology), Account::of(h1));
    let sniffers = [Sniffer::everywhere(&c1.ns).unwrap(), Sniffer::on(&h1.ns, "docker0").unwrap()];
    let to = |dst: Mac, packet: Vec<u8>| vec![frame::eth(dst, own, frame::ARP, &packet); COUNT];
    let claims = [
        ("an answer", to(neighbour, frame::arp(2, (own, gateway), (neighbour, c1.ip)))),
        ("an answer to all", to(BROADCAST, frame::arp(2, (own, gateway), (BROADCAST, gateway)))),
        ("an announcement", to(BROADCAST, frame::arp(1, (own, gateway), ([0; 6], gateway)))),
        ("a question in its name", to(BROADCAST, frame::arp(1, (own, gateway), ([0; 6], c1.ip)))),
    ];
    for (name, frames) in claims {
        account.send(name, &injector, &frames, "gateway_claimed");
    }
    // What it may ask, it may.
    let question = frame::arp(1, (own, h1.c(2).ip), ([0; 6], c1.ip));
    let asked = frame::eth(BROADCAST, own, frame::ARP, &question);
    account.send("a question of its own", &injector, std::slice::from_ref(&asked), "");
    sniffers[0].await_count("the question arrives", 1, bed::SOON, |f| f.bytes.starts_with(&asked)).unwrap();
    let claim = [&own[..], &gateway.octets()].concat();
    for sniffer in sniffers {
        assert_none("host 1", sniffer.finish().unwrap(), |f| {
            f.bytes[12..14] == frame::ARP.to_be_bytes() && f.bytes[22..].starts_with(&claim)
        });
    }
    clean(probe);
    account.close();
}

/// docker0 filters no VLANs, so a tagged frame floods to its ports. The uplink is none of them.
#[test]
fn a_tagged_frame_never_reaches_the_wire() {
    let topology = bed::hosts(2);
    let h1 = topology.h(1);
    let (injector, mac) = impostor(h1);
    let (probe, everywhere) = (probe(&topology), Everywhere::watch(&topology));
    let forged = [h1.c(1).ip, nobody(topology.h(2)), h1.bridge.ip];
    for vlan in [0, 1, 7, 4095, 0xe000, 0xe007] {
        // A tag without VLAN is a priority and no more (IEEE 802.1Q, 9.6): the kernel takes such a frame from
        // whom it belongs to as it does without.
        let own = (vlan & 0xfff != 0).then_some(h1.c(2).ip);
        for src in forged.into_iter().chain(own) {
            let frame = frame::tagged(&packet(&topology, mac, src, FORGED), vlan);
            for _ in 0..COUNT {
                injector.send(&frame).unwrap();
                injector.send(&frame::tagged(&frame, vlan)).unwrap();
            }
        }
    }
    let untagged = packet(&topology, mac, h1.c(2).ip, VALID);
    (0..COUNT).for_each(|_| injector.send(&untagged).unwrap());
    everywhere.arrived(COUNT);
    everywhere.saw_nothing(|frame| frame.contains(FORGED));
    clean(probe);
    assert!(h1.knows(1) && h1.knows(2));
}
