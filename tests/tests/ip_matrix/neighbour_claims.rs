//! Neighbour discovery that claims what is not so: the gateway is the bridge's alone, and a neighbour's address does not
//! go to who says that it is his. Valid packets of both versions flow meanwhile.

use std::net::{IpAddr, Ipv6Addr};

use harness::{
    Topology, Versions,
    account::{Account, assert_none},
    container::docker_mac,
    frame::{self, Ipv6, Mac},
    host::{BRIDGE, Host},
    traffic::{Frame, Injector, Sniffer},
};

use crate::{
    bed::{Probes, SOON, VERSIONS, Version},
    spoof_containers::ALL_NODES,
    spoof_wire::{hosts, neighbour_message},
};

const COUNT: usize = 20;

/// The Ethernet address of all nodes (RFC 2464 section 7).
const ALL_NODES_MAC: Mac = [0x33, 0x33, 0, 0, 0, 1];

/// What the second container of host 1 has, and of whom it speaks.
struct Liar {
    injector: Injector,
    mac: Mac,
    own: Ipv6Addr,
    gateway: Ipv6Addr,
    neighbour: Ipv6Addr,
    neighbour_mac: Mac,
}

impl Liar {
    fn new(h1: &Host) -> Self {
        Self {
            injector: Injector::open(&h1.c(2).ns, "eth0").unwrap(),
            mac: frame::mac(&docker_mac(h1.c(2).ip)),
            own: h1.c(2).ip_v6.unwrap(),
            gateway: h1.bridge.ip_v6.unwrap(),
            neighbour: h1.c(1).ip_v6.unwrap(),
            neighbour_mac: frame::mac(&docker_mac(h1.c(1).ip)),
        }
    }

    fn frame(&self, dst: Mac, packet: &Ipv6) -> Vec<u8> {
        frame::eth(dst, self.mac, frame::IPV6, &packet.bytes())
    }

    /// Claims of the gateway's address, each way that there is.
    fn claims(&self) -> Vec<(&'static str, Mac, Ipv6)> {
        let Self { mac, own, gateway, neighbour, neighbour_mac, .. } = *self;
        let link_local = "fe80::42:acff:fe11:3".parse().unwrap();
        let says = |src, dst| Ipv6::advertisement(src, dst, gateway, mac);
        vec![
            ("an answer", neighbour_mac, says(own, neighbour)),
            ("an answer from a link-local address", neighbour_mac, says(link_local, neighbour)),
            ("an answer from the gateway's", neighbour_mac, says(gateway, neighbour)),
            ("an answer to all", ALL_NODES_MAC, says(own, ALL_NODES)),
            ("a question in its name", neighbour_mac, Ipv6::solicitation(gateway, neighbour, neighbour, mac)),
        ]
    }
}

/// A frame, extension headers or not, whose message of neighbour discovery names the liar as the gateway.
fn claims(frame: &Frame, gateway: Ipv6Addr, mac: Mac) -> bool {
    let is_neighbour_discovery = frame.bytes.get(54..).is_some_and(|behind| {
        let message = if frame.bytes[20] == 60 { behind.get(8..) } else { Some(behind) };
        message.and_then(<[u8]>::first).is_some_and(|kind| matches!(kind, 135 | 136))
    });
    frame.bytes.get(12..14) == Some(&frame::IPV6.to_be_bytes())
        && is_neighbour_discovery
        && frame.contains(&gateway.octets())
        && frame.bytes.ends_with(&mac)
}

#[test]
fn nobody_is_the_gateway_but_the_bridge() {
    let topology = hosts(Versions::Both);
    gateway_stays(&topology, |packet| packet);
}

/// The kernel hears them behind a destination options header just as well (RFC 6980 forbids fragments only).
#[test]
fn nobody_is_the_gateway_behind_options_either() {
    let topology = hosts(Versions::V6);
    gateway_stays(&topology, |packet| packet.with_options());
}

fn gateway_stays(topology: &Topology, wrap: impl Fn(Ipv6) -> Ipv6) {
    let h1 = topology.h(1);
    let liar = Liar::new(h1);
    let (probes, mut account) = (Probes::start(topology), Account::of(h1));
    let sniffers = [Sniffer::everywhere(&h1.c(1).ns).unwrap(), Sniffer::on(&h1.ns, BRIDGE).unwrap()];
    for (name, dst, packet) in liar.claims() {
        let frames = vec![liar.frame(dst, &wrap(packet)); COUNT];
        account.send(name, &liar.injector, &frames, "gateway_claimed");
    }
    // What it may say of itself, it may.
    let own = Ipv6::advertisement(liar.own, liar.neighbour, liar.own, liar.mac);
    let own = liar.frame(liar.neighbour_mac, &own);
    account.send("its own", &liar.injector, std::slice::from_ref(&own), "");
    sniffers[0].await_count("its own arrives", 1, SOON, |f| f.bytes == own).unwrap();
    for (place, sniffer) in ["container 1", "docker0"].into_iter().zip(sniffers) {
        assert_none(place, sniffer.finish().unwrap(), |frame| claims(frame, liar.gateway, liar.mac));
    }
    let believed = h1.c(1).ns.ip(&format!("neigh show {} dev eth0", liar.gateway)).unwrap().stdout;
    assert!(believed.contains(&docker_mac(h1.bridge.ip)), "container 1 believes: {believed}");
    probes.clean();
    account.close();
}

/// Between containers of one bridge that is the bridge's affair, as with ARP. Traffic from other hosts goes on to whose
/// the address is.
#[test]
fn a_neighbours_traffic_does_not_go_to_who_claims_its_address() {
    let topology = hosts(Versions::Both);
    let h1 = topology.h(1);
    let liar = Liar::new(h1);
    let (probes, account) = (Probes::start(&topology), Account::of(h1));
    let stolen = Sniffer::on(&h1.c(2).ns, "eth0").unwrap();
    let bridge: Mac = h1.mac(BRIDGE).unwrap();
    for _ in 0..10 {
        for (dst, to) in [(bridge, liar.gateway), (ALL_NODES_MAC, ALL_NODES)] {
            let claim = Ipv6::advertisement(liar.own, to, liar.neighbour, liar.mac);
            liar.injector.send(&liar.frame(dst, &claim)).unwrap();
        }
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    probes.clean();
    // The probe's own words, in datagrams from host 2.
    assert_none("the liar", stolen.finish().unwrap(), |f| !f.outgoing && f.contains(b"overlayd"));
    assert!(h1.knows_v6(1) && h1.knows_v6(2));
    account.close();
}

/// A message of neighbour discovery is believed only with 255 hops left (RFC 4861 section 7.1), which a packet that came
/// through a router has not. The overlay is one, on the way in as well: a peer cannot say who lives on another host's
/// bridge, whatever it sends.
#[test]
fn no_neighbour_discovery_through_a_tunnel_is_believed() {
    let topology = hosts(Versions::Both);
    let (h1, h2) = (topology.h(1), topology.h(2));
    let (probes, mut account) = (Probes::start(&topology), Account::of(h1));
    let container = Sniffer::everywhere(&h1.c(1).ns).unwrap();
    let injector = Injector::open(topology.wire.ns().unwrap(), "h1").unwrap();
    let IpAddr::V6(nobody) = Version::V6.nobody(h2) else { panic!("an IPv6 address") };
    let (gateway, victim, mac) = (h1.bridge.ip_v6.unwrap(), h1.c(1).ip_v6.unwrap(), [2, 0, 0, 0, 0, 9]);
    for outer in VERSIONS {
        for (name, message) in [
            ("an answer", Ipv6::advertisement(nobody, victim, gateway, mac)),
            ("a question", Ipv6::solicitation(nobody, victim, victim, mac)),
        ] {
            for message in [message.with_options(), message] {
                let packet = neighbour_message(&topology, outer, &message);
                account.send(&format!("{name} over {outer:?}"), &injector, &vec![packet; COUNT], "");
            }
        }
    }
    // To the host's own address as well: what the bridge's neighbours are is the kernel's to find out.
    let claim = Ipv6::advertisement(nobody, gateway, victim, mac);
    let packet = neighbour_message(&topology, Version::V6, &claim);
    account.send("an answer to the host", &injector, &vec![packet; COUNT], "");
    let arrived = |f: &Frame| !f.outgoing && f.bytes.ends_with(&mac);
    container.await_count("all of them arrive", 8 * COUNT, SOON, arrived).unwrap();
    for (place, believed, mac) in [
        ("container 1", h1.c(1).ns.ip(&format!("neigh show {gateway} dev eth0")), docker_mac(h1.bridge.ip)),
        ("host 1", h1.ns.ip(&format!("neigh show {victim} dev {BRIDGE}")), docker_mac(h1.c(1).ip)),
    ] {
        let believed = believed.unwrap().stdout;
        assert!(believed.contains(&mac), "{place} believes: {believed}");
    }
    // Byte 7 of the IPv6 header.
    assert_none("container 1", container.finish().unwrap(), |f| arrived(f) && f.bytes[21] == 255);
    probes.clean();
    account.close();
}

/// No container is the gateway, by router advertisements neither (RFC 6105): one of high preference (RFC 4191) would
/// take its neighbours' default route.
#[test]
fn nobody_advertises_itself_as_a_router() {
    let topology = hosts(Versions::Both);
    let h1 = topology.h(1);
    let liar = Liar::new(h1);
    let (probes, mut account) = (Probes::start(&topology), Account::of(h1));
    let neighbour = Sniffer::everywhere(&h1.c(1).ns).unwrap();
    let link_local = "fe80::42:acff:fe11:3".parse().unwrap();
    let advertisement = Ipv6::router_advertisement(link_local, ALL_NODES, liar.mac);
    for packet in [advertisement.with_options(), advertisement] {
        let frames = vec![liar.frame(ALL_NODES_MAC, &packet); COUNT];
        account.send("a router's advertisement", &liar.injector, &frames, "gateway_claimed");
    }
    let routes = h1.c(1).ns.ip("-6 route show default").unwrap().stdout;
    assert!(!routes.contains("proto ra"), "container 1 has been told of another router: {routes}");
    assert_none("container 1", neighbour.finish().unwrap(), |frame| frame.bytes.ends_with(&liar.mac));
    probes.clean();
    account.close();
}
