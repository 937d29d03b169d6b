//! From the wire: strangers, and peers that say what is not theirs to say.

use std::net::Ipv4Addr;

use harness::{
    Topology,
    frame::{self, Mac, Tunnel},
    traffic::Sniffer,
};

use crate::bed::{
    self, Account, FORGED, PORT, VALID, Watch, clean, from_the_wire, inner, nobody, probe, tunnel,
};

/// Packets of each case.
const COUNT: usize = 50;

/// A packet that is valid but for what the case changes, and why it is dropped.
struct Case {
    name: String,
    packet: Vec<u8>,
    reason: &'static str,
}

struct Cases<'a> {
    topology: &'a Topology,
    cases: Vec<Case>,
}

impl Cases<'_> {
    fn add(&mut self, name: impl Into<String>, reason: &'static str, change: impl FnOnce(&mut Tunnel)) {
        let mut packet = tunnel(self.topology, FORGED);
        change(&mut packet);
        self.cases.push(Case { name: name.into(), packet: packet.bytes(), reason });
    }

    /// Other inner addresses than from host 2's subnet to host 1's first container.
    fn inner(&mut self, src: Option<&str>, dst: Option<&str>, reason: &'static str) {
        let (h1, h2) = (self.topology.h(1), self.topology.h(2));
        let parse = |ip: &str| ip.parse::<Ipv4Addr>().unwrap();
        let addresses = (src.map_or(nobody(h2), parse), dst.map_or(h1.c(1).ip, parse));
        self.add(format!("inner {} to {}", addresses.0, addresses.1), reason, |t| {
            t.inner = inner(addresses.0, addresses.1, FORGED).bytes();
        });
    }
}

/// Who sends, and with which outer header.
fn outer(cases: &mut Cases<'_>) {
    for stranger in ["172.16.199.99", "172.16.199.1", "172.16.199.17", "10.1.2.3", "127.0.0.1"] {
        cases.add(format!("from {stranger}"), "unknown_peer", |t| t.src = stranger.parse().unwrap());
    }
    for vni in [0, 2, 0x0100, 0x01_0000, 0xff_ffff] {
        cases.add(format!("VNI {vni}"), "wrong_vni", |t| t.vni = vni);
    }
    // RFC 7348 section 5: I alone is set, all else is reserved. Then GBP, GPE's P and O, and remote checksums.
    for flags in [0, 0x88, 0x0c, 0x09, 0x28, 0xff] {
        cases.add(format!("flags {flags:#x}"), "vxlan_flags", |t| t.flags[0] = flags);
    }
    for byte in 1..4 {
        cases.add(format!("reserved byte {byte}"), "vxlan_flags", |t| t.flags[byte] = 1);
    }
    cases.add("the last reserved byte", "vxlan_flags", |t| t.reserved = 1);
}

/// What a peer may not carry.
fn carried(cases: &mut Cases<'_>) {
    let other: Mac = [2, 0, 0, 0, 0, 9];
    let multicast: Mac = [1, 0, 0x5e, 0, 0, 1];
    for (mac, reason) in
        [(other, "inner_destination_mac"), (multicast, "inner_multicast"), ([0; 6], "inner_destination_mac")]
    {
        cases.add(format!("inner MAC {mac:02x?}"), reason, |t| t.inner_dst = mac);
    }
    // It is taken, but not from somebody else's address.
    cases.add("ARP inside", "inner_source", |t| {
        let claim = ([2, 0, 0, 0, 0, 9], "172.17.0.1".parse().unwrap());
        t.inner = frame::arp(2, claim, (frame::BROADCAST, claim.1));
        t.inner.extend(FORGED);
        t.inner_dst = frame::BROADCAST;
        t.inner_ethertype = frame::ARP;
    });
    cases.add("neither version inside", "inner_protocol", |t| t.inner_ethertype = 0x88b5);
    cases.add("IPv6 by name alone", "inner_malformed", |t| t.inner_ethertype = 0x86dd);
    cases.add("a VLAN inside", "inner_protocol", |t| {
        t.inner = [vec![0, 7, 8, 0], t.inner.clone()].concat();
        t.inner_ethertype = frame::VLAN;
    });
    cases.add("IP version 6 inside", "inner_malformed", |t| t.inner[0] = 0x65);
    cases.add("an inner header of 16 bytes", "inner_malformed", |t| t.inner[0] = 0x44);
    cases.add("an inner length of 19", "inner_malformed", |t| t.inner[2..4].copy_from_slice(&[0, 19]));
    cases.add("an inner length too large", "inner_malformed", |t| t.inner[3] += 1);
}

/// Whose addresses a peer may not use, and whom it may not reach.
fn addressed(cases: &mut Cases<'_>) {
    // Another peer's subnet, our own, nobody's, and underlay addresses.
    for src in ["172.37.0.2", "172.17.0.3", "172.17.0.1", "10.1.2.3", "172.16.199.27", "172.16.199.17"] {
        cases.inner(Some(src), None, "inner_source");
    }
    for src in
        ["127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "224.0.0.1", "239.1.2.3", "255.255.255.255"]
    {
        cases.inner(Some(src), None, "inner_martian");
    }
    for dst in ["127.0.0.1", "0.0.0.0", "0.1.2.3"] {
        cases.inner(None, Some(dst), "inner_martian");
    }
    // Nobody relays: neither back to the peer nor to another one, nor to an underlay address.
    for dst in ["10.1.2.3", "172.27.0.2", "172.37.0.2", "172.16.199.17", "172.18.0.1", "8.8.8.8"] {
        cases.inner(None, Some(dst), "not_local");
    }
    for dst in ["224.0.0.1", "239.255.255.250", "255.255.255.255", "172.17.255.255"] {
        cases.inner(None, Some(dst), "inner_multicast");
    }
}

#[test]
fn what_the_wire_brings_is_refused_by_name() {
    let topology = bed::hosts(3);
    let mut cases = Cases { topology: &topology, cases: Vec::new() };
    outer(&mut cases);
    carried(&mut cases);
    addressed(&mut cases);
    let (probe, watch) = (probe(&topology), Watch::start(&topology));
    let (injector, mut account) = (from_the_wire(&topology), Account::of(topology.h(1)));
    for Case { name, packet, reason } in cases.cases {
        account.send(&name, &injector, &vec![packet; COUNT], reason);
    }
    watch.flush(&topology, &injector);
    watch.nothing_passed(|frame| frame.contains(FORGED));
    clean(probe);
    account.close();
}

type Change = fn(&mut Tunnel);

/// What is for somebody else is none of our business: not counted, not touched, and surely not decapsulated. What is
/// for everybody reaches the tunnel device's socket, and its guard.
#[test]
fn what_is_for_others_is_left_alone() {
    let topology = bed::hosts(2);
    let (h1, probe) = (topology.h(1), probe(&topology));
    let (injector, mut account) = (from_the_wire(&topology), Account::of(h1));
    let sniffers = [1, 2].map(|n| Sniffer::everywhere(&h1.c(n).ns).unwrap());
    let bridge = Sniffer::on(&h1.ns, harness::host::BRIDGE).unwrap();
    let others: [(&str, &str, Change); 5] = [
        ("another MAC", "", |t| t.eth_dst = [2, 0, 0, 0, 0, 9]),
        ("everybody's MAC", "not_from_uplink", |t| t.eth_dst = frame::BROADCAST),
        ("another address", "", |t| t.dst = "172.16.199.99".parse().unwrap()),
        ("everybody's address", "not_from_uplink", |t| t.dst = "172.16.199.255".parse().unwrap()),
        ("another port", "", |t| t.port = PORT + 1),
    ];
    for (name, reason, change) in others {
        let mut packet = tunnel(&topology, FORGED);
        change(&mut packet);
        account.send(name, &injector, &vec![packet.bytes(); COUNT], reason);
    }
    let valid = tunnel(&topology, VALID).bytes();
    injector.send(&valid).unwrap();
    sniffers[0].await_count("a valid packet arrives", 1, bed::SOON, |f| f.contains(VALID)).unwrap();
    for sniffer in sniffers.into_iter().chain([bridge]) {
        bed::assert_none("host 1", sniffer.finish().unwrap(), |frame| frame.contains(FORGED));
    }
    clean(probe);
    account.close();
}
