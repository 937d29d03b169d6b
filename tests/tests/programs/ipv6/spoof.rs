//! What a container may not say over IPv6, and what is learned from it.

use overlay_common::{
    DropReason,
    map::{Direction::ToPeer, EndpointSource, program::WORKLOAD_EGRESS},
};

use super::{
    packet::{Ipv6, addr},
    world::{
        B6, CONTAINER6, GATEWAY6, NEW6, OF_A, OF_B, OTHER6, SUBNET6, Via, endpoint_key6, fill,
        from_container6,
    },
};
use crate::{
    bed::moved_event_ip,
    case::{Case, run_table},
    packet::{IPV6, eth, pattern, udp},
    world::{CONTAINER_MAC, GATEWAY_MAC, OTHER_MAC, PORT_NUMBER, dev, endpoint, port},
};

const ALL_NODES: [u8; 16] = addr([0xff02, 0, 0, 0, 0, 0, 0, 1]);
const LINK_LOCAL: [u8; 16] = addr([0xfe80, 0, 0, 0, 0, 0, 0, 2]);

fn case(name: &str, packet: Vec<u8>) -> Case {
    Case::new(name, WORKLOAD_EGRESS, dev::PORT, packet).with(|maps| fill(maps).unwrap())
}

#[test]
fn senders_are_held_to_their_own_addresses() {
    let from = |src| from_container6(&Ipv6::udp(src, OF_B));
    let spoofed = |name: &str, src| case(name, from(src)).drops(DropReason::SourceSpoofed);
    run_table(&[
        spoofed("outside the subnet", addr([0xfd18, 0, 0, 0, 0, 0, 0, 2])),
        spoofed("in a peer's subnet", OF_A),
        spoofed("unspecified", [0; 16]),
        spoofed("link-local, which no router forwards", LINK_LOCAL),
        spoofed("v4-mapped", addr([0, 0, 0, 0, 0, 0xffff, 0xac11, 2])),
        spoofed("the subnet-router anycast address", SUBNET6),
        spoofed("another live port's address", OTHER6).tells(moved_event_ip(
            dev::PORT,
            OTHER6,
            CONTAINER_MAC,
        )),
        case("the gateway's address", from(GATEWAY6)).drops(DropReason::GatewayClaimed),
        case(
            "its own address from another MAC",
            eth(GATEWAY_MAC, OTHER_MAC, IPV6, &Ipv6::udp(CONTAINER6, OF_B).bytes()),
        )
        .drops(DropReason::SourceMacSpoofed)
        .tells(moved_event_ip(dev::PORT, CONTAINER6, OTHER_MAC)),
        case(
            "the gateway's MAC address",
            eth(GATEWAY_MAC, GATEWAY_MAC, IPV6, &Ipv6::udp(CONTAINER6, OF_B).bytes()),
        )
        .drops(DropReason::GatewayClaimed),
    ]);
}

#[test]
fn whoever_speaks_is_learned() {
    let spoken = || endpoint(dev::PORT, CONTAINER_MAC, EndpointSource::Spoken);
    let new = Ipv6::udp(NEW6, OF_B);
    let hop = Ipv6 { hop_limit: 63, ..new.clone() }.bytes();
    let solicits = Ipv6::neighbour(135, NEW6, addr([0xff02, 0, 0, 0, 0, 1, 0xff00, 1]), GATEWAY6);
    let multicast = [0x33, 0x33, 0xff, 0, 0, 1];
    run_table(&[
        case("towards a peer", from_container6(&new))
            .tunnels(Via::V6OverV6.outgoing(0, &hop))
            .counts(2, ToPeer, 1, 104)
            .learns_key(endpoint_key6(NEW6), spoken()),
        case("as it asks for its gateway", eth(multicast, CONTAINER_MAC, IPV6, &solicits.bytes()))
            .learns_key(endpoint_key6(NEW6), spoken()),
        case("as it looks whether its address is free", {
            let probe = Ipv6::neighbour(135, [0; 16], addr([0xff02, 0, 0, 0, 0, 1, 0xff00, 0x77]), NEW6);
            eth(multicast, CONTAINER_MAC, IPV6, &probe.bytes())
        }),
        case("from a link-local address", from_container6(&Ipv6::udp(LINK_LOCAL, GATEWAY6))),
    ]);
}

#[test]
fn nobody_is_the_gateway_but_the_bridge() {
    let frame = |ip: &Ipv6| eth([0x33, 0x33, 0, 0, 0, 1], CONTAINER_MAC, IPV6, &ip.bytes());
    let claims = |name: &str, ip: &Ipv6| {
        case(name, eth([0x33, 0x33, 0, 0, 0, 1], CONTAINER_MAC, IPV6, &ip.bytes()))
            .drops(DropReason::GatewayClaimed)
    };
    let passes =
        |name: &str, ip: &Ipv6| case(name, eth([0x33, 0x33, 0, 0, 0, 1], CONTAINER_MAC, IPV6, &ip.bytes()));
    let claim = Ipv6::neighbour(136, CONTAINER6, ALL_NODES, GATEWAY6);
    let behind = |kind: u8, ip: &Ipv6| {
        let payload = [&[ip.next_header, 0, 1, 4, 0, 0, 0, 0], &ip.payload[..]].concat();
        Ipv6 { next_header: kind, payload, ..ip.clone() }
    };
    run_table(&[
        claims("advertises it to all", &Ipv6::neighbour(136, CONTAINER6, ALL_NODES, GATEWAY6)),
        claims(
            "advertises it from a link-local address",
            &Ipv6::neighbour(136, LINK_LOCAL, ALL_NODES, GATEWAY6),
        ),
        claims("asks as if it were", &Ipv6::neighbour(135, GATEWAY6, ALL_NODES, OTHER6)),
        claims("on the bridge", &Ipv6::neighbour(136, CONTAINER6, ALL_NODES, GATEWAY6)).on(dev::BRIDGE),
        claims("behind destination options", &behind(60, &claim)),
        claims("behind hop-by-hop options", &behind(0, &claim)),
        claims("behind a routing header", &behind(43, &claim)),
        claims("behind several", &behind(0, &behind(43, &behind(60, &claim)))),
        case("behind more than anybody sends", frame(&(0..8).fold(claim.clone(), |ip, _| behind(60, &ip))))
            .drops(DropReason::ExtensionChain),
        claims("as a router", &Ipv6::neighbour(134, LINK_LOCAL, ALL_NODES, [0; 16])),
        claims(
            "as a router, behind options",
            &behind(60, &Ipv6::neighbour(134, LINK_LOCAL, ALL_NODES, [0; 16])),
        ),
        passes("asks for routers", &Ipv6::neighbour(133, LINK_LOCAL, ALL_NODES, [0; 16])),
        passes("with a hop limit that no kernel believes", &Ipv6 { hop_limit: 254, ..claim.clone() }),
        passes("in a fragment, which no kernel believes", &behind(44, &claim)),
        passes("advertises its own", &Ipv6::neighbour(136, CONTAINER6, ALL_NODES, CONTAINER6)),
        passes("asks for the gateway", &Ipv6::neighbour(135, CONTAINER6, ALL_NODES, GATEWAY6)),
        passes("looks whether its address is free", &Ipv6::neighbour(135, [0; 16], ALL_NODES, CONTAINER6)),
        passes(
            "the same, where the bridge has no IPv6",
            &Ipv6::neighbour(135, [0; 16], ALL_NODES, CONTAINER6),
        )
        .with(|maps| maps.put_port(dev::PORT, port(0)).unwrap()),
        passes("a link-local address", &Ipv6::neighbour(136, LINK_LOCAL, ALL_NODES, LINK_LOCAL)),
    ]);
}

#[test]
fn no_container_sends_tunnel_packets_in_the_hosts_name() {
    let to = |dst, port| Ipv6 { payload: udp(50_000, port, &pattern(60)), ..Ipv6::udp(CONTAINER6, dst) };
    let forged = |name: &str, ip: &Ipv6| case(name, from_container6(ip)).drops(DropReason::TunnelForged);
    let first = |offset: u8| {
        let payload = [&[17, 0, 0, offset, 0, 0, 0, 7], &to(B6, PORT_NUMBER).payload[..]].concat();
        Ipv6 { next_header: 44, payload, ..to(B6, PORT_NUMBER) }
    };
    let behind = |kind: u8, ip: &Ipv6| {
        let payload = [&[ip.next_header, 0, 1, 4, 0, 0, 0, 0], &ip.payload[..]].concat();
        Ipv6 { next_header: kind, payload, ..ip.clone() }
    };
    let hidden = |ip: &Ipv6| (0..8).fold(ip.clone(), |ip, _| behind(60, &ip));
    let elsewhere = to(addr([0x2001, 0, 0, 0, 0, 0, 0, 1]), PORT_NUMBER);
    run_table(&[
        forged("behind destination options", &behind(60, &to(B6, PORT_NUMBER))),
        forged("behind several headers", &behind(0, &behind(43, &behind(60, &to(B6, PORT_NUMBER))))),
        forged("its first fragment, behind options", &behind(60, &first(1))),
        case("behind more than anybody sends", from_container6(&hidden(&to(B6, PORT_NUMBER))))
            .drops(DropReason::ExtensionChain),
        case("behind as many, to a host that is no peer", from_container6(&hidden(&elsewhere))),
        case("behind options, to another service there", from_container6(&behind(60, &to(B6, 53)))),
        forged("to a peer's host", &to(B6, PORT_NUMBER)),
        forged("its first fragment", &first(1)),
        case("a later fragment", from_container6(&first(9))),
        case("to another service there", from_container6(&to(B6, 53))),
        case(
            "to a host that is no peer",
            from_container6(&to(addr([0x2001, 0, 0, 0, 0, 0, 0, 1]), PORT_NUMBER)),
        ),
    ]);
}
