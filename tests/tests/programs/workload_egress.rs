//! `workload_egress`: what containers send, on their bridge ports and on the bridge.

use std::collections::BTreeSet;

use overlay_common::{
    DropReason,
    map::{Direction::ToPeer, Endpoint, EndpointSource, Tunnel, program::WORKLOAD_EGRESS},
};

use overlay_user::datapath::map::Maps;

use crate::{
    bed::{moved_event, with_bed},
    case::{Case, REDIRECT, run_table},
    packet::{ARP, ICMP, IPV4, IPV6, Ipv4, TCP, UDP, at, eth, pattern, tcp, udp},
    skb::Context,
    world::{
        A, B, CONTAINER, CONTAINER_MAC, GATEWAY, GATEWAY_MAC, LISTEN_PORT, MTU, NEW, OTHER, OTHER_MAC,
        PORT_NUMBER, TO_HOST_MARK, dev, endpoint, endpoint_key, from_container, port, route_key, to_peer,
        tunnel,
    },
};

fn case(name: &str, packet: Vec<u8>) -> Case {
    Case::new(name, WORKLOAD_EGRESS, dev::PORT, packet)
}

/// The packet one hop later.
fn hop(ip: &Ipv4) -> Vec<u8> {
    Ipv4 { ttl: ip.ttl - 1, ..ip.clone() }.bytes()
}

/// A row for a packet that must reach a peer.
fn reaches(name: &str, peer: &crate::world::PeerHost, ip: &Ipv4) -> Case {
    case(name, from_container(ip)).tunnels(to_peer(peer, ip.tos, hop(ip))).counts(
        peer.id,
        ToPeer,
        1,
        ip.bytes().len(),
    )
}

#[test]
fn routed_packets_are_encapsulated() {
    let to_a = Ipv4::udp(CONTAINER, A.container);
    let full = Ipv4::sized(CONTAINER, A.container, MTU as usize);
    let bare = Ipv4 { protocol: ICMP, payload: Vec::new(), ..to_a.clone() };
    let mut padded = from_container(&bare);
    padded.resize(60, 0);
    let mut padded_inner = hop(&bare);
    padded_inner.resize(46, 0);
    let mut wrong_checksum = from_container(&to_a);
    wrong_checksum[at::OUTER_IP + 10] ^= 0x40;
    let mut wrong_checksum_inner = hop(&to_a);
    wrong_checksum_inner[10] ^= 0x40;
    run_table(&[
        reaches("to a peer with a VNI and port of its own", &A, &to_a),
        reaches("to a peer without VTEP MAC", &B, &Ipv4::udp(CONTAINER, B.container)),
        reaches("as large as the overlay MTU", &A, &full),
        reaches("TTL 2 becomes 1", &A, &Ipv4 { ttl: 2, ..to_a.clone() }),
        reaches("TTL 255", &A, &Ipv4 { ttl: 255, ..to_a.clone() }),
        reaches("without DF the outer DF stays", &A, &Ipv4 { flags_fragment: 0, ..to_a.clone() }),
        reaches("TCP", &A, &Ipv4 { protocol: TCP, payload: tcp(1, 2, 32, b"x"), ..to_a.clone() }),
        reaches("nothing but a header", &A, &bare),
        case("a minimal frame's padding travels along", padded)
            .tunnels(to_peer(&A, 0, padded_inner))
            .counts(A.id, ToPeer, 1, 46),
        case("a wrong checksum stays as wrong as it was", wrong_checksum)
            .tunnels(to_peer(&A, 0, wrong_checksum_inner))
            .counts(A.id, ToPeer, 1, 84),
    ]);
}

#[test]
fn the_longest_prefix_and_the_bridge() {
    let to_a = Ipv4::udp(CONTAINER, A.container);
    run_table(&[
        case("a longer prefix wins", from_container(&to_a))
            .with(|maps| {
                let mut route = maps.routes().unwrap()[0].1;
                (route.tunnel, route.peer) = (B.tunnel, B.id);
                maps.put_route(route_key(A.container, 32), route).unwrap();
            })
            .tunnels(to_peer(&B, 0, hop(&to_a)))
            .counts(B.id, ToPeer, 1, 84),
        reaches("from the bridge itself", &A, &to_a).on(dev::BRIDGE),
        case("from the bridge, whoever owns the address", from_container(&Ipv4::udp(OTHER, A.container)))
            .on(dev::BRIDGE)
            .tunnels(to_peer(&A, 0, hop(&Ipv4::udp(OTHER, A.container))))
            .counts(A.id, ToPeer, 1, 84),
    ]);
}

#[test]
fn every_ttl_leaves_a_right_checksum() {
    let cases: Vec<_> = (2..=255)
        .flat_map(|ttl| [ICMP, TCP, 255].map(|protocol| (ttl, protocol)))
        .map(|(ttl, protocol)| {
            let ip = Ipv4 { ttl, protocol, id: u16::from(ttl) * 257, ..Ipv4::udp(CONTAINER, A.container) };
            reaches(&format!("TTL {ttl}, protocol {protocol}"), &A, &ip)
        })
        .collect();
    run_table(&cases);
}

#[test]
fn dscp_and_ecn_are_copied_outwards() {
    let mut cases = Vec::new();
    for dscp in [0, 0x2e, 0x3f] {
        // RFC 6040 section 4.1, normal mode.
        for ecn in 0..4 {
            let ip = Ipv4 { tos: dscp << 2 | ecn, ..Ipv4::udp(CONTAINER, A.container) };
            cases.push(
                case(&format!("DSCP {dscp:#x}, ECN {ecn:#b}"), from_container(&ip))
                    .tunnels(to_peer(&A, dscp << 2 | ecn, hop(&ip)))
                    .counts(A.id, ToPeer, 1, 84),
            );
        }
    }
    run_table(&cases);
}

#[test]
fn what_is_not_ours_passes_untouched() {
    let to_a = Ipv4::udp(CONTAINER, A.container);
    let ip = to_a.bytes();
    let frame = from_container(&to_a);
    let arp = [0, 1, 8, 0, 6, 4, 0, 1].into_iter().chain(pattern(20)).collect::<Vec<_>>();
    run_table(&[
        case("no route", from_container(&Ipv4::udp(CONTAINER, [8, 8, 8, 8]))),
        case("to the gateway itself", from_container(&Ipv4::udp(CONTAINER, GATEWAY))),
        case("to a neighbour", from_container(&Ipv4::udp(CONTAINER, OTHER))),
        case("another MAC address, a router on the bridge", eth(OTHER_MAC, CONTAINER_MAC, IPV4, &ip)),
        case("a broadcast frame", eth([0xff; 6], CONTAINER_MAC, IPV4, &ip)),
        case("ARP", eth([0xff; 6], CONTAINER_MAC, ARP, &arp)),
        case("IPv6", eth(GATEWAY_MAC, CONTAINER_MAC, IPV6, &pattern(80))),
        case(
            "IPv4 in a VLAN tag",
            eth(GATEWAY_MAC, CONTAINER_MAC, 0x8100, &[&[0, 5, 8, 0], &ip[..]].concat()),
        ),
        case("IP options", from_container(&Ipv4 { options: vec![1; 4], ..to_a.clone() })),
        case("first fragment", from_container(&Ipv4 { flags_fragment: 0x2000, ..to_a.clone() })),
        case("later fragment", from_container(&Ipv4 { flags_fragment: 0x0001, ..to_a.clone() })),
        case("TTL 1", from_container(&Ipv4 { ttl: 1, ..to_a.clone() })),
        case("TTL 0", from_container(&Ipv4 { ttl: 0, ..to_a.clone() })),
        case("a byte over the MTU", from_container(&Ipv4::sized(CONTAINER, A.container, MTU as usize + 1))),
        case("trailing bytes over the MTU", [&frame[..], &pattern(1400)].concat()),
        case("an interface that is no port", frame.clone()).on(dev::STRAY),
        case("the uplink", frame.clone()).on(dev::UPLINK),
        case("a foreign mark", frame.clone())
            .mark(7)
            .tunnels(to_peer(&A, 0, hop(&to_a)))
            .counts(A.id, ToPeer, 1, 84),
    ]);
}

#[test]
fn malformed_packets_pass_untouched() {
    let to_a = Ipv4::udp(CONTAINER, A.container);
    let frame = from_container(&to_a);
    let mut version_6 = frame.clone();
    version_6[14] = 0x65;
    let mut short_ihl = frame.clone();
    short_ihl[14] = 0x44;
    let mut cases = vec![
        case("not version 4", version_6),
        case("a header length under 20", short_ihl),
        case(
            "total length under the header's",
            from_container(&Ipv4 { total_len: Some(19), ..to_a.clone() }),
        ),
        case("total length over the frame's", from_container(&Ipv4 { total_len: Some(85), ..to_a.clone() })),
    ];
    // The kernel builds no test packet shorter than an IP header after IPv4's EtherType.
    cases.extend((34..frame.len()).map(|len| case(&format!("cut to {len} bytes"), frame[..len].to_vec())));
    run_table(&cases);
}

#[test]
fn senders_are_held_to_their_own_addresses() {
    let from = |src| from_container(&Ipv4::udp(src, A.container));
    let spoofed = |name: &str, src| case(name, from(src)).drops(DropReason::SourceSpoofed);
    let claims_other = moved_event(dev::PORT, OTHER, CONTAINER_MAC);
    run_table(&[
        spoofed("outside the subnet", [172, 18, 0, 2]),
        spoofed("in a peer's subnet", B.container),
        spoofed("the unspecified address", [0; 4]),
        spoofed("another live port's address", OTHER).tells(claims_other.clone()),
        case("the gateway's address", from(GATEWAY)).drops(DropReason::GatewayClaimed),
        case("the gateway's address, which nobody entered", from(GATEWAY))
            .drops(DropReason::GatewayClaimed)
            .with(|maps| maps.delete_endpoint(endpoint_key(GATEWAY)).unwrap()),
        case("the gateway's address, on the bridge", from(GATEWAY))
            .drops(DropReason::GatewayClaimed)
            .on(dev::BRIDGE),
        spoofed("outside the subnet, on the bridge", [172, 18, 0, 2]).on(dev::BRIDGE),
        // Without a route it is none of our business what becomes of it, but the daemon hears of the claim.
        case("another's address, no route", from_container(&Ipv4::udp(OTHER, [8, 8, 8, 8])))
            .tells(claims_other),
        case("outside the subnet, no route", from_container(&Ipv4::udp([172, 18, 0, 2], [8, 8, 8, 8]))),
        case(
            "its own address from another MAC",
            eth(GATEWAY_MAC, OTHER_MAC, IPV4, &Ipv4::udp(CONTAINER, A.container).bytes()),
        )
        .drops(DropReason::SourceMacSpoofed)
        .tells(moved_event(dev::PORT, CONTAINER, OTHER_MAC)),
        case(
            "a new address from a multicast MAC",
            eth(GATEWAY_MAC, [1, 0, 0x5e, 0, 0, 1], IPV4, &Ipv4::udp(NEW, A.container).bytes()),
        )
        .drops(DropReason::SourceMacSpoofed),
    ]);
}

#[test]
fn no_container_sends_tunnel_packets_in_the_hosts_name() {
    let to = |dst, port| Ipv4 { payload: udp(50_000, port, &pattern(60)), ..Ipv4::udp(CONTAINER, dst) };
    let forged = |name: &str, ip: &Ipv4| case(name, from_container(ip)).drops(DropReason::TunnelForged);
    let to_peer_host = to(A.underlay, PORT_NUMBER);
    let listen = |maps: &mut Maps| maps.put_listen_port(LISTEN_PORT, 1).unwrap();
    run_table(&[
        forged("to a peer's host", &to_peer_host),
        forged("to another port that carries tunnels", &to(B.underlay, LISTEN_PORT)).with(listen),
        forged("its first fragment", &Ipv4 { flags_fragment: 0x2000, ..to_peer_host.clone() }),
        forged("with IP options", &Ipv4 { options: vec![1; 4], ..to_peer_host.clone() }),
        forged("with TTL 1", &Ipv4 { ttl: 1, ..to_peer_host.clone() }),
        forged("on the bridge", &to_peer_host).on(dev::BRIDGE),
        case("to a host that is no peer", from_container(&to([8, 8, 8, 8], PORT_NUMBER))),
        case("to another service on a peer's host", from_container(&to(A.underlay, 53))),
        case("TCP", from_container(&Ipv4 { protocol: TCP, ..to_peer_host.clone() })),
        // Where its first fragment does not arrive, this one is nothing.
        case("a later fragment", from_container(&Ipv4 { flags_fragment: 0x0010, ..to_peer_host })),
        reaches("to a container of a peer", &A, &to(A.container, PORT_NUMBER)),
    ]);
}

#[test]
fn a_route_without_tunnel_is_a_named_drop() {
    let frame = || from_container(&Ipv4::udp(CONTAINER, A.container));
    run_table(&[
        case("a free id", frame()).drops(DropReason::NoTunnel).with(|maps| {
            maps.put_tunnel(A.tunnel, Tunnel { template_len: 0, ..tunnel(&A) }).unwrap();
        }),
        case("an id beyond the table", frame()).drops(DropReason::NoTunnel).with(|maps| {
            let (key, mut route) = maps.routes().unwrap().into_iter().find(|(_, r)| r.peer == A.id).unwrap();
            route.tunnel = u32::MAX;
            maps.put_route(key, route).unwrap();
        }),
        // The sender is judged first.
        case("spoofed, too", from_container(&Ipv4::udp([1, 2, 3, 4], A.container)))
            .drops(DropReason::SourceSpoofed)
            .with(|maps| maps.put_tunnel(A.tunnel, Tunnel { template_len: 0, ..tunnel(&A) }).unwrap()),
    ]);
}

/// The aggregates of a test run have no type, and so the kernel refuses to make room in them: which of them
/// fit, `bridge_egress` tells apart by its drop reasons.
#[test]
fn what_the_kernel_refuses_to_encapsulate_passes_untouched() {
    let ip =
        |protocol, payload| from_container(&Ipv4 { protocol, payload, ..Ipv4::udp(CONTAINER, A.container) });
    let passes = |name: &str, packet, gso| case(name, packet).gso(gso, 2);
    run_table(&[
        passes("a TCP aggregate", ip(TCP, tcp(1, 2, 32, &pattern(2000))), 1000),
        passes("a UDP aggregate", ip(UDP, udp(1, 2, &pattern(2000))), 1000),
    ]);
}

#[test]
fn what_goes_up_to_the_host_is_left_alone_on_the_bridge() {
    let frame = || from_container(&Ipv4::udp(A.container, GATEWAY));
    let claims = || from_container(&Ipv4::udp(CONTAINER, A.container));
    let (ip, inner) = (Ipv4::udp(CONTAINER, A.container), hop(&Ipv4::udp(CONTAINER, A.container)));
    run_table(&[
        case("marked, on the bridge", frame()).on(dev::BRIDGE).mark(TO_HOST_MARK).mark_out(0),
        case("marked, to a peer, on the bridge", claims()).on(dev::BRIDGE).mark(TO_HOST_MARK).mark_out(0),
        case("another mark, on the bridge", frame()).on(dev::BRIDGE).mark(1),
        // Only the bridge is where `uplink_ingress` sends such packets.
        case("marked, on a port", claims()).mark(TO_HOST_MARK).tunnels(to_peer(&A, 0, inner)).counts(
            A.id,
            ToPeer,
            1,
            ip.bytes().len(),
        ),
    ]);
}

#[test]
fn one_flow_keeps_its_source_port_and_flows_spread() {
    with_bed(|bed| {
        let mut port_of = |src_port: u16, payload: usize| {
            let ip =
                Ipv4 { payload: udp(src_port, 80, &pattern(payload)), ..Ipv4::udp(CONTAINER, A.container) };
            let context = Context { ifindex: dev::PORT, ..Context::default() };
            let ran = bed.run(WORKLOAD_EGRESS, context, &from_container(&ip));
            assert_eq!(ran.verdict, REDIRECT);
            u16::from_be_bytes([ran.packet[at::OUTER_UDP], ran.packet[at::OUTER_UDP + 1]])
        };
        let mut ports = BTreeSet::new();
        for flow in 1000..1500 {
            let port = port_of(flow, 10);
            assert!((49152..=65535).contains(&port), "{port}");
            assert_eq!(port_of(flow, 500), port, "a flow's packets differ");
            ports.insert(port);
        }
        // 500 draws from 16,384: 492 distinct ones are to be expected.
        assert!(ports.len() > 450, "{} ports for 500 flows", ports.len());
        // All of the range, and not a corner of it.
        let quarters: BTreeSet<_> = ports.iter().map(|port| port >> 12).collect();
        assert_eq!(quarters.len(), 4, "{quarters:?}");
    });
}

#[test]
fn a_new_sender_reaches_the_peer_with_its_first_packet() {
    let ip = Ipv4::udp(NEW, A.container);
    let learned = |flags| Endpoint { flags, ..endpoint(dev::PORT, CONTAINER_MAC, EndpointSource::Spoken) };
    run_table(&[
        reaches("on a veth", &A, &ip).learns(NEW, learned(1)),
        reaches("on a port that is no veth", &A, &ip)
            .with(|maps| maps.put_port(dev::PORT, port(0)).unwrap())
            .learns(NEW, learned(0)),
        // The bridge cannot tell which port it is.
        reaches("on the bridge nothing is learned", &A, &ip).on(dev::BRIDGE),
    ]);
}
