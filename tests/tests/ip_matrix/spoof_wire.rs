//! Forged tunnel packets on the wire: from strangers, and from peers that say what is not theirs to say. Valid packets
//! of both versions flow meanwhile.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use harness::{
    Topology, Versions,
    account::{Account, assert_none},
    frame::{self, Ipv4, Ipv6, Mac, Tunnel},
    host::UPLINK,
    traffic::{Injector, Sniffer},
};

use crate::{
    bed::{self, Probes, SOON, VERSIONS, Version},
    wire::PORT,
};

/// In the payload of all that is forged, and of what is valid: as long, lest lengths differ.
pub(crate) const FORGED: &[u8] = b"forged by a test";
pub(crate) const VALID: &[u8] = b"valid, by a test";

/// Packets of each case.
const COUNT: usize = 20;

/// The inner UDP ports: nobody listens on them.
const PORTS: [u16; 2] = [40_001, 40_002];

#[test]
fn over_ipv4() {
    what_the_wire_brings_is_refused_by_name(&hosts(Versions::V4), Versions::V4);
}

#[test]
fn over_ipv6() {
    what_the_wire_brings_is_refused_by_name(&hosts(Versions::V6), Versions::V6);
}

#[test]
fn over_both() {
    what_the_wire_brings_is_refused_by_name(&hosts(Versions::Both), Versions::Both);
}

#[test]
fn behind_xdp() {
    let topology = bed::builder_with_xdp(Versions::V6).hosts(3).containers(2).up().unwrap();
    bed::settle(&topology);
    bed::await_xdp(&topology);
    what_the_wire_brings_is_refused_by_name(&topology, Versions::V6);
}

/// Three hosts with two containers each, those of the first two known.
pub(crate) fn hosts(underlay: Versions) -> Topology {
    let topology = bed::builder(underlay).hosts(3).containers(2).up().unwrap();
    bed::settle(&topology);
    topology
}

/// A UDP packet between containers.
pub(crate) fn inner(src: IpAddr, dst: IpAddr, payload: &[u8]) -> (u16, Vec<u8>) {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let (src, dst) = (SocketAddrV4::new(src, PORTS[0]), SocketAddrV4::new(dst, PORTS[1]));
            (frame::IPV4, Ipv4::udp(src, dst, payload).bytes())
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            (frame::IPV6, Ipv6::udp((src, PORTS[0]), (dst, PORTS[1]), payload).bytes())
        }
        _ => panic!("{src} does not talk to {dst}"),
    }
}

/// A tunnel packet from host 2 to the first container of host 1, as valid as can be, and its outer addresses.
#[derive(Clone)]
pub(crate) struct Forgery {
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) tunnel: Tunnel,
}

impl Forgery {
    pub(crate) fn new(topology: &Topology, outer: Version, version: Version, payload: &[u8]) -> Self {
        let (h1, h2) = (topology.h(1), topology.h(2));
        let (ethertype, packet) = inner(version.nobody(h2), version.ip(h1.c(1)), payload);
        let tunnel = Tunnel {
            eth_dst: h1.mac(UPLINK).unwrap(),
            eth_src: h2.mac(UPLINK).unwrap(),
            tos: 0,
            src: Ipv4Addr::UNSPECIFIED,
            dst: Ipv4Addr::UNSPECIFIED,
            src_port: 50_000,
            port: PORT,
            flags: [8, 0, 0, 0],
            vni: 1,
            reserved: 0,
            inner_dst: vtep(topology, 1),
            inner_src: vtep(topology, 2),
            inner_ethertype: ethertype,
            inner: packet,
        };
        Self { src: outer.underlay(h2), dst: outer.underlay(h1), tunnel }
    }

    pub(crate) fn inner(&mut self, src: IpAddr, dst: IpAddr) {
        (self.tunnel.inner_ethertype, self.tunnel.inner) = inner(src, dst, FORGED);
    }

    fn bytes(&self) -> Vec<u8> {
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => Tunnel { src, dst, ..self.tunnel.clone() }.bytes(),
            (IpAddr::V6(src), IpAddr::V6(dst)) => self.tunnel.bytes_v6(src, dst),
            _ => panic!("{} does not send to {}", self.src, self.dst),
        }
    }
}

pub(crate) fn vtep(topology: &Topology, host: usize) -> Mac {
    let status = topology.h(host).overlayd().ctl(&["status", "-o", "json"]).unwrap();
    frame::mac(status["vtep_mac"].as_str().unwrap())
}

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
    fn add(
        &mut self,
        (outer, version): (Version, Version),
        name: &str,
        reason: &'static str,
        change: impl FnOnce(&mut Forgery),
    ) {
        let mut forgery = Forgery::new(self.topology, outer, version, FORGED);
        change(&mut forgery);
        let name = format!("{name}, {version:?} over {outer:?}");
        self.cases.push(Case { name, packet: forgery.bytes(), reason });
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Who sends, and with which outer header.
fn outer(cases: &mut Cases<'_>, over: (Version, Version)) {
    let strangers: &[&str] = match over.0 {
        Version::V4 => &["172.16.199.99", "172.16.199.17", "10.1.2.3", "127.0.0.1"],
        // The last ones: peers' IPv4 addresses, the mapped and the compatible form.
        Version::V6 => &[
            "fd00:199::99",
            "fd00:199::17",
            "2001:db8::1",
            "fe80::27",
            "::1",
            "::ffff:172.16.199.27",
            "::172.16.199.27",
        ],
    };
    for stranger in strangers {
        cases.add(over, &format!("from {stranger}"), "unknown_peer", |f| f.src = ip(stranger));
    }
    for vni in [0, 2, 0x0100, 0xff_ffff] {
        cases.add(over, &format!("VNI {vni}"), "wrong_vni", |f| f.tunnel.vni = vni);
    }
    cases.add(over, "flags", "vxlan_flags", |f| f.tunnel.flags[0] = 0x88);
    cases.add(over, "another VTEP", "inner_destination_mac", |f| f.tunnel.inner_dst = [2, 0, 0, 0, 0, 9]);
    cases.add(over, "the other EtherType", "inner_malformed", |f| {
        f.tunnel.inner_ethertype ^= frame::IPV4 ^ frame::IPV6;
    });
    cases.add(over, "a VLAN inside", "inner_protocol", |f| f.tunnel.inner_ethertype = frame::VLAN);
}

/// Whose addresses a peer may not use, and whom it may not reach.
fn addressed(cases: &mut Cases<'_>, over: (Version, Version)) {
    let topology = cases.topology;
    let (version, h1, h2, h3) = (over.1, topology.h(1), topology.h(2), topology.h(3));
    let (from, to) = (version.nobody(h2), version.ip(h1.c(1)));
    let mut src = |src: IpAddr, reason| {
        cases.add(over, &format!("inner source {src}"), reason, |f| f.inner(src, to));
    };
    // Another peer's, our own, and underlay addresses.
    for host in [h3, h1] {
        src(version.nobody(host), "inner_source");
        src(version.gateway(host), "inner_source");
    }
    for host in [h1, h2, h3] {
        src(version.underlay(host), "inner_source");
    }
    let (stranger, martians): (&str, &[&str]) = match version {
        Version::V4 => ("10.1.2.3", &["127.0.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255"]),
        Version::V6 => {
            ("2001:db8::1", &["::", "::1", "::ffff:172.27.0.9", "::172.27.0.9", "fe80::9", "ff02::1"])
        }
    };
    src(ip(stranger), "inner_source");
    martians.iter().for_each(|martian| src(ip(martian), "inner_martian"));

    let mut dst = |dst: IpAddr, reason| {
        cases.add(over, &format!("inner destination {dst}"), reason, |f| f.inner(from, dst));
    };
    // Nobody relays: neither back to the peer nor to another one, nor to an underlay address.
    for far in [version.ip(h2.c(1)), version.ip(h3.c(1)), version.underlay(h1), ip(stranger)] {
        dst(far, "not_local");
    }
    let (loopback, groups): (&str, &[&str]) = match version {
        Version::V4 => ("127.0.0.1", &["224.0.0.1", "255.255.255.255", "172.17.255.255"]),
        Version::V6 => ("::1", &["ff02::1", "ff05::2", "ff02::1:ff00:2"]),
    };
    dst(ip(loopback), "inner_martian");
    groups.iter().for_each(|group| dst(ip(group), "inner_multicast"));
}

/// The versions that hosts speak on the wire.
fn spoken(underlay: Versions) -> impl Iterator<Item = Version> {
    VERSIONS.into_iter().filter(move |version| match version {
        Version::V4 => underlay.v4(),
        Version::V6 => underlay.v6(),
    })
}

fn what_the_wire_brings_is_refused_by_name(topology: &Topology, underlay: Versions) {
    let mut cases = Cases { topology, cases: Vec::new() };
    for over in spoken(underlay).flat_map(|outer| VERSIONS.map(|version| (outer, version))) {
        outer(&mut cases, over);
        addressed(&mut cases, over);
    }
    // A version that the host does not speak is nothing of ours, and reaches nobody.
    for outer in VERSIONS.into_iter().filter(|outer| spoken(underlay).all(|version| version != *outer)) {
        cases.add((outer, Version::V4), "an address that nobody has", "", |_| {});
    }
    let h1 = topology.h(1);
    let containers = [1, 2].map(|n| Sniffer::everywhere(&h1.c(n).ns).unwrap());
    let bridge = Sniffer::on(&h1.ns, harness::host::BRIDGE).unwrap();
    let (probes, mut account) = (Probes::start(topology), Account::of(h1));
    let injector = Injector::open(topology.wire.ns().unwrap(), "h1").unwrap();
    for Case { name, packet, reason } in cases.cases {
        account.send(&name, &injector, &vec![packet; COUNT], reason);
    }
    // The same but valid, last in the queue: once these are there, so is all that was sent before.
    let mut valid = 0;
    for (outer, version) in spoken(underlay).flat_map(|outer| VERSIONS.map(|version| (outer, version))) {
        injector.send(&Forgery::new(topology, outer, version, VALID).bytes()).unwrap();
        valid += 1;
    }
    containers[0]
        .await_count("valid packets arrive", valid, SOON, |f| !f.outgoing && f.contains(VALID))
        .unwrap();
    for (place, sniffer) in
        ["container 1", "container 2", "docker0"].into_iter().zip(containers.into_iter().chain([bridge]))
    {
        assert_none(place, sniffer.finish().unwrap(), |frame| frame.contains(FORGED));
    }
    probes.clean();
    account.close();
}

/// A message of neighbour discovery in a tunnel packet from host 2.
pub(crate) fn neighbour_message(topology: &Topology, outer: Version, message: &Ipv6) -> Vec<u8> {
    let mut forgery = Forgery::new(topology, outer, Version::V6, FORGED);
    forgery.tunnel.inner = message.bytes();
    forgery.bytes()
}

/// A tunnel packet to host 1 from an address that is nobody's.
pub(crate) fn from_a_stranger(topology: &Topology, outer: Version, version: Version, src: &str) -> Vec<u8> {
    let mut forgery = Forgery::new(topology, outer, version, FORGED);
    forgery.src = ip(src);
    forgery.bytes()
}
