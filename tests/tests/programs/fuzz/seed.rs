//! Packets to start from: valid ones of every mix of IP versions, with what must come of them, and kinds that have
//! parsers of their own.

mod kind;
mod neighbour;

use std::net::IpAddr;

use overlay_common::map::program;

use super::{
    hosts::{self, GATEWAYS, HOMES, OWN, PEERS, WAYS, Way},
    input::Input,
    ip::{Ip, vxlan},
    random::Random,
};
use crate::{
    packet::{Mac, TCP, UDP, checksum, tcp},
    world::{
        CONTAINER_MAC, GATEWAY_MAC, OTHER_MAC, OVERLAY_NEIGHBOUR, PORT_NUMBER, TO_HOST_MARK, UPLINK_MAC,
        VTEP_MAC, dev,
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
    let way = random.pick(&WAYS);
    let v6 = way.container.is_ipv6();
    let far = somewhere_in(random, way.container);
    let direction = random.below(3);
    let (src, dst) = match direction {
        WORKLOAD => (container(v6), far),
        BRIDGE => (random.pick(&[GATEWAYS[v6 as usize], container(v6), other(v6)]), far),
        _ => (far, random.pick(&[GATEWAYS[v6 as usize], container(v6), other(v6)])),
    };
    let (hops, tos) = (2 + random.below(254) as u8, random.next() as u8);
    let ip = Ip::udp(src, dst).hops(hops).tos(tos).label(random.next() as u32);
    let ip = transport(random, ip, src);
    match direction {
        WORKLOAD => input(WORKLOAD, from_container(&ip)),
        BRIDGE => input(BRIDGE, from_host(&ip)),
        _ => {
            // Congestion that the sender cannot hear of is refused.
            let outer_tos = if tos & 3 == 0 { random.next() as u8 & 0xfe } else { random.next() as u8 };
            let outer = Outer { tos: outer_tos, src_port: random.next() as u16, ..Outer::of(random, &way) };
            input(UPLINK, outer.around(&ip))
        }
    }
}

/// Something that looks like a segment or a ping, of random bytes.
fn transport(random: &mut Random, ip: Ip, addr: IpAddr) -> Ip {
    let len = random.below(600);
    if random.once_in(2) {
        let segment = tcp(random.next() as u16, random.next() as u16, 20, &random.vec(len));
        return ip.carrying(TCP, segment);
    }
    let kind = if addr.is_ipv6() { 128 } else { 8 };
    let mut bytes = [vec![kind, 0, 0, 0], random.vec(len)].concat();
    let sum = checksum(&bytes);
    bytes[2..4].copy_from_slice(&sum.to_be_bytes());
    ip.carrying(Ip::icmp(addr), bytes)
}

fn container(v6: bool) -> IpAddr {
    HOMES[if v6 { 2 } else { 0 }].0
}

fn other(v6: bool) -> IpAddr {
    HOMES[if v6 { 3 } else { 1 }].0
}

/// Any address in the subnet of another.
fn somewhere_in(random: &mut Random, addr: IpAddr) -> IpAddr {
    match addr {
        IpAddr::V4(addr) => {
            let ([a, b, ..], [c, d]) = (addr.octets(), random.bytes());
            hosts::v4([a, b, c, d])
        }
        IpAddr::V6(addr) => {
            let mut bytes = addr.octets();
            bytes[8..].copy_from_slice(&random.bytes::<8>());
            hosts::v6(bytes)
        }
    }
}

/// A frame as the container sends it to its gateway.
fn from_container(ip: &Ip) -> Vec<u8> {
    ip.frame(GATEWAY_MAC, CONTAINER_MAC)
}

/// A frame as the kernel sends it to a peer's subnet.
fn from_host(ip: &Ip) -> Vec<u8> {
    ip.frame(OVERLAY_NEIGHBOUR, GATEWAY_MAC)
}

/// The outer headers of a tunnel packet as a peer sends it.
#[derive(Clone, Copy)]
struct Outer {
    src: IpAddr,
    dst: IpAddr,
    vni: u32,
    tos: u8,
    src_port: u16,
    vtep: Mac,
}

impl Outer {
    /// Over any version that the peer speaks, whatever we use to reach it.
    fn of(random: &mut Random, way: &Way) -> Self {
        let addresses: Vec<_> = PEERS.iter().filter(|(_, peer)| peer.id == way.peer.id).collect();
        let src = addresses[random.below(addresses.len())].0;
        let vtep = if random.once_in(8) { [0xff; 6] } else { VTEP_MAC };
        let dst = OWN[src.is_ipv6() as usize];
        Self { src, dst, vni: way.peer.vni, tos: 0, src_port: 50_000, vtep }
    }

    /// The IP packet without its link-layer header.
    fn carrying(&self, inner: &Ip) -> Ip {
        let frame = inner.frame(self.vtep, [0x06, 0xaa, 0, 0, 0, 2]);
        let payload = vxlan(self.src_port, PORT_NUMBER, self.vni, &frame);
        Ip::udp(self.src, self.dst).tos(self.tos).carrying(UDP, payload)
    }

    fn around(&self, inner: &Ip) -> Vec<u8> {
        on_the_uplink(&self.carrying(inner))
    }
}

/// A frame from the underlay for this host.
fn on_the_uplink(ip: &Ip) -> Vec<u8> {
    ip.frame(UPLINK_MAC, [0x02, 0, 0, 0, 0, 0x20])
}

/// A packet to be mutated: a valid one, or of a kind that some parser takes an interest in.
pub(super) fn any(random: &mut Random) -> Input {
    let way = random.pick(&WAYS);
    let mut seed = match random.below(24) {
        0..=7 => valid(random),
        8 => kind::syn_out(random, &way),
        9 => kind::syn_in(random, &way),
        10 => kind::too_big(random),
        11 => kind::arp(random),
        12 | 13 => neighbour::discovery(random),
        14 => kind::nested(random, &way),
        15 => kind::oversize(random, &way),
        16 | 17 => kind::outer_fragment(random, &way),
        18 => kind::inner_parts(random, &way),
        19 => kind::few_hops(random, &way),
        20 => kind::special(random, &way),
        21 => kind::forged_tunnel(random),
        22 => kind::local(random),
        _ => kind::from_device(random, &way),
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
        seed.gso_size =
            random.pick(&[1, 536, 1000, 1360, 1370, 1371, 1390, 1391, 1410, 1411, 1422, 9000, u16::MAX]);
    }
    seed
}

/// A frame to a neighbour's MAC address, or to the gateway's.
fn to_neighbour(random: &mut Random, ip: &Ip) -> Input {
    input(WORKLOAD, ip.frame(random.pick(&[OTHER_MAC, GATEWAY_MAC]), CONTAINER_MAC))
}
