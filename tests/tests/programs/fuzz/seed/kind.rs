//! Kinds of packets that some parser or rule takes an interest in.

use std::net::IpAddr;

use super::{
    BRIDGE, Outer, TUNNEL, UPLINK, WORKLOAD, container, from_container, from_host, input, on_the_uplink,
    other, to_neighbour,
};
use crate::{
    fuzz::{
        hosts::{self, GATEWAYS, OWN, PEERS, UNKNOWN, WAYS, Way},
        input::Input,
        ip::Ip,
        random::Random,
        special::{ADDRESSES4, ADDRESSES6},
    },
    ipv6::packet::ICMPV6,
    packet::{ARP, ICMP, TCP, UDP, checksum, eth, pattern, tcp, udp},
    world::{
        A, CONTAINER, CONTAINER_MAC, GATEWAY, GATEWAY_MAC, LISTEN_PORT, OTHER, OTHER_MAC, PORT_NUMBER,
        VTEP_MAC,
    },
};

/// A SYN with options, well-formed or not.
fn syn(random: &mut Random, src: IpAddr, dst: IpAddr) -> Ip {
    let mut options = match random.below(4) {
        0 => vec![2, 4, 0x05, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7],
        1 => vec![1, 1, 1, 2, 4, 0xff, 0xff, 0],
        2 => vec![3, 3, 7, 2, 4, random.next() as u8, random.next() as u8, 0],
        _ => {
            let len = 4 * random.below(11);
            random.vec(len)
        }
    };
    options.resize(options.len().next_multiple_of(4), 0);
    let mut segment = tcp(random.next() as u16, 80, 20 + options.len(), &pattern(random.below(2) * 9));
    segment[20..20 + options.len()].copy_from_slice(&options);
    segment[13] = random.pick(&[2, 0x12, 0xc2, 0x10]);
    Ip::udp(src, dst).carrying(TCP, segment)
}

pub(super) fn syn_out(random: &mut Random, way: &Way) -> Input {
    let ip = syn(random, container(way.container.is_ipv6()), way.container);
    if random.once_in(2) { input(WORKLOAD, from_container(&ip)) } else { input(BRIDGE, from_host(&ip)) }
}

pub(super) fn syn_in(random: &mut Random, way: &Way) -> Input {
    let ip = syn(random, way.container, container(way.container.is_ipv6()));
    input(UPLINK, Outer::of(random, way).around(&ip))
}

/// A router's word that a tunnel packet of ours was too large (RFC 1191, RFC 8201).
pub(super) fn too_big(random: &mut Random) -> Input {
    let (host, peer) = random.pick(&PEERS);
    let v6 = host.is_ipv6();
    let ours = OWN[v6 as usize];
    let payload = udp(50_000, random.pick(&[peer.port, PORT_NUMBER]), &pattern(8 * random.below(3)));
    let mut quoted = Ip::udp(ours, host).carrying(UDP, payload);
    match &mut quoted {
        Ip::V4(ip) => ip.total_len = Some(1500),
        Ip::V6(ip) => ip.payload_len = Some(1460),
    }
    let told = random.pick(&[0, 68, 551, 552, 576, 1279, 1280, 1300, 1400, 1499, 1500, 0xffff, 0x1_0500_u32]);
    let kind = if v6 { [2, 0, 0, 0] } else { [3, 4, 0, 0] };
    let mut icmp = [&kind[..], &told.to_be_bytes(), &quoted.bytes()].concat();
    let sum = checksum(&icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    let router = if v6 { hosts::v6(ADDRESSES6[9]) } else { hosts::v4([10, 0, 0, 254]) };
    input(UPLINK, on_the_uplink(&Ip::udp(router, ours).carrying(if v6 { ICMPV6 } else { ICMP }, icmp)))
}

/// ARP that asks, answers and claims.
pub(super) fn arp(random: &mut Random) -> Input {
    let mut arp = vec![0, 1, 8, 0, 6, 4, 0, random.pick(&[1, 2])];
    arp.extend(random.pick(&[CONTAINER_MAC, OTHER_MAC, GATEWAY_MAC]));
    arp.extend(random.pick(&[CONTAINER, OTHER, GATEWAY, [0; 4]]));
    arp.extend([0; 6]);
    arp.extend(random.pick(&[CONTAINER, OTHER, GATEWAY]));
    input(WORKLOAD, eth([0xff; 6], CONTAINER_MAC, ARP, &arp))
}

/// A tunnel in a tunnel: the inner one is payload, whoever it claims to come from.
pub(super) fn nested(random: &mut Random, way: &Way) -> Input {
    let near = container(way.container.is_ipv6());
    let tunnel = Outer::of(random, way).carrying(&Ip::udp(way.container, near));
    let Ip::V4(_) = &tunnel else {
        // A whole tunnel packet, outer addresses and all, as it would be without a tunnel around it.
        return input(UPLINK, Outer::of(random, way).around(&tunnel));
    };
    let datagram = tunnel.bytes()[20..].to_vec();
    if random.once_in(2) {
        let ip = Ip::udp(way.container, near).carrying(UDP, datagram);
        return input(UPLINK, Outer::of(random, way).around(&ip));
    }
    input(WORKLOAD, from_container(&Ip::udp(near, way.container).carrying(UDP, datagram)))
}

/// About as large as the overlay takes, and larger.
pub(super) fn oversize(random: &mut Random, way: &Way) -> Input {
    let near = container(way.container.is_ipv6());
    let total = way.mtu() - 2 + random.pick(&[0, 1, 2, 3, 4, 20, 22, 23, 50, 51, 70, 71, 1000]);
    let mut ip = Ip::sized(near, way.container, total);
    if let (Ip::V4(ip), true) = (&mut ip, random.once_in(2)) {
        ip.flags_fragment = 0;
    }
    match random.below(3) {
        0 => input(WORKLOAD, from_container(&ip)),
        1 => input(BRIDGE, from_host(&ip)),
        _ => input(UPLINK, Outer::of(random, way).around(&Ip::sized(way.container, near, total))),
    }
}

/// Makes a fragment of a packet, or gives it options or an extension header.
fn in_parts(random: &mut Random, ip: Ip) -> Ip {
    match ip {
        Ip::V4(mut ip) => {
            ip.flags_fragment = random.pick(&[0x2000, 0x2001, 0x0001, 0x4000, 0x1fff]);
            ip.options = vec![1; 4 * random.pick(&[0, 0, 1, 10])];
            Ip::V4(ip)
        }
        Ip::V6(ip) => {
            let next = ip.next_header;
            // First, middle and last fragments; an atomic one (RFC 6946); and other headers.
            let (kind, second) = random.pick(&[
                (44, [0, 1]),
                (44, [0, 1]),
                (44, [0, 9]),
                (44, [0, 8]),
                (44, [0, 0]),
                (44, [0xff, 0xf8]),
                (0, [1, 4]),
                (60, [1, 4]),
                (43, [0, 0]),
            ]);
            let header = [next, 0, second[0], second[1], 0, 0, 0, 7];
            let payload = [&header[..], &ip.payload].concat();
            Ip::V6(ip).carrying(kind, payload)
        }
    }
}

/// An outer fragment, or an outer header with options.
pub(super) fn outer_fragment(random: &mut Random, way: &Way) -> Input {
    let ip = Ip::udp(way.container, container(way.container.is_ipv6()));
    let mut outer = Outer::of(random, way);
    if random.once_in(8) {
        outer.vni += 1;
    }
    let tunnel = outer.carrying(&ip);
    input(UPLINK, on_the_uplink(&in_parts(random, tunnel)))
}

/// The same inside.
pub(super) fn inner_parts(random: &mut Random, way: &Way) -> Input {
    let near = container(way.container.is_ipv6());
    let (out, back) = (Ip::udp(near, way.container), Ip::udp(way.container, near));
    match random.below(3) {
        0 => input(WORKLOAD, from_container(&in_parts(random, out))),
        1 => input(BRIDGE, from_host(&in_parts(random, out))),
        _ => {
            let inner = in_parts(random, back);
            input(UPLINK, Outer::of(random, way).around(&inner))
        }
    }
}

/// Hops at their extremes, inside and outside.
pub(super) fn few_hops(random: &mut Random, way: &Way) -> Input {
    let near = container(way.container.is_ipv6());
    let (hops, outer_hops) = (random.pick(&[0, 1, 2, 254, 255]), random.pick(&[0, 1, 64, 255]));
    match random.below(3) {
        0 => input(WORKLOAD, from_container(&Ip::udp(near, way.container).hops(hops))),
        1 => input(BRIDGE, from_host(&Ip::udp(near, way.container).hops(hops))),
        _ => {
            let inner = Ip::udp(way.container, near).hops(hops);
            input(UPLINK, on_the_uplink(&Outer::of(random, way).carrying(&inner).hops(outer_hops)))
        }
    }
}

/// A valid packet but for one address that means something.
pub(super) fn special(random: &mut Random, way: &Way) -> Input {
    let near = container(way.container.is_ipv6());
    let outer = Outer::of(random, way);
    let like = |random: &mut Random, addr: IpAddr| match addr {
        IpAddr::V4(_) => hosts::v4(random.pick(&ADDRESSES4)),
        IpAddr::V6(_) => hosts::v6(random.pick(&ADDRESSES6)),
    };
    let odd = like(random, near);
    let back = Ip::udp(way.container, near);
    match random.below(8) {
        0 | 1 => input(UPLINK, outer.around(&Ip::udp(odd, near))),
        2 => input(UPLINK, outer.around(&Ip::udp(way.container, odd))),
        3 => input(UPLINK, Outer { src: like(random, outer.src), ..outer }.around(&back)),
        4 => input(UPLINK, Outer { dst: like(random, outer.dst), ..outer }.around(&back)),
        5 => input(WORKLOAD, from_container(&Ip::udp(odd, way.container))),
        6 => input(WORKLOAD, from_container(&Ip::udp(near, odd))),
        _ => input(BRIDGE, from_host(&Ip::udp(odd, way.container))),
    }
}

/// A container's own tunnel packet for a peer's host.
pub(super) fn forged_tunnel(random: &mut Random) -> Input {
    let (host, peer) = random.pick(&PEERS);
    let way = WAYS.into_iter().find(|way| way.peer.id == peer.id).unwrap();
    let near = container(host.is_ipv6());
    let inner = Ip::udp(way.container, container(way.container.is_ipv6()));
    let tunnel = Outer { src: near, dst: host, ..Outer::of(random, &way) }.carrying(&inner);
    let mut payload = tunnel.bytes()[if host.is_ipv6() { 40 } else { 20 }..].to_vec();
    let port = random.pick(&[PORT_NUMBER, PORT_NUMBER, A.port, LISTEN_PORT, 53]);
    payload[2..4].copy_from_slice(&port.to_be_bytes());
    let ip = Ip::udp(near, host).carrying(UDP, payload);
    let ip = if random.once_in(3) { in_parts(random, ip) } else { ip };
    input(WORKLOAD, from_container(&ip))
}

/// Between containers of one bridge.
pub(super) fn local(random: &mut Random) -> Input {
    let v6 = random.once_in(3);
    let dst = random.pick(&[other(v6), other(v6), UNKNOWN[v6 as usize], GATEWAYS[v6 as usize]]);
    to_neighbour(random, &Ip::udp(container(v6), dst))
}

/// As a tunnel device would hand it over.
pub(super) fn from_device(random: &mut Random, way: &Way) -> Input {
    let near = container(way.container.is_ipv6());
    let ip = Ip::udp(random.pick(&[way.container, near]), near);
    input(TUNNEL, ip.frame(random.pick(&[VTEP_MAC, [0xff; 6]]), way.peer.vtep_mac))
}
