//! Out of the overlay: what peers send, decapsulated in tc and in XDP.

use overlay_common::{
    DropReason,
    map::{Direction::FromPeer, Endpoint, EndpointSource, program::UPLINK_INGRESS},
};

use super::{
    packet::{ICMPV6, Ipv6, addr},
    world::{
        B6, CONTAINER6, GATEWAY6, NEW6, OF_A, OF_B, OTHER6, UNDERLAY6, V4_OF_B, Via, delivered,
        endpoint_key6, fill, key6,
    },
};
use crate::{
    bed::has_decap_across,
    case::{Case, run_table as run_in_tc},
    packet::{IPV4, IPV6, Ipv4, UDP, eth},
    uplink_decap::run_in_xdp,
    world::{
        CONTAINER, CONTAINER_MAC, FROM_UPLINK_MARK, GATEWAY_MAC, OTHER_MAC, OVERLAY_NEIGHBOUR, PORT_NUMBER,
        TO_HOST_MARK, UPLINK_MAC, dev, endpoint,
    },
};

/// Both places to decapsulate judge alike.
fn run_table(cases: &[Case]) {
    run_in_tc(cases);
    run_in_xdp(cases);
}

/// Rows whose outer IP version is not the inner one. Before Linux 6.3 `bpf_skb_adjust_room` cannot strip those: in tc, and
/// unless they are dropped, they are the tunnel device's. XDP needs no such helper.
fn run_across(cases: Vec<Case>) {
    run_in_xdp(&cases);
    if has_decap_across() {
        return run_in_tc(&cases);
    }
    let (dropped, taken): (Vec<_>, Vec<_>) = cases.into_iter().partition(|case| case.drop.is_some());
    run_in_tc(&dropped);
    let left =
        taken.into_iter().map(|row| case(&row.name, row.packet).with(device).mark_out(FROM_UPLINK_MARK));
    run_in_tc(&left.collect::<Vec<_>>());
}

/// Our tunnel device has the port.
fn device(maps: &mut overlay_user::datapath::map::Maps) {
    let entry = overlay_common::map::TunnelDevice { ifindex: dev::STRAY, flags: 0 };
    maps.put_tunnel_device(u32::from(PORT_NUMBER), entry).unwrap();
}

fn case(name: &str, packet: Vec<u8>) -> Case {
    Case::new(name, UPLINK_INGRESS, dev::UPLINK, packet).with(|maps| fill(maps).unwrap())
}

fn from_b(dst: [u8; 16]) -> Ipv6 {
    Ipv6::udp(OF_B, dst)
}

/// A row for a packet of B's, over IPv6.
fn row(name: &str, ip: &Ipv6) -> Case {
    case(name, Via::V6OverV6.incoming(&ip.bytes()))
}

fn arrives(name: &str, ip: &Ipv6) -> Case {
    let inner = ip.bytes();
    row(name, ip).redirects(delivered(CONTAINER_MAC, IPV6, &inner)).counts(2, FromPeer, 1, inner.len())
}

/// Where the outer and the inner header's bytes stand in a packet of [`row`].
const OUTER: usize = 14;
const OUTER_UDP: usize = OUTER + 40;
const VXLAN: usize = OUTER_UDP + 8;
const INNER_ETH: usize = VXLAN + 8;

fn patched(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut packet = Via::V6OverV6.incoming(&from_b(CONTAINER6).bytes());
    packet[at..at + bytes.len()].copy_from_slice(bytes);
    packet
}

#[test]
fn either_version_over_either_version() {
    let from_a = Ipv6::udp(OF_A, CONTAINER6).bytes();
    let v4 = Ipv4::udp(V4_OF_B, CONTAINER).bytes();
    let to_host = from_b(GATEWAY6).bytes();
    let put = |entry| {
        move |maps: &mut overlay_user::datapath::map::Maps| {
            maps.put_endpoint(endpoint_key6(NEW6), entry).unwrap();
        }
    };
    let onto_the_bridge = eth(UPLINK_MAC, [0x02, 0, 0, 0, 0, 0x20], IPV6, &from_b(NEW6).bytes());
    let unknown =
        |name: &str| row(name, &from_b(NEW6)).redirects(onto_the_bridge.clone()).counts(2, FromPeer, 1, 104);
    run_across(vec![
        case("IPv6 over IPv4", Via::V6OverV4.incoming(&from_a))
            .redirects(delivered(CONTAINER_MAC, IPV6, &from_a))
            .counts(1, FromPeer, 1, 104),
        case("IPv4 over IPv6", Via::V4OverV6.incoming(&v4))
            .redirects(delivered(CONTAINER_MAC, IPV4, &v4))
            .counts(2, FromPeer, 1, 84),
    ]);
    run_table(&[
        arrives("IPv6 over IPv6", &from_b(CONTAINER6)),
        row("to the other container", &from_b(OTHER6))
            .redirects(delivered(OTHER_MAC, IPV6, &from_b(OTHER6).bytes()))
            .counts(2, FromPeer, 1, 104),
        row("to this host", &from_b(GATEWAY6))
            .redirects(eth(GATEWAY_MAC, OVERLAY_NEIGHBOUR, IPV6, &to_host))
            .mark_out(TO_HOST_MARK)
            .counts(2, FromPeer, 1, 104),
        unknown("to an unknown endpoint"),
        unknown("to an endpoint on a dead interface").with(put(endpoint(
            dev::GONE,
            OTHER_MAC,
            EndpointSource::Docker,
        ))),
        arrives("to an endpoint that is no veth", &from_b(CONTAINER6)).with(|maps| {
            let entry = endpoint(dev::PORT, CONTAINER_MAC, EndpointSource::Docker);
            maps.put_endpoint(endpoint_key6(CONTAINER6), Endpoint { flags: 0, ..entry }).unwrap();
        }),
        arrives(
            "hop limit 1: the overlay's hop is the sender's",
            &Ipv6 { hop_limit: 1, ..from_b(CONTAINER6) },
        ),
        arrives("an inner fragment", &Ipv6 { next_header: 44, ..from_b(CONTAINER6) }),
        arrives("an extension header", &Ipv6 { next_header: 0, ..from_b(CONTAINER6) }),
        arrives("ICMPv6", &Ipv6 { next_header: ICMPV6, ..from_b(CONTAINER6) }),
        arrives("a flow label", &Ipv6 { flow_label: 0x12345, ..from_b(CONTAINER6) }),
    ]);
}

/// No kernel believes neighbour discovery with fewer hops.
#[test]
fn nothing_from_a_peer_passes_for_a_neighbours() {
    let all = |dst| Ipv6 { hop_limit: 255, ..from_b(dst) };
    let less = |dst| Ipv6 { hop_limit: 254, ..from_b(dst) }.bytes();
    let delivered_less = |name: &str, dst, mac| {
        row(name, &all(dst)).redirects(delivered(mac, IPV6, &less(dst))).counts(2, FromPeer, 1, 104)
    };
    let advertises = Ipv6::neighbour(136, OF_B, CONTAINER6, GATEWAY6);
    let harmless = Ipv6 { hop_limit: 254, ..advertises.clone() }.bytes();
    run_in_tc(&[
        delivered_less("to a container", CONTAINER6, CONTAINER_MAC),
        delivered_less("to another", OTHER6, OTHER_MAC),
        row("an advertisement", &advertises)
            .redirects(delivered(CONTAINER_MAC, IPV6, &harmless))
            .counts(2, FromPeer, 1, 64),
        row("to the host", &all(GATEWAY6))
            .redirects(eth(GATEWAY_MAC, OVERLAY_NEIGHBOUR, IPV6, &less(GATEWAY6)))
            .mark_out(TO_HOST_MARK)
            .counts(2, FromPeer, 1, 104),
    ]);
}

#[test]
fn a_peer_speaks_for_its_own_subnets_only() {
    let drops = |name: &str, ip: &Ipv6, reason| row(name, ip).drops(reason);
    let from = |src| Ipv6::udp(src, CONTAINER6);
    let to = from_b;
    run_table(&[
        drops("another peer's subnet", &from(OF_A), DropReason::InnerSource),
        drops("our own subnet", &from(OTHER6), DropReason::InnerSource),
        drops("nobody's", &from(addr([0x2001, 0, 0, 0, 0, 0, 0, 1])), DropReason::InnerSource),
        drops("unspecified", &from([0; 16]), DropReason::InnerMartian),
        drops("loopback", &from(addr([0, 0, 0, 0, 0, 0, 0, 1])), DropReason::InnerMartian),
        drops("v4-mapped", &from(addr([0, 0, 0, 0, 0, 0xffff, 0xac1d, 9])), DropReason::InnerMartian),
        drops("link-local", &from(addr([0xfe80, 0, 0, 0, 0, 0, 0, 9])), DropReason::InnerMartian),
        drops("multicast", &from(addr([0xff02, 0, 0, 0, 0, 0, 0, 1])), DropReason::InnerMartian),
        drops("to loopback", &to(addr([0, 0, 0, 0, 0, 0, 0, 1])), DropReason::InnerMartian),
        drops("to link-local", &to(addr([0xfe80, 0, 0, 0, 0, 0, 0, 9])), DropReason::InnerMartian),
        drops("to multicast", &to(addr([0xff05, 0, 0, 0, 0, 0, 0, 2])), DropReason::InnerMulticast),
        drops("to nobody here", &to(addr([0xfd18, 0, 0, 0, 0, 0, 0, 2])), DropReason::NotLocal),
        drops("a subnet that went", &to(NEW6), DropReason::NotLocal)
            .with(|maps| maps.delete_subnet(key6(NEW6, 64)).unwrap()),
    ]);
}

#[test]
fn faults_have_their_names() {
    let drops = |name: &str, at: usize, bytes: &[u8], reason| case(name, patched(at, bytes)).drops(reason);
    run_table(&[
        drops("a stranger", OUTER + 8, &addr([0xfd00, 0x10, 0, 0, 0, 0, 0, 9]), DropReason::UnknownPeer),
        drops(
            "a peer's IPv4 address in disguise",
            OUTER + 8,
            &addr([0, 0, 0, 0, 0, 0xffff, 0x0a00, 3]),
            DropReason::UnknownPeer,
        ),
        drops("another VNI", VXLAN + 4, &[0, 0, 9], DropReason::WrongVni),
        drops("flags", VXLAN, &[0x88], DropReason::VxlanFlags),
        drops("another VTEP", INNER_ETH, &[6, 0, 0, 0, 0, 1], DropReason::InnerDestinationMac),
        case("ARP is the next program's", patched(INNER_ETH + 12, &[8, 6])),
        drops("IPv6 that says it is IPv4", INNER_ETH + 12, &[8, 0], DropReason::InnerMalformed),
        drops("not version 6", INNER_ETH + 14, &[0x50], DropReason::InnerMalformed),
        drops("an inner length too long", INNER_ETH + 18, &[0, 65], DropReason::InnerMalformed),
        drops("an outer length too short", OUTER + 4, &[0, 90], DropReason::OuterMalformed),
        drops("an outer length too long", OUTER + 4, &[1, 0], DropReason::OuterMalformed),
        drops("a UDP length too short", OUTER_UDP + 4, &[0, 15], DropReason::OuterMalformed),
    ]);
}

#[test]
fn what_is_not_ours_passes_untouched() {
    let passes = |name: &str, at: usize, bytes: &[u8]| case(name, patched(at, bytes));
    let mut cases = vec![
        passes("another UDP port", OUTER_UDP + 2, &(PORT_NUMBER + 1).to_be_bytes()),
        passes("another destination", OUTER + 24, &addr([0xfd00, 0x10, 0, 0, 0, 0, 0, 9])),
        passes("another MAC address", 0, &[2, 0, 0, 0, 0, 0x11]),
        passes("TCP", OUTER + 6, &[6]),
        passes("a later fragment", OUTER + 6, &[44]),
        passes("an extension header", OUTER + 6, &[60]),
        case("an uplink without an IPv6 address", patched(0, &UPLINK_MAC)).with(|maps| {
            let uplink = overlay_common::map::Uplink { v4: crate::world::UNDERLAY, v6: [0; 16] };
            maps.put_uplink(dev::UPLINK, uplink).unwrap();
        }),
    ];
    let whole = patched(0, &UPLINK_MAC);
    cases.extend((54..VXLAN).map(|len| case(&format!("cut to {len} bytes"), whole[..len].to_vec())));
    run_table(&cases);
    let cut = (VXLAN..whole.len()).map(|len| {
        case(&format!("cut to {len} bytes"), whole[..len].to_vec()).drops(DropReason::OuterMalformed)
    });
    run_table(&cut.collect::<Vec<_>>());
}

/// RFC 6040 section 4.2, figure 4, across versions.
#[test]
fn congestion_marks_come_inside() {
    let table = [
        (0b00, [Some(0b00), Some(0b00), Some(0b00), None]),
        (0b10, [Some(0b10), Some(0b01), Some(0b10), Some(0b11)]),
        (0b01, [Some(0b01), Some(0b01), Some(0b01), Some(0b11)]),
        (0b11, [Some(0b11), Some(0b11), Some(0b11), Some(0b11)]),
    ];
    let (mut cases, mut across) = (Vec::new(), Vec::new());
    for (inner, results) in table {
        for (outer, result) in [0b00, 0b01, 0b10, 0b11].into_iter().zip(results) {
            let name = format!("outer {outer:#b}, inner {inner:#b}");
            let ip = |class| Ipv6 { class, flow_label: 0xfffff, ..from_b(CONTAINER6) };
            let mut packet = Via::V6OverV6.incoming(&ip(0xb8 | inner).bytes());
            packet[OUTER + 1] |= outer << 4;
            cases.push(match result {
                Some(ecn) => case(&name, packet)
                    .redirects(delivered(CONTAINER_MAC, IPV6, &ip(0xb8 | ecn).bytes()))
                    .counts(2, FromPeer, 1, 104),
                None => case(&name, packet).drops(DropReason::EcnCeNotEct),
            });
            let ip = |tos| Ipv4 { tos, ..Ipv4::udp(V4_OF_B, CONTAINER) };
            let mut packet = Via::V4OverV6.incoming(&ip(inner).bytes());
            packet[OUTER + 1] |= outer << 4;
            across.push(match result {
                Some(ecn) => case(&format!("IPv4 inside, {name}"), packet)
                    .redirects(delivered(CONTAINER_MAC, IPV4, &ip(ecn).bytes()))
                    .counts(2, FromPeer, 1, 84),
                None => case(&format!("IPv4 inside, {name}"), packet).drops(DropReason::EcnCeNotEct),
            });
        }
    }
    run_table(&cases);
    run_across(across);
}

/// Fragments are the kernel's, marked for the tunnel device where we have one; what it would refuse is refused now.
#[test]
fn first_fragments_are_marked_for_the_tunnel_device() {
    let whole = Via::V6OverV6.incoming(&from_b(CONTAINER6).bytes());
    let fragment = |src, offset: u8, more: u8, payload: &[u8]| {
        let payload = [&[UDP, 0, 0, offset << 3 | more, 0, 0, 0, 7], payload].concat();
        eth(
            UPLINK_MAC,
            [0x02, 0, 0, 0, 0, 0x20],
            IPV6,
            &Ipv6 { next_header: 44, payload, ..Ipv6::udp(src, UNDERLAY6) }.bytes(),
        )
    };
    let datagram = &whole[OUTER_UDP..];
    run_in_tc(&[
        case("the first", fragment(B6, 0, 1, &datagram[..64])).with(device).mark_out(FROM_UPLINK_MARK),
        case("a later one", fragment(B6, 8, 0, &datagram[64..])).with(device),
        case("without a device", fragment(B6, 0, 1, &datagram[..64])),
        case("a stranger's", fragment(OF_A, 0, 1, &datagram[..64]))
            .with(device)
            .drops(DropReason::UnknownPeer),
    ]);
}
