//! Tunnels other than VXLAN, as they are on the wire.

use overlay_common::Encap;

use crate::{
    packet::{FRAME, GRE, IPIP, IPV4, Ipv4, Mac, UDP, eth, geneve, gre, udp},
    world::{GENEVE_PORT, PeerHost, UNDERLAY, UPLINK_MAC, VTEP_MAC},
};

/// What an outer IP header carries in this kind of tunnel, and the protocol number that it says so with.
pub fn carried(encap: Encap, key: Option<u32>, vni: u32, macs: (Mac, Mac), inner: &[u8]) -> (u8, Vec<u8>) {
    let frame = || eth(macs.0, macs.1, IPV4, inner);
    match encap {
        Encap::Geneve => (UDP, udp(50_000, GENEVE_PORT, &geneve(vni, 0, &[], &frame()))),
        Encap::Gre => (GRE, gre(FRAME, key, &frame())),
        Encap::GreL3 => (GRE, gre(IPV4, key, inner)),
        Encap::Ipip => (IPIP, inner.to_vec()),
        Encap::Vxlan | Encap::Direct => unreachable!("VXLAN and no tunnel have rows of their own"),
    }
}

/// An outer packet as a peer sends it.
pub fn came(peer: &PeerHost, protocol: u8, payload: Vec<u8>) -> Vec<u8> {
    came_as(&Ipv4 { protocol, payload, ..Ipv4::udp(peer.underlay, UNDERLAY) })
}

/// As [`came`], of an outer packet as it is.
pub fn came_as(outer: &Ipv4) -> Vec<u8> {
    eth(UPLINK_MAC, [0x02, 0, 0, 0, 0, 0x20], IPV4, &outer.bytes())
}

/// A tunnel packet as a peer sends it.
pub fn incoming(peer: &PeerHost, encap: Encap, key: Option<u32>, inner: &[u8]) -> Vec<u8> {
    let (protocol, payload) = carried(encap, key, peer.vni, (VTEP_MAC, peer.vtep_mac), inner);
    came(peer, protocol, payload)
}
