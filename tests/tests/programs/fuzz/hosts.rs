//! Who is where: the hosts of both worlds, as the rules and the seeds speak of them. An address is one of its
//! version: an IPv6 address that has an IPv4 one in it is nobody's here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use overlay_common::map::port_flag;
use overlay_user::datapath::map::Maps;

use crate::{
    ipv6::{
        packet::Addr6,
        world::{
            self as world6, B6, CONTAINER6, GATEWAY6, NEW6, OF_A, OF_B, OTHER6, SUBNET6, UNDERLAY6, V4_OF_B,
        },
    },
    packet::{Addr, Mac},
    world::{
        A, B, BROADCAST, CONTAINER, CONTAINER_MAC, GATEWAY, MTU, NEW, OTHER, OTHER_MAC, PeerHost, SUBNET,
        UNDERLAY, dev,
    },
};

pub(super) const fn v4([a, b, c, d]: Addr) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

pub(super) const fn v6(addr: Addr6) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from_octets(addr))
}

/// What `world.rs` enters, what `ipv6/world.rs` adds, and ports that packets may pass between.
pub(super) fn fill(maps: &mut Maps) {
    world6::fill(maps).unwrap();
    for ifindex in [dev::PORT, dev::OTHER_PORT] {
        maps.put_port(ifindex, world6::port6(port_flag::PEER | port_flag::LOCAL)).unwrap();
    }
}

/// The containers that are known: address, MAC address, port.
pub(super) const HOMES: [(IpAddr, Mac, u32); 4] = [
    (v4(CONTAINER), CONTAINER_MAC, dev::PORT),
    (v4(OTHER), OTHER_MAC, dev::OTHER_PORT),
    (v6(CONTAINER6), CONTAINER_MAC, dev::PORT),
    (v6(OTHER6), OTHER_MAC, dev::OTHER_PORT),
];

/// The bridge's own addresses.
pub(super) const GATEWAYS: [IpAddr; 2] = [v4(GATEWAY), v6(GATEWAY6)];
/// Addresses of the bridge's subnets that no host has: network and broadcast, and the anycast address of the
/// subnet's routers (RFC 4291 section 2.6.1).
pub(super) const RESERVED: [IpAddr; 3] = [v4(SUBNET), v4(BROADCAST), v6(SUBNET6)];
/// In the subnets, and nobody's yet.
pub(super) const UNKNOWN: [IpAddr; 2] = [v4(NEW), v6(NEW6)];
/// This host in the underlay.
pub(super) const OWN: [IpAddr; 2] = [v4(UNDERLAY), v6(UNDERLAY6)];
/// The peers in the underlay.
pub(super) const PEERS: [(IpAddr, PeerHost); 3] = [(v4(A.underlay), A), (v4(B.underlay), B), (v6(B6), B)];

/// A peer's subnet, and the tunnel to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    /// A container in it.
    pub(super) container: IpAddr,
    pub(super) peer: PeerHost,
    /// Whether the tunnel is one over IPv6.
    pub(super) over_v6: bool,
}

/// A reaches us over IPv4 alone; B is reached over both, and has a subnet for each mix but one.
pub(super) const WAYS: [Way; 5] = [
    Way { container: v4(A.container), peer: A, over_v6: false },
    Way { container: v4(B.container), peer: B, over_v6: false },
    Way { container: v4(V4_OF_B), peer: B, over_v6: true },
    Way { container: v6(OF_A), peer: A, over_v6: false },
    Way { container: v6(OF_B), peer: B, over_v6: true },
];

impl Way {
    /// The way to an address that a peer's subnet covers.
    pub(super) fn to(addr: IpAddr) -> Option<Self> {
        WAYS.into_iter().find(|way| in_one_subnet(way.container, addr))
    }

    /// What the inner packets may measure: VXLAN takes 20 bytes more over IPv6.
    pub(super) fn mtu(&self) -> usize {
        MTU as usize - if self.over_v6 { 20 } else { 0 }
    }

    /// The outer addresses: ours and the peer's.
    pub(super) fn ends(&self) -> [IpAddr; 2] {
        let of_version = |addr: &&IpAddr| addr.is_ipv6() == self.over_v6;
        let far = PEERS.iter().find(|(addr, peer)| peer.id == self.peer.id && of_version(&addr));
        [*OWN.iter().find(of_version).unwrap(), far.unwrap().0]
    }
}

/// The peer whose host has an address in the underlay.
pub(super) fn peer_at(addr: IpAddr) -> Option<PeerHost> {
    PEERS.iter().find(|(host, _)| *host == addr).map(|(_, peer)| *peer)
}

/// An address of the bridge's subnets.
pub(super) fn is_local(addr: IpAddr) -> bool {
    GATEWAYS.iter().any(|gateway| in_one_subnet(*gateway, addr))
}

/// All subnets are /16 in IPv4 and /64 in IPv6.
fn in_one_subnet(a: IpAddr, b: IpAddr) -> bool {
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => a.octets()[..2] == b.octets()[..2],
        (IpAddr::V6(a), IpAddr::V6(b)) => a.octets()[..8] == b.octets()[..8],
        _ => false,
    }
}

#[test]
fn an_address_is_one_of_its_version() {
    let mapped = |addr: Addr| IpAddr::V6(Ipv4Addr::from(addr).to_ipv6_mapped());
    assert!(is_local(v4(NEW)) && is_local(v6(NEW6)));
    assert!(!is_local(mapped(NEW)) && Way::to(mapped(A.container)).is_none());
    assert!(peer_at(mapped(A.underlay)).is_none());
    for way in WAYS {
        assert_eq!(peer_at(way.ends()[1]).unwrap().id, way.peer.id);
    }
}
