//! Without a tunnel: packets go to a peer on the same link as they are, and come from there.

use overlay_common::{
    DropReason, Encap, Kinds,
    map::{
        Direction::{FromPeer, ToPeer},
        program::{UPLINK_INGRESS, UPLINK_KINDS, WORKLOAD_EGRESS},
    },
};
use overlay_user::datapath::map::Maps;

use crate::{
    case::{Case, run_table},
    packet::{IPV4, Ipv4, TCP, UDP, eth, pattern, tcp},
    world::{
        A, BROADCAST, CONTAINER, CONTAINER_MAC, GATEWAY, GATEWAY_MAC, NEW, UNDERLAY, UPLINK_MAC, dev,
        from_container, node, straight,
    },
};

fn no_tunnel_to_a(maps: &mut Maps) {
    maps.put_tunnel(A.tunnel, straight(&A)).unwrap();
}

fn takes_direct(maps: &mut Maps) {
    maps.put_node(node(Kinds::default().with(Encap::Direct))).unwrap();
}

fn out(name: &str, ip: &Ipv4) -> Case {
    Case::new(name, WORKLOAD_EGRESS, dev::PORT, from_container(ip)).with(no_tunnel_to_a)
}

/// A row for a packet that leaves as it is, one hop later; the kernel has yet to write the MAC addresses.
fn leaves(name: &str, ip: &Ipv4) -> Case {
    let hop = Ipv4 { ttl: ip.ttl - 1, ..ip.clone() }.bytes();
    out(name, ip).redirects(eth(GATEWAY_MAC, CONTAINER_MAC, IPV4, &hop)).counts(
        A.id,
        ToPeer,
        1,
        ip.bytes().len(),
    )
}

#[test]
fn packets_to_a_neighbour_leave_as_they_are() {
    let to_a = Ipv4::udp(CONTAINER, A.container);
    run_table(&[
        leaves("UDP", &to_a),
        leaves("TCP", &Ipv4 { protocol: TCP, payload: tcp(1, 2, 32, b"x"), ..to_a.clone() }),
        leaves("as large as the uplink's MTU", &Ipv4::sized(CONTAINER, A.container, 1500)),
        leaves("TOS stays", &Ipv4 { tos: 0xb9, ..to_a.clone() }),
        leaves("DF stays away", &Ipv4 { flags_fragment: 0, ..to_a.clone() }),
        out("an expiring TTL is the kernel's", &Ipv4 { ttl: 1, ..to_a.clone() }),
        out("a fragment is the kernel's", &Ipv4 { flags_fragment: 0x2000, ..to_a.clone() }),
        out("what is too large is the kernel's", &Ipv4::sized(CONTAINER, A.container, 1501)),
        out("the gateway's address", &Ipv4::udp(GATEWAY, A.container)).drops(DropReason::GatewayClaimed),
    ]);
}

/// A frame of a peer's container on the uplink.
fn came(ip: &Ipv4) -> Vec<u8> {
    eth(UPLINK_MAC, [0x02, 0, 0, 0, 0, 0x20], IPV4, &ip.bytes())
}

fn into(name: &str, ip: &Ipv4) -> Case {
    Case::new(name, UPLINK_KINDS, dev::UPLINK, came(ip)).with(takes_direct)
}

fn delivered(name: &str, ip: &Ipv4) -> Case {
    into(name, ip).redirects(eth(CONTAINER_MAC, GATEWAY_MAC, IPV4, &ip.bytes())).counts(
        A.id,
        FromPeer,
        1,
        ip.bytes().len(),
    )
}

#[test]
fn packets_of_peers_are_delivered() {
    let from_a = Ipv4::udp(A.container, CONTAINER);
    let fragment = Ipv4 { flags_fragment: 0x00b9, payload: pattern(64), ..from_a.clone() };
    run_table(&[
        delivered("UDP", &from_a),
        delivered("TCP", &Ipv4 { protocol: TCP, payload: tcp(1, 2, 32, b"x"), ..from_a.clone() }),
        delivered("1500 bytes", &Ipv4::sized(A.container, CONTAINER, 1500)),
        delivered("a fragment: nothing has to be put together to see where it goes", &fragment),
        into("to nobody's address in the subnet: asked for on the bridge", &Ipv4::udp(A.container, NEW))
            .redirects(came(&Ipv4::udp(A.container, NEW)))
            .counts(A.id, FromPeer, 1, from_a.bytes().len()),
        into("broadcast", &Ipv4::udp(A.container, BROADCAST)).drops(DropReason::InnerMulticast),
    ]);
}

/// The kernel's path is not taken from anybody: it judges.
#[test]
fn everything_else_passes_untouched() {
    let from_a = Ipv4::udp(A.container, CONTAINER);
    run_table(&[
        into("from nobody's container", &Ipv4::udp([10, 0, 0, 77], CONTAINER)),
        into("to another subnet", &Ipv4::udp(A.container, [192, 0, 2, 1])),
        into("to the host itself", &Ipv4 { protocol: UDP, ..Ipv4::udp(A.underlay, UNDERLAY) }),
        Case::new("where nobody was told that it may come so", UPLINK_KINDS, dev::UPLINK, came(&from_a)),
        Case::new("the program for tunnels leaves it alone", UPLINK_INGRESS, dev::UPLINK, came(&from_a))
            .with(takes_direct),
    ]);
}
