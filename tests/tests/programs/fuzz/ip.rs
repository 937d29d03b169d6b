//! Packets of either IP version, for seeds and for what is expected.

use std::net::IpAddr;

use super::hosts::Way;
use crate::{
    ipv6::packet::{ICMPV6, Ipv6},
    packet::{ICMP, IPV4, IPV6, Ipv4, Mac, eth, pattern, udp},
    world::VTEP_MAC,
};

/// An IP packet of either version.
#[derive(Clone, Debug)]
pub(super) enum Ip {
    V4(Ipv4),
    V6(Ipv6),
}

impl Ip {
    /// A UDP packet. Addresses of one version.
    pub(super) fn udp(src: IpAddr, dst: IpAddr) -> Self {
        match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => Self::V4(Ipv4::udp(src.octets(), dst.octets())),
            (IpAddr::V6(src), IpAddr::V6(dst)) => Self::V6(Ipv6::udp(src.octets(), dst.octets())),
            _ => panic!("{src} and {dst} are of different versions"),
        }
    }

    /// The same with as much payload as makes it `total` bytes long.
    pub(super) fn sized(src: IpAddr, dst: IpAddr, total: usize) -> Self {
        let headers = if src.is_ipv6() { 48 } else { 28 };
        Self::udp(src, dst).carrying(crate::packet::UDP, udp(1111, 2222, &pattern(total - headers)))
    }

    pub(super) fn carrying(mut self, protocol: u8, payload: Vec<u8>) -> Self {
        match &mut self {
            Self::V4(ip) => (ip.protocol, ip.payload) = (protocol, payload),
            Self::V6(ip) => (ip.next_header, ip.payload) = (protocol, payload),
        }
        self
    }

    pub(super) fn tos(mut self, tos: u8) -> Self {
        match &mut self {
            Self::V4(ip) => ip.tos = tos,
            Self::V6(ip) => ip.class = tos,
        }
        self
    }

    pub(super) fn hops(mut self, hops: u8) -> Self {
        match &mut self {
            Self::V4(ip) => ip.ttl = hops,
            Self::V6(ip) => ip.hop_limit = hops,
        }
        self
    }

    /// The identification, or the flow label.
    pub(super) fn label(mut self, label: u32) -> Self {
        match &mut self {
            Self::V4(ip) => ip.id = label as u16,
            Self::V6(ip) => ip.flow_label = label & 0xf_ffff,
        }
        self
    }

    /// The protocol number of the version's ICMP.
    pub(super) fn icmp(addr: IpAddr) -> u8 {
        if addr.is_ipv6() { ICMPV6 } else { ICMP }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::V4(ip) => ip.bytes(),
            Self::V6(ip) => ip.bytes(),
        }
    }

    pub(super) fn ethertype(&self) -> u16 {
        match self {
            Self::V4(_) => IPV4,
            Self::V6(_) => IPV6,
        }
    }

    pub(super) fn frame(&self, dst: Mac, src: Mac) -> Vec<u8> {
        eth(dst, src, self.ethertype(), &self.bytes())
    }
}

/// VXLAN (RFC 7348 section 5) in UDP without checksum, around an Ethernet frame.
pub(super) fn vxlan(src_port: u16, dst_port: u16, vni: u32, frame: &[u8]) -> Vec<u8> {
    let vni = vni.to_be_bytes();
    udp(src_port, dst_port, &[&[8, 0, 0, 0, vni[1], vni[2], vni[3], 0], frame].concat())
}

/// The tunnel packet to a peer as it leaves the program: `bpf_redirect_neigh` writes the Ethernet addresses later, and
/// the source port is a hash.
pub(super) fn outgoing(way: &Way, tos: u8, ethertype: u16, inner: &[u8]) -> Vec<u8> {
    let frame = eth(way.peer.vtep_mac, VTEP_MAC, ethertype, inner);
    let [src, dst] = way.ends();
    let payload = vxlan(0xc000, way.peer.port, way.peer.vni, &frame);
    let outer = Ip::udp(src, dst).tos(tos).label(0).carrying(crate::packet::UDP, payload);
    outer.frame([0; 6], [0; 6])
}
