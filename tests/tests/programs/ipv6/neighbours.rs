//! Neighbour discovery of peers that are bridges: it is answered, and learned from.

use overlay_common::{
    DropReason, Mac as MacAddr,
    addr::MapIp,
    event::{Event, NEIGHBOUR_WANTED},
    map::{
        Direction::ToPeer,
        Neighbour, NeighbourKey, Peer, PeerKey, Tunnel, peer_flag,
        program::{UPLINK_INGRESS, UPLINK_KINDS, UPLINK_RESOLVE, WORKLOAD_EGRESS},
        tunnel_flag,
    },
    vni::VniKey,
};
use overlay_user::{datapath::map::Maps, endpoints::monotonic_now};

use super::{
    packet::{Addr6, Ipv6, addr},
    world::{CONTAINER6, GATEWAY6, NEW6, OF_A, OF_B, Via, fill, from_container6},
};
use crate::{
    bed::with_bed,
    case::{Case, run_table},
    kinds_on_wire::came,
    packet::{FRAME, GRE, IPV4, IPV6, Ipv4, Mac, UDP, checksum, eth, geneve, gre, udp},
    skb::Context,
    world::{A, GENEVE_PORT, PORT_NUMBER, UNDERLAY, UPLINK_MAC, VTEP_MAC, dev, entry},
};

const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

/// The bridge of the peer, and the MAC address of one of its containers.
const BRIDGE: Addr6 = addr([0xfd27, 0, 0, 0, 0, 0, 0, 1]);
const BRIDGE_MAC: Mac = [0x02, 0x42, 9, 9, 9, 1];
const THEIRS_MAC: Mac = [0x02, 0x42, 9, 9, 9, 9];
const LINK_LOCAL: Addr6 = addr([0xfe80, 0, 0, 0, 0x0042, 0x09ff, 0xfe09, 0x0901]);
const NOBODY: Addr6 = [0; 16];

fn bridge(maps: &mut Maps) {
    fill(maps).unwrap();
    let tunnel = Via::V6OverV4.tunnel();
    let flags = tunnel.flags | tunnel_flag::LEARN;
    maps.put_tunnel(Via::V6OverV4.id(), Tunnel { flags, gateway: MapIp::new(BRIDGE), ..tunnel }).unwrap();
    for ip in [BRIDGE, OF_A] {
        maps.delete_neighbour(NeighbourKey { peer: A.id, ip: MapIp::new(ip) }).unwrap();
    }
    let ip = MapIp::v4(A.underlay);
    for vni in [VniKey::NONE, VniKey { bytes: A.vni.to_be_bytes() }] {
        maps.put_peer(PeerKey { vni, ip }, Peer { flags: peer_flag::LEARN, ..entry(&A) }).unwrap();
    }
}

/// A message with its option, where it has one, and its checksum (RFC 4443 section 2.3).
fn neighbour(
    kind: u8,
    flags: u8,
    (src, dst): (Addr6, Addr6),
    target: Addr6,
    option: Option<(u8, Mac)>,
) -> Ipv6 {
    let mut packet = Ipv6::neighbour(kind, src, dst, target);
    packet.payload[4] = flags;
    packet.payload.extend(option.into_iter().flat_map(|(kind, mac)| [&[kind, 1][..], &mac].concat()));
    let len = (packet.payload.len() as u32).to_be_bytes();
    let sum = checksum(&[&src[..], &dst, &len, &[0, 0, 0, 58], &packet.payload].concat());
    packet.payload[2..4].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// The group of all who may have an address, and its MAC address.
fn group(target: Addr6) -> (Addr6, Mac) {
    let [.., a, b, c] = target;
    let mut ip = addr([0xff02, 0, 0, 0, 0, 1, 0xff00, 0]);
    ip[13..].copy_from_slice(&[a, b, c]);
    (ip, [0x33, 0x33, 0xff, a, b, c])
}

fn asks(src: Addr6, target: Addr6) -> Vec<u8> {
    let (dst, mac) = group(target);
    // Who has no address yet sends a nonce (RFC 7527), and no MAC address.
    let option = if src == NOBODY { (14, [1, 2, 3, 4, 5, 6]) } else { (1, BRIDGE_MAC) };
    let option = Some(option);
    eth(mac, BRIDGE_MAC, IPV6, &neighbour(SOLICITATION, 0, (src, dst), target, option).bytes())
}

/// As a kernel asks again whom it knows.
fn asks_again(src: Addr6, target: Addr6) -> Vec<u8> {
    let option = Some((1, BRIDGE_MAC));
    eth(VTEP_MAC, BRIDGE_MAC, IPV6, &neighbour(SOLICITATION, 0, (src, target), target, option).bytes())
}

fn answer(target: Addr6, asker: Addr6) -> Vec<u8> {
    let said = neighbour(ADVERTISEMENT, 0xe0, (target, asker), target, Some((2, VTEP_MAC)));
    eth(BRIDGE_MAC, VTEP_MAC, IPV6, &said.bytes())
}

fn says(src: Addr6, mac: Mac) -> Vec<u8> {
    let said = neighbour(ADVERTISEMENT, 0x60, (src, LINK_LOCAL), src, Some((2, mac)));
    eth(VTEP_MAC, mac, IPV6, &said.bytes())
}

fn in_gre(frame: &[u8]) -> (u8, Vec<u8>) {
    (GRE, gre(FRAME, None, frame))
}

fn in_geneve(frame: &[u8]) -> (u8, Vec<u8>) {
    (UDP, udp(50_000, GENEVE_PORT, &geneve(A.vni, 0, &[], frame)))
}

fn in_vxlan(frame: &[u8]) -> (u8, Vec<u8>) {
    let vxlan = [&[8, 0, 0, 0][..], &(A.vni << 8).to_be_bytes(), frame].concat();
    (UDP, udp(50_000, PORT_NUMBER, &vxlan))
}

/// What leaves instead of what came, to where it came from.
fn back((protocol, payload): (u8, Vec<u8>)) -> Vec<u8> {
    let outer = Ipv4 { protocol, payload, ..Ipv4::udp(UNDERLAY, A.underlay) };
    eth([0x02, 0, 0, 0, 0, 0x20], UPLINK_MAC, IPV4, &outer.bytes())
}

fn row_in(program: &'static str, name: &str, (protocol, payload): (u8, Vec<u8>)) -> Case {
    Case::new(name, program, dev::UPLINK, came(&A, protocol, payload)).with(bridge)
}

fn row(name: &str, carried: (u8, Vec<u8>)) -> Case {
    row_in(UPLINK_RESOLVE, name, carried)
}

#[test]
fn who_asks_for_our_addresses_is_answered() {
    let answered = |name: &str, src, target| {
        row(name, in_gre(&asks(src, target))).redirects(back(in_gre(&answer(target, src))))
    };
    let corrupted = |at: usize| {
        let mut frame = asks(BRIDGE, GATEWAY6);
        frame[at] ^= 1;
        in_gre(&frame)
    };
    run_table(&[
        answered("a container", BRIDGE, CONTAINER6),
        answered("the gateway, asked from a link-local address", LINK_LOCAL, GATEWAY6),
        answered("whom nobody has heard of yet", LINK_LOCAL, NEW6),
        row("in Geneve", in_geneve(&asks(BRIDGE, GATEWAY6)))
            .redirects(back(in_geneve(&answer(GATEWAY6, BRIDGE)))),
        row("in VXLAN", in_vxlan(&asks(BRIDGE, GATEWAY6)))
            .redirects(back(in_vxlan(&answer(GATEWAY6, BRIDGE)))),
        row("who is known already", in_gre(&asks_again(LINK_LOCAL, CONTAINER6)))
            .redirects(back(in_gre(&answer(CONTAINER6, LINK_LOCAL)))),
        row("somebody else's address", in_gre(&asks(BRIDGE, OF_A))).drops(DropReason::NotLocal),
        row("whether an address of its own is free", in_gre(&asks(NOBODY, OF_A))).drops(DropReason::NotLocal),
        row("whether one of ours is free", in_gre(&asks(NOBODY, NEW6))).drops(DropReason::InnerMalformed),
        row("from another peer's address", in_gre(&asks(OF_B, GATEWAY6))).drops(DropReason::InnerSource),
        row("from ours", in_gre(&asks(NEW6, GATEWAY6))).drops(DropReason::InnerSource),
        row("cut off", in_gre(&asks(BRIDGE, GATEWAY6)[..60])).drops(DropReason::InnerMalformed),
        row("cut off in its option", in_gre(&asks(BRIDGE, GATEWAY6)[..80])).drops(DropReason::InnerMalformed),
        row("another source than the checksum's", corrupted(14 + 23)).drops(DropReason::InnerMalformed),
        row("another MAC address than the checksum's", corrupted(14 + 40 + 31))
            .drops(DropReason::InnerMalformed),
        row(
            "no neighbour discovery",
            in_gre(&eth(VTEP_MAC, BRIDGE_MAC, IPV6, &Ipv6::udp(OF_A, CONTAINER6).bytes())),
        ),
    ]);
}

#[test]
fn the_programs_for_tunnels_leave_it_alone() {
    run_table(&[
        row_in(UPLINK_INGRESS, "VXLAN, asked", in_vxlan(&asks(BRIDGE, GATEWAY6))),
        row_in(UPLINK_INGRESS, "VXLAN, asked again", in_vxlan(&asks_again(LINK_LOCAL, CONTAINER6))),
        row_in(UPLINK_INGRESS, "VXLAN, said", in_vxlan(&says(OF_A, THEIRS_MAC))),
        row_in(UPLINK_KINDS, "GRE, asked", in_gre(&asks(BRIDGE, GATEWAY6))),
        row_in(UPLINK_KINDS, "GRE, asked again", in_gre(&asks_again(BRIDGE, CONTAINER6))),
        row_in(UPLINK_KINDS, "GRE, said", in_gre(&says(OF_A, THEIRS_MAC))),
        row_in(UPLINK_KINDS, "Geneve, said", in_geneve(&says(OF_A, THEIRS_MAC))),
        row_in(UPLINK_INGRESS, "multicast that is none", {
            let (_, mac) = group(GATEWAY6);
            in_vxlan(&eth(mac, BRIDGE_MAC, IPV6, &Ipv6::udp(OF_A, CONTAINER6).bytes()))
        })
        .drops(DropReason::InnerMulticast),
    ]);
}

/// Whom an advertisement, a question or a packet has told of is sent to.
#[test]
fn whoever_speaks_is_learned() {
    let container_asks = {
        let (dst, mac) = group(GATEWAY6);
        let asked = neighbour(SOLICITATION, 0, (OF_A, dst), GATEWAY6, Some((1, THEIRS_MAC)));
        eth(mac, THEIRS_MAC, IPV6, &asked.bytes())
    };
    let sends = eth(VTEP_MAC, THEIRS_MAC, IPV6, &Ipv6::udp(OF_A, CONTAINER6).bytes());
    let said = [
        (UPLINK_RESOLVE, in_gre(&says(OF_A, THEIRS_MAC))),
        (UPLINK_RESOLVE, in_gre(&container_asks)),
        (UPLINK_KINDS, in_gre(&sends)),
    ];
    with_bed(|bed| {
        for (program, (protocol, payload)) in &said {
            bed.reset();
            bridge(&mut bed.maps);
            let key = NeighbourKey { peer: A.id, ip: MapIp::new(OF_A) };
            let context = Context { ifindex: dev::UPLINK, ..Context::default() };
            bed.run(program, context, &came(&A, *protocol, payload.clone()));
            let known = bed.maps.neighbour(key).unwrap().unwrap();
            assert_eq!(known.mac, MacAddr(THEIRS_MAC));
            assert!(known.is_alive(monotonic_now()));
        }
    });
}

#[test]
fn nobody_is_learned_by_another_peers_word() {
    run_table(&[
        row("another's address", in_gre(&says(OF_B, THEIRS_MAC))).drops(DropReason::InnerSource),
        row("ours", in_gre(&says(CONTAINER6, THEIRS_MAC))).drops(DropReason::InnerSource),
    ]);
}

#[test]
fn frames_go_to_the_neighbour_or_to_who_routes_for_it() {
    let event = Event { kind: NEIGHBOUR_WANTED, ip: MapIp::new(OF_A), ..Event::default() };
    let knows = |ip: Addr6, mac: Mac| {
        move |maps: &mut Maps| {
            let now = monotonic_now();
            let known = Neighbour { seen: now, asked: now, mac: MacAddr(mac), padding: [0; 2] };
            maps.put_neighbour(NeighbourKey { peer: A.id, ip: MapIp::new(ip) }, known).unwrap();
        }
    };
    let sent = |name: &str, mac: Mac| {
        let ip = Ipv6::udp(CONTAINER6, OF_A);
        let inner = Ipv6 { hop_limit: 63, ..ip.clone() }.bytes();
        let mut expected = Via::V6OverV4.outgoing(0, &inner);
        let at = 14 + 20 + 8 + 8;
        expected[at..at + 6].copy_from_slice(&mac);
        Case::new(name, WORKLOAD_EGRESS, dev::PORT, from_container6(&ip))
            .with(bridge)
            .tunnels(expected)
            .counts(A.id, ToPeer, 1, inner.len())
    };
    run_table(&[
        sent("nobody is known", [0xff; 6]).tells(bytemuck::bytes_of(&event).to_vec()),
        sent("the bridge is", BRIDGE_MAC)
            .with(knows(BRIDGE, BRIDGE_MAC))
            .tells(bytemuck::bytes_of(&event).to_vec()),
        sent("the container is", THEIRS_MAC).with(knows(OF_A, THEIRS_MAC)),
    ]);
}
