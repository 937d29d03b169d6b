//! `bridge_egress`: what the kernel routes into the overlay.

use overlay_common::{
    DropReason,
    map::{Direction::ToPeer, Tunnel, TunnelDevice, program::BRIDGE_EGRESS},
};
use overlay_user::datapath::map::Maps;

use crate::{
    case::{Case, run_table},
    packet::{ARP, IPV4, Ipv4, TCP, UDP, eth, pattern, tcp, udp},
    world::{
        A, B, CONTAINER, CONTAINER_MAC, GATEWAY, GATEWAY_MAC, MTU, OVERLAY_NEIGHBOUR, PeerHost, TO_HOST_MARK,
        UNDERLAY, VTEP_MAC, dev, from_host, route_key, to_peer, tunnel,
    },
};

fn case(name: &str, packet: Vec<u8>) -> Case {
    Case::new(name, BRIDGE_EGRESS, dev::BRIDGE, packet)
}

/// A row for a packet that must reach a peer as it is: routing has taken the TTL already.
fn reaches(name: &str, peer: &PeerHost, ip: &Ipv4) -> Case {
    let bytes = ip.bytes();
    let len = bytes.len();
    case(name, from_host(ip)).tunnels(to_peer(peer, ip.tos, bytes)).counts(peer.id, ToPeer, 1, len)
}

#[test]
fn what_the_kernel_routes_to_a_peer_is_encapsulated_as_it_is() {
    let to_a = Ipv4::udp(GATEWAY, A.container);
    run_table(&[
        reaches("the host's own", &A, &to_a),
        reaches("to a peer without VTEP MAC", &B, &Ipv4::udp(GATEWAY, B.container)),
        reaches("forwarded for a container", &A, &Ipv4::udp(CONTAINER, A.container)),
        reaches("TTL 1", &A, &Ipv4 { ttl: 1, ..to_a.clone() }),
        reaches("a fragment", &A, &Ipv4 { flags_fragment: 0x2005, ..to_a.clone() }),
        reaches("IP options", &A, &Ipv4 { options: vec![1; 8], ..to_a.clone() }),
        reaches("as large as the overlay MTU", &A, &Ipv4::sized(GATEWAY, A.container, MTU as usize)),
        reaches("DSCP and ECN", &A, &Ipv4 { tos: 0xb9, ..to_a.clone() }),
        reaches("congestion experienced", &A, &Ipv4 { tos: 0x03, ..to_a.clone() }),
        // Marks are the host's affair on this hook.
        reaches("marked", &A, &to_a).mark(TO_HOST_MARK),
    ]);
}

#[test]
fn what_goes_to_the_bridges_own_neighbours_passes_untouched() {
    let ip = Ipv4::udp(GATEWAY, A.container).bytes();
    run_table(&[
        case("a container's MAC address", eth(CONTAINER_MAC, GATEWAY_MAC, IPV4, &ip)),
        case("broadcast", eth([0xff; 6], GATEWAY_MAC, IPV4, &ip)),
        case("ARP for the neighbour", eth(OVERLAY_NEIGHBOUR, GATEWAY_MAC, ARP, &pattern(28))),
        case("a device that is no port", eth(OVERLAY_NEIGHBOUR, GATEWAY_MAC, IPV4, &ip)).on(dev::STRAY),
    ]);
}

#[test]
fn what_no_peer_would_take_is_a_named_drop() {
    let to_a = Ipv4::udp(GATEWAY, A.container);
    let drops = |name: &str, ip: &Ipv4, reason| case(name, from_host(ip)).drops(reason);
    let no_tunnel = |maps: &mut Maps| {
        maps.put_tunnel(A.tunnel, Tunnel { template_len: 0, ..tunnel(&A) }).unwrap();
    };
    let larger = Ipv4::sized(GATEWAY, A.container, MTU as usize + 1);
    let trailing = [from_host(&to_a), pattern(1400)].concat();
    let mut truncated = from_host(&to_a);
    truncated.truncate(60);
    // The aggregate that has no total length is one of BIG TCP; alone it is no packet.
    let no_length = Ipv4 { total_len: Some(0), ..to_a.clone() };
    run_table(&[
        drops("no route", &Ipv4::udp(GATEWAY, [9, 9, 9, 9]), DropReason::NoRoute),
        drops("the route is gone", &to_a, DropReason::NoRoute)
            .with(|maps| maps.delete_route(route_key(A.subnet, 16)).unwrap()),
        drops("from the uplink's address", &Ipv4::udp(UNDERLAY, A.container), DropReason::SourceSpoofed),
        drops("forwarded from a peer", &Ipv4::udp(B.container, A.container), DropReason::SourceSpoofed),
        drops("no route is told first", &Ipv4::udp(UNDERLAY, [9, 9, 9, 9]), DropReason::NoRoute),
        drops("no tunnel", &to_a, DropReason::NoTunnel).with(no_tunnel),
        drops("a byte over the MTU", &larger, DropReason::MtuExceeded),
        case("trailing bytes over the MTU", trailing).drops(DropReason::MtuExceeded),
        case("shorter than it says", truncated).drops(DropReason::InnerMalformed),
        drops("no total length", &no_length, DropReason::InnerMalformed),
    ]);
}

#[test]
fn what_the_kernel_refuses_goes_through_the_tunnel_device() {
    let device = |ifindex| {
        move |maps: &mut Maps| {
            maps.put_tunnel_device(A.port.into(), TunnelDevice { ifindex, flags: 0 }).unwrap()
        }
    };
    let ip = Ipv4 {
        tos: 0xb9,
        ..Ipv4 { protocol: TCP, payload: tcp(1, 2, 20, &pattern(2800)), ..Ipv4::udp(GATEWAY, A.container) }
    };
    let bytes = ip.bytes();
    // The device puts the outer headers on; the inner Ethernet header is the VTEPs'.
    let inner = eth(A.vtep_mac, VTEP_MAC, IPV4, &bytes);
    let refused = |name: &str| case(name, from_host(&ip)).gso(MTU - 40, 3);
    run_table(&[
        refused("to the device of the tunnel's port").with(device(dev::STRAY)).redirects(inner).counts(
            A.id,
            ToPeer,
            3,
            bytes.len(),
        ),
        refused("no device").drops(DropReason::EncapFailed),
        refused("the port is another device's").with(device(0)).drops(DropReason::EncapFailed),
    ]);
}

/// The aggregates of a test run have no type, and so the kernel refuses to make room even in those that fit:
/// "encap_failed" says that the program found nothing wrong with the size.
#[test]
fn aggregates_are_measured_by_the_segment() {
    let ip = |protocol, payload| Ipv4 { protocol, payload, ..Ipv4::udp(GATEWAY, A.container) };
    let tcp = |header_len| ip(TCP, tcp(1, 2, header_len, &pattern(2800)));
    let udp = ip(UDP, udp(1, 2, &pattern(2800)));
    let fits =
        |name: &str, ip: &Ipv4, gso| case(name, from_host(ip)).gso(gso, 3).drops(DropReason::EncapFailed);
    let exceeds =
        |name: &str, ip: &Ipv4, gso| case(name, from_host(ip)).gso(gso, 3).drops(DropReason::MtuExceeded);
    run_table(&[
        fits("TCP segments as large as the MTU", &tcp(20), MTU - 40),
        exceeds("TCP segments a byte larger", &tcp(20), MTU - 39),
        fits("TCP options count", &tcp(32), MTU - 52),
        exceeds("TCP options, a byte larger", &tcp(32), MTU - 51),
        fits("the longest TCP header", &tcp(60), MTU - 80),
        exceeds("the longest TCP header, a byte larger", &tcp(60), MTU - 79),
        fits("UDP datagrams as large as the MTU", &udp, MTU - 28),
        exceeds("UDP datagrams a byte larger", &udp, MTU - 27),
        // What cannot be measured the kernel has measured.
        fits("an aggregate of we know not what", &ip(132, pattern(2800)), 100),
        fits("an aggregate with IP options", &Ipv4 { options: vec![1; 8], ..tcp(20) }, 100),
        fits("an aggregate whose TCP header is cut off", &ip(TCP, pattern(12)), 100),
    ]);
}
