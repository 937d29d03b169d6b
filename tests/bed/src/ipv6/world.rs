//! What the rows about IPv6 add to the world: a second subnet of the bridge, and peers reached over either version.
//! A carries IPv6 over IPv4; B carries both over IPv6.

use overlay_common::{
    Be16, Vni,
    addr::MapIp,
    map::{
        Endpoint, EndpointKey, EndpointSource, PeerKey, Port, Route, RouteSource, Subnet, Tunnel, Uplink,
        endpoint_flag, port_flag,
    },
    template::Underlay,
    vni::VniKey,
};
use overlay_user::datapath::{
    DatapathError,
    map::{Maps, RouteKey},
};

use super::packet::{Addr6, Ipv6, addr};
use crate::{
    packet::{IPV4, IPV6, Ipv4, Mac, UDP, eth, udp},
    world::{
        self, A, B, CONTAINER_MAC, GATEWAY_MAC, LOCAL_VNI, MTU, OTHER_MAC, OVERLAY_NEIGHBOUR, PORT_NUMBER,
        PeerHost, UNDERLAY, UPLINK_MAC, VTEP_MAC, dev,
    },
};

pub const SUBNET6: Addr6 = addr([0xfd17, 0, 0, 0, 0, 0, 0, 0]);
pub const GATEWAY6: Addr6 = addr([0xfd17, 0, 0, 0, 0, 0, 0, 1]);
pub const CONTAINER6: Addr6 = addr([0xfd17, 0, 0, 0, 0, 0, 0, 2]);
pub const OTHER6: Addr6 = addr([0xfd17, 0, 0, 0, 0, 0, 0, 3]);
/// In the subnet, but no endpoint yet.
pub const NEW6: Addr6 = addr([0xfd17, 0, 0, 0, 0, 0, 0, 0x77]);
pub const UNDERLAY6: Addr6 = addr([0xfd00, 0x10, 0, 0, 0, 0, 0, 1]);
/// B's underlay address.
pub const B6: Addr6 = addr([0xfd00, 0x10, 0, 0, 0, 0, 0, 3]);
/// A container of A.
pub const OF_A: Addr6 = addr([0xfd27, 0, 0, 0, 0, 0, 0, 9]);
/// A container of B.
pub const OF_B: Addr6 = addr([0xfd28, 0, 0, 0, 0, 0, 0, 9]);
/// An IPv4 container of B that is reached over IPv6.
pub const V4_OF_B: [u8; 4] = [172, 29, 0, 9];

/// Over IPv6 there is less room.
pub const MTU6: u32 = MTU - 20;

/// A tunnel to a peer, by what it carries and over what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// IPv6 to A, over IPv4.
    V6OverV4,
    /// IPv6 to B, over IPv6.
    V6OverV6,
    /// IPv4 to B, over IPv6.
    V4OverV6,
}

impl Via {
    pub fn peer(self) -> PeerHost {
        if self == Self::V6OverV4 { A } else { B }
    }

    pub fn id(self) -> u32 {
        15 + self as u32
    }

    pub fn is_over_v6(self) -> bool {
        self != Self::V6OverV4
    }

    pub fn carries(self) -> u16 {
        if self == Self::V4OverV6 { IPV4 } else { IPV6 }
    }

    pub fn mtu(self) -> u32 {
        if self.is_over_v6() { MTU6 } else { MTU }
    }

    /// The tunnel, compiled as the daemon does.
    pub fn tunnel(self) -> Tunnel {
        let peer = self.peer();
        let underlay = if self.is_over_v6() {
            Underlay::V6 { src: UNDERLAY6, dst: B6 }
        } else {
            Underlay::V4 { src: UNDERLAY, dst: peer.underlay }
        };
        world::compiled(&peer, underlay, Be16::new(self.carries()), self.mtu())
    }

    /// The tunnel packet as a peer sends it to us, around `inner`.
    pub fn incoming(self, inner: &[u8]) -> Vec<u8> {
        let frame = eth(VTEP_MAC, [0x06, 0xaa, 0, 0, 0, 2], self.carries(), inner);
        self.outer(0, true, &frame)
    }

    /// The tunnel packet as it leaves the program.
    pub fn outgoing(self, tos: u8, inner: &[u8]) -> Vec<u8> {
        let frame = eth(self.peer().vtep_mac, VTEP_MAC, self.carries(), inner);
        self.outer(tos, false, &frame)
    }

    /// VXLAN (RFC 7348 section 5) in UDP without checksum.
    fn outer(self, tos: u8, incoming: bool, frame: &[u8]) -> Vec<u8> {
        let peer = self.peer();
        let port = if incoming { PORT_NUMBER } else { peer.port };
        let vni = peer.vni.to_be_bytes();
        let vxlan = [&[8, 0, 0, 0, vni[1], vni[2], vni[3], 0], frame].concat();
        let payload = udp(50_000, port, &vxlan);
        let macs = if incoming { (UPLINK_MAC, [0x02, 0, 0, 0, 0, 0x20]) } else { ([0; 6], [0; 6]) };
        if self.is_over_v6() {
            let (src, dst) = if incoming { (B6, UNDERLAY6) } else { (UNDERLAY6, B6) };
            let ip = Ipv6 { class: tos, hop_limit: 64, next_header: UDP, payload, ..Ipv6::udp(src, dst) };
            eth(macs.0, macs.1, IPV6, &ip.bytes())
        } else {
            let (src, dst) = if incoming { (peer.underlay, UNDERLAY) } else { (UNDERLAY, peer.underlay) };
            let ip = Ipv4 { tos, id: 0, payload, ..Ipv4::udp(src, dst) };
            eth(macs.0, macs.1, IPV4, &ip.bytes())
        }
    }
}

pub fn key6(addr: Addr6, len: u8) -> RouteKey {
    let prefix = format!("{}/{len}", std::net::Ipv6Addr::from(addr)).parse().unwrap();
    RouteKey::new(Vni::new(LOCAL_VNI).unwrap(), prefix)
}

pub fn endpoint_key6(addr: Addr6) -> EndpointKey {
    EndpointKey { vni: Vni::new(LOCAL_VNI).unwrap().key(), ip: MapIp::new(addr) }
}

/// The entry of a bridge port with both subnets.
pub fn port6(flags: u32) -> Port {
    let mut mask_v6 = [0; 16];
    mask_v6[..8].fill(0xff);
    Port { subnet_v6: SUBNET6, mask_v6, gateway_v6: GATEWAY6, ..world::port(flags) }
}

/// Enters everything, on top of the IPv4 world.
///
/// # Errors
/// A map that refuses an entry.
pub fn fill(maps: &mut Maps) -> Result<(), DatapathError> {
    maps.put_port(dev::BRIDGE, port6(port_flag::BRIDGE))?;
    maps.put_port(dev::PORT, port6(port_flag::PEER))?;
    maps.put_port(dev::OTHER_PORT, port6(port_flag::PEER))?;
    let endpoints = [(CONTAINER6, dev::PORT, CONTAINER_MAC), (OTHER6, dev::OTHER_PORT, OTHER_MAC)];
    for (addr, ifindex, mac) in endpoints {
        let entry = world::endpoint(ifindex, mac, EndpointSource::Neighbour);
        maps.put_endpoint(endpoint_key6(addr), entry)?;
    }
    let gateway = world::endpoint(dev::BRIDGE, GATEWAY_MAC, EndpointSource::Gateway);
    let gateway = Endpoint { flags: endpoint_flag::HOST, ..gateway };
    maps.put_endpoint(endpoint_key6(GATEWAY6), gateway)?;
    let subnet =
        Subnet { bridge: dev::BRIDGE, gateway: MapIp::new(GATEWAY6), broadcast: MapIp::default(), flags: 0 };
    maps.put_subnet(key6(SUBNET6, 64), subnet)?;
    maps.put_uplink(dev::UPLINK, Uplink { v4: UNDERLAY, v6: UNDERLAY6 })?;
    for vni in [VniKey::NONE, Vni::new(LOCAL_VNI).unwrap().key()] {
        maps.put_peer(PeerKey { vni, ip: MapIp::new(B6) }, world::entry(&B))?;
    }
    for via in [Via::V6OverV4, Via::V6OverV6, Via::V4OverV6] {
        maps.put_tunnel(via.id(), via.tunnel())?;
        let route = Route { tunnel: via.id(), peer: via.peer().id, source: RouteSource::File as u32 };
        let key = match via {
            Via::V6OverV4 => key6(OF_A, 64),
            Via::V6OverV6 => key6(OF_B, 64),
            Via::V4OverV6 => world::route_key(V4_OF_B, 16),
        };
        maps.put_route(key, route)?;
    }
    Ok(())
}

/// A frame as the container sends it to its gateway.
pub fn from_container6(ip: &Ipv6) -> Vec<u8> {
    eth(GATEWAY_MAC, CONTAINER_MAC, IPV6, &ip.bytes())
}

/// A frame as the kernel sends it to a peer's subnet.
pub fn from_host6(ip: &Ipv6) -> Vec<u8> {
    eth(OVERLAY_NEIGHBOUR, GATEWAY_MAC, IPV6, &ip.bytes())
}

/// What a container receives.
pub fn delivered(mac: Mac, ethertype: u16, inner: &[u8]) -> Vec<u8> {
    eth(mac, GATEWAY_MAC, ethertype, inner)
}
