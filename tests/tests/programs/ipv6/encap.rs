//! Into the overlay: what leaves for a peer, from a container and from the host.

use overlay_common::{
    DropReason,
    map::{
        Direction::ToPeer,
        Hop, MAX_HOPS, Tunnel,
        program::{BRIDGE_EGRESS, WORKLOAD_EGRESS},
        tunnel_flag,
    },
};

use super::{
    packet::{ICMPV6, Ipv6},
    world::{
        CONTAINER6, GATEWAY6, MTU6, NEW6, OF_A, OF_B, V4_OF_B, Via, fill, from_container6, from_host6, key6,
    },
};
use crate::{
    case::{Case, run_table},
    packet::{IPV6, Ipv4, TCP, eth, pattern, tcp},
    world::{
        CONTAINER, CONTAINER_MAC, GATEWAY, GATEWAY_MAC, MTU, OTHER_MAC, dev, from_container, from_host, port,
    },
};

fn case(name: &str, packet: Vec<u8>) -> Case {
    Case::new(name, WORKLOAD_EGRESS, dev::PORT, packet).with(|maps| fill(maps).unwrap())
}

fn host(name: &str, packet: Vec<u8>) -> Case {
    Case::new(name, BRIDGE_EGRESS, dev::BRIDGE, packet).with(|maps| fill(maps).unwrap())
}

/// The packet one hop later.
fn hop(ip: &Ipv6) -> Vec<u8> {
    Ipv6 { hop_limit: ip.hop_limit - 1, ..ip.clone() }.bytes()
}

/// A row for a packet that must reach a peer.
fn reaches(name: &str, via: Via, ip: &Ipv6) -> Case {
    let len = ip.bytes().len();
    case(name, from_container6(ip)).tunnels(via.outgoing(ip.class, &hop(ip))).counts(
        via.peer().id,
        ToPeer,
        1,
        len,
    )
}

#[test]
fn either_version_over_either_version() {
    let (to_a, to_b) = (Ipv6::udp(CONTAINER6, OF_A), Ipv6::udp(CONTAINER6, OF_B));
    let v4 = Ipv4::udp(CONTAINER, V4_OF_B);
    let v4_hop = Ipv4 { ttl: 63, ..v4.clone() }.bytes();
    let (b, v6_in_v6) = (Via::V4OverV6.peer().id, Via::V6OverV6);
    let from_gateway = Ipv6::udp(GATEWAY6, OF_B);
    let v4_from_gateway = Ipv4::udp(GATEWAY, V4_OF_B);
    run_table(&[
        reaches("IPv6 over IPv4", Via::V6OverV4, &to_a),
        reaches("IPv6 over IPv6", v6_in_v6, &to_b),
        case("IPv4 over IPv6", from_container(&v4))
            .tunnels(Via::V4OverV6.outgoing(0, &v4_hop))
            .counts(b, ToPeer, 1, 84),
        host("the host's, IPv6 over IPv4", from_host6(&Ipv6::udp(GATEWAY6, OF_A)))
            .tunnels(Via::V6OverV4.outgoing(0, &Ipv6::udp(GATEWAY6, OF_A).bytes()))
            .counts(1, ToPeer, 1, 104),
        host("the host's, IPv6 over IPv6", from_host6(&from_gateway))
            .tunnels(v6_in_v6.outgoing(0, &from_gateway.bytes()))
            .counts(b, ToPeer, 1, 104),
        host("the host's, IPv4 over IPv6", from_host(&v4_from_gateway))
            .tunnels(Via::V4OverV6.outgoing(0, &v4_from_gateway.bytes()))
            .counts(b, ToPeer, 1, 84),
        reaches("a flow label stays inside", v6_in_v6, &Ipv6 { flow_label: 0xabcde, ..to_b.clone() }),
        reaches("hop limit 2 becomes 1", v6_in_v6, &Ipv6 { hop_limit: 2, ..to_b.clone() }),
        reaches("as large as the MTU over IPv6", v6_in_v6, &Ipv6::sized(CONTAINER6, OF_B, MTU6 as usize)),
        reaches("as large as the MTU over IPv4", Via::V6OverV4, &Ipv6::sized(CONTAINER6, OF_A, MTU as usize)),
        reaches("ICMPv6", v6_in_v6, &Ipv6 { next_header: ICMPV6, ..to_b.clone() }),
        reaches("no next header", v6_in_v6, &Ipv6 { next_header: 59, payload: vec![], ..to_b.clone() }),
        case("on the bridge itself", from_container6(&to_b))
            .on(dev::BRIDGE)
            .tunnels(v6_in_v6.outgoing(0, &hop(&to_b)))
            .counts(b, ToPeer, 1, 104),
    ]);
}

#[test]
fn the_traffic_class_is_copied_outwards() {
    let mut cases = Vec::new();
    for class in [0x01, 0x02, 0x03, 0xb8, 0xbb, 0xff] {
        for (via, dst) in [(Via::V6OverV4, OF_A), (Via::V6OverV6, OF_B)] {
            let ip = Ipv6 { class, ..Ipv6::udp(CONTAINER6, dst) };
            cases.push(reaches(&format!("{via:?}, class {class:#x}"), via, &ip));
        }
        let ip = Ipv4 { tos: class, ..Ipv4::udp(CONTAINER, V4_OF_B) };
        let hop = Ipv4 { ttl: 63, ..ip.clone() }.bytes();
        cases.push(
            case(&format!("IPv4 over IPv6, TOS {class:#x}"), from_container(&ip))
                .tunnels(Via::V4OverV6.outgoing(class, &hop))
                .counts(2, ToPeer, 1, 84),
        );
    }
    run_table(&cases);
}

#[test]
fn a_syn_is_clamped_to_what_the_tunnel_carries() {
    let syn = |mss: u16| {
        let mut segment = tcp(1000, 80, 24, &[]);
        segment[13] = 0x02;
        segment[20..22].copy_from_slice(&[2, 4]);
        segment[22..24].copy_from_slice(&mss.to_be_bytes());
        segment
    };
    // The checksum of the segment is zero, and RFC 1624 moves it by the difference of the words.
    let clamped = |from: u16, to: u16| {
        let mut segment = syn(to);
        let sum = u32::from(!0_u16) + u32::from(!from) + u32::from(to);
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = ((sum & 0xffff) + (sum >> 16)) as u16;
        segment[16..18].copy_from_slice(&(!sum).to_be_bytes());
        segment
    };
    let with = |dst, payload| Ipv6 { next_header: TCP, payload, ..Ipv6::udp(CONTAINER6, dst) };
    let mut cases = Vec::new();
    for (via, dst) in [(Via::V6OverV4, OF_A), (Via::V6OverV6, OF_B)] {
        let most = (via.mtu() - 60) as u16;
        cases.push(
            case(&format!("{via:?}: too large"), from_container6(&with(dst, syn(1440))))
                .tunnels(via.outgoing(0, &hop(&with(dst, clamped(1440, most)))))
                .counts(via.peer().id, ToPeer, 1, 64),
        );
        cases.push(reaches(&format!("{via:?}: it fits"), via, &with(dst, syn(most))));
    }
    run_table(&cases);
}

#[test]
fn what_the_kernel_has_to_answer_is_left_to_it() {
    let to_b = Ipv6::udp(CONTAINER6, OF_B);
    let extension =
        |next_header| Ipv6 { next_header, payload: vec![17, 0, 0, 0, 0, 0, 0, 0], ..to_b.clone() };
    let mut cases = vec![
        case(
            "no route",
            from_container6(&Ipv6::udp(CONTAINER6, super::packet::addr([0x2001, 0, 0, 0, 0, 0, 0, 1]))),
        ),
        case("to the gateway", from_container6(&Ipv6::udp(CONTAINER6, GATEWAY6))),
        case("hop limit 1", from_container6(&Ipv6 { hop_limit: 1, ..to_b.clone() })),
        case("hop limit 0", from_container6(&Ipv6 { hop_limit: 0, ..to_b.clone() })),
        case("a byte over the MTU", from_container6(&Ipv6::sized(CONTAINER6, OF_B, MTU6 as usize + 1))),
        case("another MAC address", eth(OTHER_MAC, CONTAINER_MAC, IPV6, &to_b.bytes())),
        case("trailing bytes over the MTU", [from_container6(&to_b), pattern(1400)].concat()),
        case("a bridge without an IPv6 subnet, no route", from_container6(&to_b)).with(|maps| {
            maps.put_port(dev::PORT, port(0)).unwrap();
            maps.delete_route(key6(OF_B, 64)).unwrap();
        }),
    ];
    cases.extend(
        [0, 43, 44, 60, 135].map(|n| case(&format!("extension {n}"), from_container6(&extension(n)))),
    );
    let frame = from_container6(&to_b);
    // The kernel builds no test packet shorter than an IP header after IPv6's EtherType.
    cases.extend((54..frame.len()).map(|len| case(&format!("cut to {len} bytes"), frame[..len].to_vec())));
    run_table(&cases);
}

#[test]
fn the_slow_path_takes_what_the_fast_path_declined() {
    let fragment = Ipv6 {
        next_header: 44,
        payload: [&[17, 0, 0, 1, 0, 0, 0, 7], &pattern(48)[..]].concat(),
        ..Ipv6::udp(CONTAINER6, OF_B)
    };
    let oversize = Ipv6::sized(CONTAINER6, OF_B, MTU6 as usize + 1);
    let stranger = Ipv6::udp(OF_A, OF_B);
    let drops = |name: &str, ip: &Ipv6, reason| host(name, from_host6(ip)).drops(reason);
    run_table(&[
        host("a fragment", from_host6(&fragment))
            .tunnels(Via::V6OverV6.outgoing(0, &fragment.bytes()))
            .counts(2, ToPeer, 1, 96),
        drops("a byte over the MTU", &oversize, DropReason::MtuExceeded),
        drops("a source that is not ours", &stranger, DropReason::SourceSpoofed),
        drops("no route", &Ipv6::udp(GATEWAY6, NEW6), DropReason::NoRoute),
        drops(
            "malformed",
            &Ipv6 { payload_len: Some(999), ..Ipv6::udp(GATEWAY6, OF_B) },
            DropReason::InnerMalformed,
        ),
        host("the bridge's own neighbour", eth(CONTAINER_MAC, GATEWAY_MAC, IPV6, &oversize.bytes())),
    ]);
}

/// A test run tells no redirect's target, but there must be one whatever the hash.
#[test]
fn every_hop_is_a_way() {
    let with = |name: &str, next_hop| {
        let hops = [Hop { uplink: dev::UPLINK, next_hop }; MAX_HOPS];
        reaches(name, Via::V6OverV6, &Ipv6::udp(CONTAINER6, OF_B)).with(move |maps| {
            maps.put_tunnel(Via::V6OverV6.id(), Tunnel { hops, ..Via::V6OverV6.tunnel() }).unwrap();
        })
    };
    run_table(&[
        with(
            "a gateway",
            overlay_common::addr::MapIp::new(super::packet::addr([0xfe80, 0, 0, 0, 0, 0, 0, 1])),
        ),
        with("the peer itself", Via::V6OverV6.tunnel().remote),
    ]);
}

/// Where the peer wants UDP checksums the tunnel device makes them; without one there is no way.
#[test]
fn a_checksum_is_the_tunnel_devices_affair() {
    let to_b = Ipv6::udp(CONTAINER6, OF_B);
    let wanted = |maps: &mut overlay_user::datapath::map::Maps| {
        let tunnel = Via::V6OverV6.tunnel();
        let tunnel = Tunnel { flags: tunnel.flags | tunnel_flag::UDP_CHECKSUM, ..tunnel };
        maps.put_tunnel(Via::V6OverV6.id(), tunnel).unwrap();
    };
    let device = |maps: &mut overlay_user::datapath::map::Maps| {
        let entry = overlay_common::map::TunnelDevice { ifindex: dev::STRAY, flags: 0 };
        maps.put_tunnel_device(u32::from(Via::V6OverV6.peer().port), entry).unwrap();
    };
    let frame = eth(Via::V6OverV6.peer().vtep_mac, crate::world::VTEP_MAC, IPV6, &hop(&to_b));
    run_table(&[
        case("through the device", from_container6(&to_b))
            .with(wanted)
            .with(device)
            .redirects(frame)
            .counts(2, ToPeer, 1, 104),
        reaches("a peer that takes none", Via::V6OverV6, &to_b).with(device),
    ]);
}
