//! `uplink_ingress`: what peers send.

use overlay_common::{
    DropReason,
    map::{Direction::FromPeer, Endpoint, EndpointSource, Subnet, program::UPLINK_INGRESS, subnet_flag},
};
use overlay_user::datapath::map::Maps;

use crate::{
    case::{Case, run_table as run_in_tc},
    packet::{ARP, Addr, ICMP, IPV4, IPV6, Ipv4, Mac, Vxlan, at, eth, ip_checksum_holds, patched, pattern},
    uplink_decap::run_in_xdp,
    world::{
        A, B, BROADCAST, CONTAINER, CONTAINER_MAC, GATEWAY, GATEWAY_MAC, LISTEN_PORT, LOCAL_VNI, NEW, OTHER,
        OTHER_MAC, OVERLAY_NEIGHBOUR, PORT_NUMBER, SUBNET, TO_HOST_MARK, UNDERLAY, UPLINK_MAC, VTEP_MAC, dev,
        endpoint, endpoint_key, from_peer, route_key,
    },
};

/// Both places to decapsulate judge alike.
fn run_table(cases: &[Case]) {
    run_in_tc(cases);
    run_in_xdp(cases);
}

fn case(name: &str, packet: Vec<u8>) -> Case {
    Case::new(name, UPLINK_INGRESS, dev::UPLINK, packet)
}

/// The packet of these tests: from a container of peer A to one of ours.
fn ip() -> Ipv4 {
    Ipv4::udp(A.container, CONTAINER)
}

fn packet() -> Vxlan {
    from_peer(&A, ip().bytes())
}

/// What a container receives: nothing of the outer packet, addressed by the gateway.
fn delivered(mac: Mac, inner: &[u8]) -> Vec<u8> {
    eth(mac, GATEWAY_MAC, IPV4, inner)
}

/// A network behind this host.
const BEHIND: Addr = [192, 168, 50, 7];

fn routed() -> Subnet {
    Subnet { bridge: dev::BRIDGE, flags: subnet_flag::ROUTED, ..Subnet::default() }
}

/// A row for a packet that must be delivered to the container.
fn arrives(name: &str, packet: &Vxlan) -> Case {
    let len = packet.inner.len();
    case(name, packet.bytes())
        .redirects(delivered(CONTAINER_MAC, &packet.inner))
        .counts(A.id, FromPeer, 1, len)
}

fn drops(name: &str, packet: &Vxlan, reason: DropReason) -> Case {
    case(name, packet.bytes()).drops(reason)
}

fn passes(name: &str, packet: &Vxlan) -> Case {
    case(name, packet.bytes())
}

fn to(dst: Addr) -> Vxlan {
    from_peer(&A, Ipv4::udp(A.container, dst).bytes())
}

/// What the bridge's neighbour entries will address: until then the outer Ethernet header stands.
fn onto_the_bridge(name: &str, packet: &Vxlan) -> Case {
    let frame = eth(packet.eth_dst, packet.eth_src, IPV4, &packet.inner);
    case(name, packet.bytes()).redirects(frame).counts(A.id, FromPeer, 1, packet.inner.len())
}

#[test]
fn packets_are_delivered() {
    let from_b = from_peer(&B, Ipv4::udp(B.container, OTHER).bytes());
    let put = |addr, entry| move |maps: &mut Maps| maps.put_endpoint(endpoint_key(addr), entry).unwrap();
    let at = |ifindex| endpoint(ifindex, OTHER_MAC, EndpointSource::Docker);
    let up_to_the_host = eth(GATEWAY_MAC, OVERLAY_NEIGHBOUR, IPV4, &to(GATEWAY).inner);
    run_table(&[
        arrives("to a container", &packet()),
        case("from the other peer, to the other container", from_b.bytes())
            .redirects(delivered(OTHER_MAC, &from_b.inner))
            .counts(B.id, FromPeer, 1, 84),
        arrives("to an endpoint that is no veth", &packet()).with(put(
            CONTAINER,
            Endpoint { flags: 0, ..endpoint(dev::PORT, CONTAINER_MAC, EndpointSource::Docker) },
        )),
        onto_the_bridge("to an endpoint on a dead interface", &to(NEW)).with(put(NEW, at(dev::GONE))),
        onto_the_bridge("to an unknown endpoint", &to(NEW)),
        case("to this host", to(GATEWAY).bytes())
            .redirects(up_to_the_host)
            .mark_out(TO_HOST_MARK)
            .counts(A.id, FromPeer, 1, 84),
        case("to a network that the host's kernel routes for", to(BEHIND).bytes())
            .with(|maps| maps.put_subnet(route_key(BEHIND, 24), routed()).unwrap())
            .redirects(eth(GATEWAY_MAC, OVERLAY_NEIGHBOUR, IPV4, &to(BEHIND).inner))
            .mark_out(TO_HOST_MARK)
            .counts(A.id, FromPeer, 1, 84),
        drops("to one that it does not route for", &to(BEHIND), DropReason::NotLocal),
        arrives(
            "to broadcast, from a peer who does not know our VTEP",
            &Vxlan { inner_eth_dst: [0xff; 6], ..packet() },
        ),
        arrives("whatever the outer source port", &Vxlan { src_port: 1, ..packet() }),
        arrives("without the outer DF", &Vxlan { flags_fragment: 0, ..packet() }),
        arrives("an inner fragment", &from_peer(&A, Ipv4 { flags_fragment: 0x2001, ..ip() }.bytes())),
        arrives("inner options", &from_peer(&A, Ipv4 { options: vec![1; 40], ..ip() }.bytes())),
        arrives(
            "inner TTL 1: the overlay's hop is the sender's",
            &from_peer(&A, Ipv4 { ttl: 1, ..ip() }.bytes()),
        ),
        arrives(
            "nothing but an inner header",
            &from_peer(&A, Ipv4 { protocol: ICMP, payload: vec![], ..ip() }.bytes()),
        ),
        arrives("a mark stays", &packet()).mark(5),
    ]);
}

#[test]
fn listen_ports_are_heard_besides_the_nodes_own() {
    run_table(&[
        arrives("on a listen port", &Vxlan { dst_port: LISTEN_PORT, ..packet() })
            .with(|maps| maps.put_listen_port(LISTEN_PORT, 1).unwrap()),
        arrives("on the node's port, with listen ports", &packet())
            .with(|maps| maps.put_listen_port(LISTEN_PORT, 1).unwrap()),
    ]);
}

#[test]
fn local_addresses_that_no_container_has() {
    let forget = |maps: &mut Maps| maps.delete_subnet(route_key(SUBNET, 16)).unwrap();
    let outside = |name: &str, dst| drops(name, &to(dst), DropReason::NotLocal);
    let martian = |name: &str, dst| drops(name, &to(dst), DropReason::InnerMartian);
    let group = |name: &str, dst| drops(name, &to(dst), DropReason::InnerMulticast);
    run_table(&[
        group("directed broadcast", BROADCAST),
        group("multicast", [224, 0, 0, 251]),
        group("the last multicast address", [239, 255, 255, 255]),
        group("limited broadcast", [255; 4]),
        outside("a public address", [8, 8, 8, 8]),
        outside("the sender's own subnet", [172, 27, 0, 10]),
        outside("another peer's subnet", B.container),
        outside("our own underlay address", UNDERLAY),
        martian("loopback", [127, 0, 0, 1]),
        martian("the unspecified address", [0; 4]),
        outside("no subnet any more", NEW).with(forget),
        // What is entered as an endpoint is believed without asking for the subnet.
        arrives("an endpoint without subnet", &packet()).with(forget),
    ]);
}

#[test]
fn only_peers_are_heard_and_only_with_their_vni() {
    let stranger = Vxlan { src: [10, 0, 0, 99], ..packet() };
    let vni = |vni| Vxlan { vni, ..packet() };
    run_table(&[
        drops("a stranger", &stranger, DropReason::UnknownPeer),
        drops("a stranger with VNI 0", &Vxlan { vni: 0, ..stranger.clone() }, DropReason::UnknownPeer),
        drops("our own address", &Vxlan { src: UNDERLAY, ..packet() }, DropReason::UnknownPeer),
        drops("a peer with the bridges' VNI instead of its own", &vni(LOCAL_VNI), DropReason::WrongVni),
        drops("VNI 0", &vni(0), DropReason::WrongVni),
        drops("the largest VNI", &vni(0xff_ffff), DropReason::WrongVni),
        drops("the VNI's bytes the other way round", &vni(0x03_0201), DropReason::WrongVni),
        drops(
            "another peer's VNI",
            &Vxlan { vni: A.vni, ..from_peer(&B, ip().bytes()) },
            DropReason::WrongVni,
        ),
        drops("a peer that was removed", &packet(), DropReason::UnknownPeer).with(|maps| {
            for (key, peer) in maps.peers().unwrap() {
                if peer.id == A.id {
                    maps.delete_peer(key).unwrap();
                }
            }
        }),
    ]);
}

#[test]
fn a_peer_speaks_for_its_own_subnets_only() {
    let from = |name: &str, src: Addr| {
        drops(name, &from_peer(&A, Ipv4::udp(src, CONTAINER).bytes()), DropReason::InnerSource)
    };
    let martian = |name: &str, src: Addr| {
        drops(name, &from_peer(&A, Ipv4::udp(src, CONTAINER).bytes()), DropReason::InnerMartian)
    };
    let carve = |maps: &mut Maps| {
        let route = maps.routes().unwrap().into_iter().find(|(_, route)| route.peer == B.id).unwrap().1;
        maps.put_route(route_key(A.container, 24), route).unwrap();
    };
    run_table(&[
        from("another peer's subnet", B.container),
        from("our own subnet", OTHER),
        from("our gateway", GATEWAY),
        from("no one's", [8, 8, 8, 8]),
        from("its underlay address", A.underlay),
        from("our underlay address", UNDERLAY),
        martian("loopback", [127, 0, 0, 1]),
        martian("multicast", [224, 0, 0, 1]),
        martian("broadcast", [255; 4]),
        martian("the unspecified address", [0; 4]),
        martian("0.0.0.0/8", [0, 1, 2, 3]),
        martian("a martian that a peer announced", [127, 0, 0, 1]).with(|maps| {
            let route = maps.routes().unwrap().into_iter().find(|(_, route)| route.peer == A.id).unwrap().1;
            maps.put_route(route_key([127, 0, 0, 0], 8), route).unwrap();
        }),
        // The longest prefix says whose it is.
        from("a part of its subnet that belongs to another", A.container).with(carve),
        from("its subnet was withdrawn", A.container)
            .with(|maps| maps.delete_route(route_key(A.subnet, 16)).unwrap()),
    ]);
}

#[test]
fn only_plain_vxlan_is_taken() {
    let mut cases = vec![arrives("flags 0x08", &packet())];
    cases.extend((0..=255).filter(|flags| *flags != 0x08).map(|flags| {
        drops(&format!("flags {flags:#04x}"), &Vxlan { flags, ..packet() }, DropReason::VxlanFlags)
    }));
    for byte in 0..3 {
        for bit in 0..8 {
            let mut reserved = [0; 3];
            reserved[byte] = 1 << bit;
            let packet = Vxlan { reserved, ..packet() };
            cases.push(drops(&format!("reserved {reserved:?}"), &packet, DropReason::VxlanFlags));
        }
    }
    for bit in 0..8 {
        let packet = Vxlan { reserved2: 1 << bit, ..packet() };
        cases.push(drops(&format!("second reserved byte, bit {bit}"), &packet, DropReason::VxlanFlags));
    }
    run_table(&cases);
}

#[test]
fn what_is_not_our_tunnel_passes_untouched() {
    let tcp = {
        let inner = Ipv4 { protocol: 6, ..Ipv4::udp(A.underlay, UNDERLAY) };
        eth(UPLINK_MAC, A.vtep_mac, IPV4, &inner.bytes())
    };
    run_table(&[
        passes("first outer fragment", &Vxlan { flags_fragment: 0x2000, ..packet() }),
        passes("later outer fragment", &Vxlan { flags_fragment: 0x0010, ..packet() }),
        passes("outer options", &Vxlan { ip_options: vec![1; 4], ..packet() }),
        passes("another UDP port", &Vxlan { dst_port: PORT_NUMBER + 1, ..packet() }),
        passes("a listen port that is none", &Vxlan { dst_port: LISTEN_PORT, ..packet() }),
        passes("another destination address", &Vxlan { dst: [10, 0, 0, 4], ..packet() }),
        passes("broadcast", &Vxlan { dst: [10, 0, 0, 255], ..packet() }),
        passes("another host's MAC address", &Vxlan { eth_dst: [2, 0, 0, 0, 0, 0x11], ..packet() }),
        passes("a broadcast frame", &Vxlan { eth_dst: [0xff; 6], ..packet() }),
        passes("a multicast frame", &Vxlan { eth_dst: [1, 0, 0x5e, 0, 0, 1], ..packet() }),
        case("ARP", eth(UPLINK_MAC, A.vtep_mac, ARP, &pattern(28))),
        case("IPv6", eth(UPLINK_MAC, A.vtep_mac, IPV6, &pattern(60))),
        case("TCP", tcp),
        // The uplink's MAC address is not this device's.
        passes("an interface that is no uplink", &packet()).on(dev::STRAY),
        passes("an uplink no more", &packet()).with(|maps| maps.delete_uplink(dev::UPLINK).unwrap()),
    ]);
}

#[test]
fn inner_frames_are_checked() {
    let mut short_ihl = packet();
    short_ihl.inner[0] = 0x44;
    let mut version_6 = packet();
    version_6.inner[0] = 0x65;
    let mut long_ihl = from_peer(&A, Ipv4 { payload: vec![], ..ip() }.bytes());
    long_ihl.inner[0] = 0x46;
    let with_len = |len| from_peer(&A, Ipv4 { total_len: Some(len), ..ip() }.bytes());
    let ethertype = |inner_ethertype| Vxlan { inner_ethertype, ..packet() };
    let other_vtep = |inner_eth_dst| Vxlan { inner_eth_dst, ..packet() };
    run_table(&[
        drops("another VTEP", &other_vtep([6, 0, 0, 0, 0, 1]), DropReason::InnerDestinationMac),
        drops("multicast", &other_vtep([1, 0, 0x5e, 0, 0, 1]), DropReason::InnerMulticast),
        drops("the container's MAC address", &other_vtep(CONTAINER_MAC), DropReason::InnerDestinationMac),
        drops(
            "a bit off our VTEP",
            &other_vtep([0x06, 0x11, 0x22, 0x33, 0x44, 0x54]),
            DropReason::InnerDestinationMac,
        ),
        case("ARP is the next program's", ethertype(ARP).bytes()),
        drops("IPv4 that says it is IPv6", &ethertype(IPV6), DropReason::InnerMalformed),
        drops("VLAN", &ethertype(0x8100), DropReason::InnerProtocol),
        drops("not version 4", &version_6, DropReason::InnerMalformed),
        drops("a header length under 20", &short_ihl, DropReason::InnerMalformed),
        drops("a header longer than the packet", &long_ihl, DropReason::InnerMalformed),
        drops("total length 0", &with_len(0), DropReason::InnerMalformed),
        drops("total length under the header's", &with_len(19), DropReason::InnerMalformed),
        drops("total length a byte too long", &with_len(85), DropReason::InnerMalformed),
        drops("total length 65535", &with_len(65535), DropReason::InnerMalformed),
    ]);
}

#[test]
fn lengths_that_contradict_each_other() {
    let bytes = || packet().bytes();
    let (ip_len, udp_len) = (at::OUTER_IP + 2, at::OUTER_UDP + 4);
    let all = (bytes().len() - at::OUTER_IP) as u16;
    let malformed = |name: &str, offset, value| {
        case(name, patched(bytes(), offset, value)).drops(DropReason::OuterMalformed)
    };
    run_table(&[
        malformed("the outer IP length is a byte too long", ip_len, all + 1),
        malformed("the outer IP length is 65535", ip_len, 65535),
        malformed("the outer IP length is a byte under the UDP length's", ip_len, all - 1),
        malformed("the outer IP length is 0", ip_len, 0),
        malformed("the UDP length is a byte too long", udp_len, all - 20 + 1),
        malformed("the UDP length leaves no room for VXLAN", udp_len, 15),
        malformed("the UDP length is 0", udp_len, 0),
        malformed("the UDP length is 65535", udp_len, 65535),
        case("the UDP length ends inside the inner packet", patched(bytes(), udp_len, all - 21))
            .drops(DropReason::InnerMalformed),
        case("the UDP length ends with the VXLAN header", patched(bytes(), udp_len, 16))
            .drops(DropReason::InnerMalformed),
    ]);
}

#[test]
fn trailing_bytes_are_neither_counted_nor_trusted() {
    let frame = delivered(CONTAINER_MAC, &packet().inner);
    let behind = |len| [packet().bytes(), pattern(len)].concat();
    // Inside the inner frame: the padding of a minimal Ethernet frame that a kernel peer bridged.
    let inside = from_peer(&A, [ip().bytes(), vec![0; 18]].concat());
    // An inner total length that only the trailer would cover.
    let lie = from_peer(&A, Ipv4 { total_len: Some(90), ..ip() }.bytes());
    run_table(&[
        case("behind the outer packet", behind(10))
            .redirects([&frame[..], &pattern(10)].concat())
            .counts(A.id, FromPeer, 1, 84),
        case("behind the inner packet", inside.bytes())
            .redirects(delivered(CONTAINER_MAC, &inside.inner))
            .counts(A.id, FromPeer, 1, 84),
        case("claimed by the inner packet", [lie.bytes(), pattern(20)].concat())
            .drops(DropReason::InnerMalformed),
    ]);
}

#[test]
fn congestion_reaches_the_receiver() {
    const CE: u8 = 0b11;
    const ECT_0: u8 = 0b10;
    const ECT_1: u8 = 0b01;
    let mut cases = Vec::new();
    for dscp in [0, 0x2e << 2, 0xfc] {
        for inner_ecn in 0..4 {
            for outer_ecn in 0..4 {
                let inner = |ecn| Ipv4 { tos: dscp | ecn, ..ip() }.bytes();
                let packet = Vxlan { tos: 0x50 | outer_ecn, ..from_peer(&A, inner(inner_ecn)) };
                let name = format!("DSCP {dscp:#x}, inner {inner_ecn:#b}, outer {outer_ecn:#b}");
                cases.push(match (outer_ecn, inner_ecn) {
                    (CE, 0) => drops(&name, &packet, DropReason::EcnCeNotEct),
                    // The builder's checksum is the right one for the new byte.
                    (CE, _) => case(&name, packet.bytes())
                        .redirects(delivered(CONTAINER_MAC, &inner(CE)))
                        .counts(A.id, FromPeer, 1, 84),
                    (ECT_1, ECT_0) => case(&name, packet.bytes())
                        .redirects(delivered(CONTAINER_MAC, &inner(ECT_1)))
                        .counts(A.id, FromPeer, 1, 84),
                    _ => arrives(&name, &packet),
                });
            }
        }
    }
    assert!(ip_checksum_holds(&packet().bytes(), at::INNER_IP));
    assert_eq!(packet().inner_eth_dst, VTEP_MAC);
    run_table(&cases);
}

/// The aggregates of a test run have no type, and so the kernel refuses to take the headers off.
#[test]
fn what_the_kernel_refuses_to_decapsulate_is_a_named_drop() {
    run_table(&[drops("an aggregate", &packet(), DropReason::DecapFailed).gso(20, 3)]);
}

#[test]
fn without_a_node_nothing_is_taken() {
    run_table(&[
        passes("port 0 is no port", &packet()).with(|maps| maps.put_node(Default::default()).unwrap())
    ]);
}
