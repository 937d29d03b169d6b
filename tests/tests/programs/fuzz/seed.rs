//! Packets to start from: valid ones with what must come of them, and kinds that have parsers of their own.

use overlay_common::map::program;

use super::{input::Input, random::Random};
use crate::{
    packet::{ARP, Addr, ICMP, IPV4, IPV6, Ipv4, TCP, UDP, checksum, eth, pattern, tcp, udp},
    world::{
        A, B, CONTAINER, CONTAINER_MAC, GATEWAY, GATEWAY_MAC, MTU, NEW, OTHER, OTHER_MAC, PORT_NUMBER,
        PeerHost, TO_HOST_MARK, UNDERLAY, UPLINK_MAC, VTEP_MAC, dev, from_container, from_host, from_peer,
    },
};

/// Positions in `program::ALL`.
pub(super) const WORKLOAD: usize = 0;
pub(super) const BRIDGE: usize = 1;
pub(super) const UPLINK: usize = 2;
pub(super) const TUNNEL: usize = 3;

#[test]
fn programs_stand_where_they_are_expected() {
    let names = [program::WORKLOAD_EGRESS, program::BRIDGE_EGRESS, program::UPLINK_INGRESS];
    assert_eq!([WORKLOAD, BRIDGE, UPLINK].map(|n| program::ALL[n]), names);
    assert_eq!(program::ALL[TUNNEL], program::TUNNEL_INGRESS);
}

/// Where a program sees its packets.
pub(super) const DEVICE: [u32; 4] = [dev::PORT, dev::BRIDGE, dev::UPLINK, dev::STRAY];

pub(super) fn input(program: usize, packet: Vec<u8>) -> Input {
    Input { program, ifindex: DEVICE[program], mark: 0, gso_size: 0, packet }
}

/// A packet that must get through, whatever its payload.
pub(super) fn valid(random: &mut Random) -> Input {
    let peer: PeerHost = random.pick(&[A, B]);
    let payload = random.below(600);
    let mut ip = Ipv4 {
        tos: random.next() as u8,
        ttl: 2 + random.below(254) as u8,
        id: random.next() as u16,
        payload: transport(random, payload),
        ..Ipv4::udp(CONTAINER, peer.container)
    };
    ip.protocol = if ip.payload.len() >= 20 && random.once_in(2) { TCP } else { ICMP };
    if ip.protocol == TCP {
        ip.payload = tcp(random.next() as u16, random.next() as u16, 20, &random.vec(payload));
    }
    let [.., a, b] = random.bytes::<4>();
    let far = [peer.subnet[0], peer.subnet[1], a, b];
    match random.below(3) {
        0 => {
            ip.dst = far;
            input(WORKLOAD, from_container(&ip))
        }
        1 => {
            (ip.src, ip.dst) = (random.pick(&[GATEWAY, CONTAINER, OTHER]), far);
            input(BRIDGE, from_host(&ip))
        }
        _ => {
            (ip.src, ip.dst) = (far, random.pick(&[CONTAINER, OTHER, GATEWAY]));
            let mut packet = from_peer(&peer, ip.bytes());
            // Congestion that the sender cannot hear of is refused.
            packet.tos = if ip.tos & 3 == 0 { random.next() as u8 & 0xfe } else { random.next() as u8 };
            packet.src_port = random.next() as u16;
            input(UPLINK, packet.bytes())
        }
    }
}

/// A payload that looks like ICMP: the checksum of what follows.
fn transport(random: &mut Random, len: usize) -> Vec<u8> {
    let mut bytes = [vec![8, 0, 0, 0], random.vec(len)].concat();
    let sum = checksum(&bytes);
    bytes[2..4].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// A packet to be mutated: a valid one, or of a kind that some parser takes an interest in.
pub(super) fn any(random: &mut Random) -> Input {
    let peer: PeerHost = random.pick(&[A, B]);
    let mut seed = match random.below(16) {
        0..=5 => valid(random),
        6 => input(WORKLOAD, from_container(&syn(random, CONTAINER, peer.container))),
        7 => input(UPLINK, from_peer(&peer, syn(random, peer.container, CONTAINER).bytes()).bytes()),
        8 => input(UPLINK, frag_needed(random, &peer)),
        9 => input(WORKLOAD, eth([0xff; 6], CONTAINER_MAC, ARP, &arp(random))),
        10 => nested(random, &peer),
        11 => oversize(random, &peer),
        12 => input(UPLINK, fragment(random, &peer)),
        13 => {
            let local = Ipv4::udp(CONTAINER, random.pick(&[OTHER, NEW, GATEWAY]));
            input(WORKLOAD, eth(random.pick(&[OTHER_MAC, GATEWAY_MAC]), CONTAINER_MAC, IPV4, &local.bytes()))
        }
        14 => {
            let mut ip6 = vec![0x60, 0, 0, 0, 0, 24, 17, 64];
            ip6.extend(random.bytes::<32>());
            ip6.extend(udp(1, PORT_NUMBER, &pattern(16)));
            input(UPLINK, eth(UPLINK_MAC, CONTAINER_MAC, IPV6, &ip6))
        }
        _ => {
            let ip = Ipv4::udp(random.pick(&[peer.container, CONTAINER]), random.pick(&[CONTAINER, GATEWAY]));
            input(TUNNEL, eth(random.pick(&[VTEP_MAC, [0xff; 6]]), peer.vtep_mac, IPV4, &ip.bytes()))
        }
    };
    if random.once_in(8) {
        seed.program = random.below(4);
        seed.ifindex = DEVICE[seed.program];
    }
    if random.once_in(16) {
        seed.ifindex = random.pick(&[dev::BRIDGE, dev::PORT, dev::OTHER_PORT, dev::STRAY, dev::UPLINK]);
    }
    if random.once_in(16) {
        seed.mark = random.pick(&[TO_HOST_MARK, TO_HOST_MARK + 1, 1, u32::MAX]);
    }
    if random.once_in(64) {
        seed.gso_size = random.pick(&[1, 536, 1000, 1360, 1410, 1411, 1422, 9000, u16::MAX]);
    }
    seed
}

/// A SYN with options, well-formed or not.
fn syn(random: &mut Random, src: Addr, dst: Addr) -> Ipv4 {
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
    Ipv4 { protocol: TCP, payload: segment, ..Ipv4::udp(src, dst) }
}

/// A router's word that a tunnel packet of ours was too large.
fn frag_needed(random: &mut Random, peer: &PeerHost) -> Vec<u8> {
    let quoted = Ipv4 {
        total_len: Some(1500),
        payload: udp(50_000, peer.port, &pattern(8 * random.below(3))),
        ..Ipv4::udp(UNDERLAY, peer.underlay)
    };
    let mtu = random.pick(&[0, 68, 551, 552, 576, 1300, 1400, 1499, 1500, 0xffff_u16]);
    let mut icmp = vec![3, 4, 0, 0, 0, 0];
    icmp.extend(mtu.to_be_bytes());
    icmp.extend(quoted.bytes());
    let sum = checksum(&icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    let router = Ipv4 { protocol: ICMP, payload: icmp, ..Ipv4::udp([10, 0, 0, 254], UNDERLAY) };
    eth(UPLINK_MAC, [2, 0, 0, 0, 0, 0x30], IPV4, &router.bytes())
}

/// ARP that asks, answers and claims.
fn arp(random: &mut Random) -> Vec<u8> {
    let mut arp = vec![0, 1, 8, 0, 6, 4, 0, random.pick(&[1, 2])];
    arp.extend(random.pick(&[CONTAINER_MAC, OTHER_MAC, GATEWAY_MAC]));
    arp.extend(random.pick(&[CONTAINER, OTHER, GATEWAY, [0; 4]]));
    arp.extend([0; 6]);
    arp.extend(random.pick(&[CONTAINER, OTHER, GATEWAY]));
    arp
}

/// A tunnel in a tunnel: the inner one is payload, whoever it claims to come from.
fn nested(random: &mut Random, peer: &PeerHost) -> Input {
    let innermost = Ipv4::udp(peer.container, CONTAINER).bytes();
    let tunnel = from_peer(peer, innermost).bytes();
    let (src, dst) = (random.pick(&[peer.underlay, peer.container]), random.pick(&[UNDERLAY, CONTAINER]));
    if random.once_in(2) {
        let ip = Ipv4 { payload: tunnel[34..].to_vec(), ..Ipv4::udp(src, dst) };
        return input(UPLINK, from_peer(peer, ip.bytes()).bytes());
    }
    let ip = Ipv4 { payload: tunnel[34..].to_vec(), ..Ipv4::udp(CONTAINER, peer.container) };
    input(WORKLOAD, from_container(&ip))
}

/// About as large as the overlay takes, and larger.
fn oversize(random: &mut Random, peer: &PeerHost) -> Input {
    let total = (MTU as usize - 2) + random.pick(&[0, 1, 2, 3, 4, 50, 51, 1000]);
    let flags_fragment = random.pick(&[0x4000, 0]);
    let ip = Ipv4 { flags_fragment, ..Ipv4::sized(CONTAINER, peer.container, total) };
    match random.below(3) {
        0 => input(WORKLOAD, from_container(&ip)),
        1 => input(BRIDGE, from_host(&ip)),
        _ => {
            let ip = Ipv4::sized(peer.container, CONTAINER, total);
            input(UPLINK, from_peer(peer, ip.bytes()).bytes())
        }
    }
}

/// An outer fragment, or an outer header with options.
fn fragment(random: &mut Random, peer: &PeerHost) -> Vec<u8> {
    let mut packet = from_peer(peer, Ipv4 { protocol: UDP, ..Ipv4::udp(peer.container, CONTAINER) }.bytes());
    packet.flags_fragment = random.pick(&[0x2000, 0x2001, 0x0001, 0x4000, 0x1fff]);
    packet.ip_options = vec![1; 4 * random.pick(&[0, 0, 1, 10])];
    packet.bytes()
}
