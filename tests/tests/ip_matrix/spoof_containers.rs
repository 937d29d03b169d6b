//! Containers that say they are somebody else, in either version over either. Valid packets of both versions flow
//! meanwhile.

use std::net::{IpAddr, Ipv6Addr};

use harness::{
    Topology, Versions,
    account::{Account, assert_none},
    container::docker_mac,
    frame::{self, Ipv6, Mac},
    host::BRIDGE,
    traffic::{Frame, Injector, Sniffer},
};

use crate::{
    bed::{Probes, SOON, VERSIONS, Version},
    spoof_wire::{FORGED, VALID, hosts, inner},
    wire::PORT,
};

/// Frames of each case.
const COUNT: usize = 20;

/// The second container of host 1, which says what is not so.
struct Impostor<'a> {
    topology: &'a Topology,
    mac: Mac,
    gateway_mac: Mac,
    injector: Injector,
}

impl<'a> Impostor<'a> {
    fn new(topology: &'a Topology) -> Self {
        let h1 = topology.h(1);
        Self {
            topology,
            mac: frame::mac(&docker_mac(h1.c(2).ip)),
            gateway_mac: h1.mac(BRIDGE).unwrap(),
            injector: Injector::open(&h1.c(2).ns, "eth0").unwrap(),
        }
    }

    /// A frame to the first container of host 2, by way of the gateway.
    fn frame(&self, mac: Mac, src: IpAddr, payload: &[u8]) -> Vec<u8> {
        let dst = Version::of(src).ip(self.topology.h(2).c(1));
        let (ethertype, packet) = inner(src, dst, payload);
        frame::eth(self.gateway_mac, mac, ethertype, &packet)
    }
}

/// Sources that are not the impostor's, and why their packets are dropped.
fn sources(topology: &Topology, version: Version) -> Vec<(IpAddr, &'static str)> {
    let (h1, h2) = (topology.h(1), topology.h(2));
    let mut sources = vec![
        (version.ip(h1.c(1)), "source_spoofed"),
        (version.ip(h2.c(2)), "source_spoofed"),
        (version.gateway(h2), "source_spoofed"),
        (version.underlay(h1), "source_spoofed"),
        (version.underlay(h2), "source_spoofed"),
        (version.gateway(h1), "gateway_claimed"),
    ];
    let strangers: &[&str] = match version {
        Version::V4 => &["10.1.2.3", "127.0.0.1", "0.0.0.0", "224.0.0.1", "172.17.255.255", "172.17.0.0"],
        // The last one but one: its subnet's own address, the routers' anycast address.
        Version::V6 => &[
            "2001:db8::1",
            "::1",
            "::",
            "ff02::1",
            "::ffff:172.17.0.3",
            "fe80::9",
            "fd00:17::",
            "::172.17.0.3",
        ],
    };
    sources.extend(strangers.iter().map(|ip| (ip.parse().unwrap(), "source_spoofed")));
    sources
}

#[test]
fn over_ipv4() {
    a_container_speaks_for_itself_alone(Versions::V4);
}

#[test]
fn over_ipv6() {
    a_container_speaks_for_itself_alone(Versions::V6);
}

#[test]
fn over_both() {
    a_container_speaks_for_itself_alone(Versions::Both);
}

fn a_container_speaks_for_itself_alone(underlay: Versions) {
    let topology = hosts(underlay);
    let (h1, h2) = (topology.h(1), topology.h(2));
    let impostor = Impostor::new(&topology);
    let everywhere = [
        ("the wire", Sniffer::on(topology.wire.ns().unwrap(), "h1").unwrap()),
        ("container 1 of host 2", Sniffer::everywhere(&h2.c(1).ns).unwrap()),
        ("container 2 of host 2", Sniffer::everywhere(&h2.c(2).ns).unwrap()),
    ];
    let (probes, mut account) = (Probes::start(&topology), Account::of(h1));
    for version in VERSIONS {
        for (src, reason) in sources(&topology, version) {
            let frames = vec![impostor.frame(impostor.mac, src, FORGED); COUNT];
            account.send(&format!("from {src}"), &impostor.injector, &frames, reason);
        }
        let own = version.ip(h1.c(2));
        macs(&impostor, &mut account, own);
        tunnels(&impostor, &mut account, underlay, version);
        account.send(
            "itself",
            &impostor.injector,
            &vec![impostor.frame(impostor.mac, own, VALID); COUNT],
            "",
        );
    }
    let valid = |f: &Frame| !f.outgoing && f.contains(VALID);
    everywhere[1].1.await_count("what is valid arrives", 2 * COUNT, SOON, valid).unwrap();
    assert_eq!(everywhere[1].1.count(valid), 2 * COUNT, "what is valid arrives once");
    for (place, sniffer) in everywhere {
        assert_none(place, sniffer.finish().unwrap(), |frame| frame.contains(FORGED));
    }
    probes.clean();
    account.close();
    for number in [1, 2] {
        assert!(VERSIONS.iter().all(|version| version.is_known(h1, number)), "container {number}");
    }
}

/// Its own address, with a MAC address that is not its own.
fn macs(impostor: &Impostor<'_>, account: &mut Account<'_>, own: IpAddr) {
    let h1 = impostor.topology.h(1);
    let neighbour = frame::mac(&docker_mac(h1.c(1).ip));
    let macs = [
        ("an invented MAC", [2, 0, 0, 0, 0, 9], "source_mac_spoofed"),
        ("its neighbour's MAC", neighbour, "source_mac_spoofed"),
        ("its gateway's MAC", impostor.gateway_mac, "gateway_claimed"),
    ];
    for (name, mac, reason) in macs {
        let frames = vec![impostor.frame(mac, own, FORGED); COUNT];
        account.send(&format!("{own} with {name}"), &impostor.injector, &frames, reason);
    }
}

/// Tunnel packets for a peer's host, which would believe what is in them if they came in this host's name. A host that
/// nobody knows by an address of this version is no peer at that address: the kernel has no route there either.
fn tunnels(impostor: &Impostor<'_>, account: &mut Account<'_>, underlay: Versions, version: Version) {
    let topology = impostor.topology;
    let (h1, h2) = (topology.h(1), topology.h(2));
    let spoken = if version == Version::V4 { underlay.v4() } else { underlay.v6() };
    let payload = [&[8, 0, 0, 0, 0, 0, 1, 0], FORGED].concat();
    let packet = match (version.ip(h1.c(2)), version.underlay(h2)) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let ends = [(src, 50_000), (dst, PORT)].map(|(ip, port)| std::net::SocketAddrV4::new(ip, port));
            frame::eth(
                impostor.gateway_mac,
                impostor.mac,
                frame::IPV4,
                &frame::Ipv4::udp(ends[0], ends[1], &payload).bytes(),
            )
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let packet = Ipv6::udp((src, 50_000), (dst, PORT), &payload);
            frame::eth(impostor.gateway_mac, impostor.mac, frame::IPV6, &packet.bytes())
        }
        other => panic!("{other:?} are of two versions"),
    };
    let reason = if spoken { "tunnel_forged" } else { "" };
    account.send(
        &format!("a tunnel of its own over {version:?}"),
        &impostor.injector,
        &vec![packet; COUNT],
        reason,
    );
}

/// All nodes on the link.
pub(crate) const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
