//! What every test and measurement starts from: one host with a bridge and two containers, and two peers. The daemon's own
//! types and template compiler fill the maps; what comes out is compared with bytes of `packet.rs`.

use overlay_common::{
    Be16, Encap, Kinds, Mac as MacAddr, Vni,
    addr::MapIp,
    map::{
        Decap, DecapState, Endpoint, EndpointKey, EndpointSource, Hop, MAX_HOPS, Node, Peer, PeerKey, Port,
        REASON_BYTES, Route, RouteSource, Subnet, Tunnel, Uplink, endpoint_flag, port_flag,
    },
    template::{self, Ends, Headers, Macs, Shell, Underlay},
    vni::VniKey,
    wire::eth::ETHERTYPE_IPV4,
};
use overlay_user::datapath::{
    DatapathError,
    map::{Maps, RouteKey},
};

use crate::packet::{Addr, Ipv4, Mac, Vxlan, eth};

/// The devices of the namespace, by index.
pub mod dev {
    pub const BRIDGE: u32 = 10;
    /// A bridge port: a veth with a container behind it.
    pub const PORT: u32 = 11;
    pub const OTHER_PORT: u32 = 12;
    /// A device that no map knows.
    pub const STRAY: u32 = 13;
    pub const UPLINK: u32 = 14;
    /// No device has this index.
    pub const GONE: u32 = 99;
}

pub const GATEWAY_MAC: Mac = [0x02, 0x42, 0, 0, 0, 1];
pub const UPLINK_MAC: Mac = [0x02, 0, 0, 0, 0, 0x10];
pub const CONTAINER_MAC: Mac = [0x02, 0x42, 0xac, 0x11, 0, 2];
pub const OTHER_MAC: Mac = [0x02, 0x42, 0xac, 0x11, 0, 3];
pub const VTEP_MAC: Mac = [0x06, 0x11, 0x22, 0x33, 0x44, 0x55];
/// The link-layer address of the neighbours that stand for peers' subnets: part of the protocol between
/// the daemon's routes and `bridge_egress`.
pub const OVERLAY_NEIGHBOUR: Mac = [0x02, 0x6f, 0x76, 0x6c, 0x00, 0xfe];
/// The mark of what goes up to the host ("ovl1").
pub const TO_HOST_MARK: u32 = 0x6f76_6c31;
/// What `uplink_ingress` marks what it leaves to the tunnel device with.
pub const FROM_UPLINK_MARK: u32 = 0x6f76_6c32;

pub const SUBNET: Addr = [172, 17, 0, 0];
pub const BROADCAST: Addr = [172, 17, 255, 255];
pub const GATEWAY: Addr = [172, 17, 42, 1];
pub const CONTAINER: Addr = [172, 17, 0, 2];
pub const OTHER: Addr = [172, 17, 0, 3];
/// In the subnet, but no endpoint yet.
pub const NEW: Addr = [172, 17, 0, 77];
pub const UNDERLAY: Addr = [10, 0, 0, 1];

pub const MTU: u32 = 1450;
/// The bridges' VNI.
pub const LOCAL_VNI: u32 = 1;
pub const PORT_NUMBER: u16 = 4789;
/// RFC 8926 section 3.3.
pub const GENEVE_PORT: u16 = 6081;
/// A further port that carries tunnels.
pub const LISTEN_PORT: u16 = 8472;

/// A peer and how it is reached.
#[derive(Clone, Copy, Debug)]
pub struct PeerHost {
    pub id: u32,
    pub tunnel: u32,
    pub underlay: Addr,
    /// A /16.
    pub subnet: Addr,
    /// A container in it.
    pub container: Addr,
    /// On the wire, both ways.
    pub vni: u32,
    pub port: u16,
    pub vtep_mac: Mac,
}

/// A peer whose VNI and port on the wire are not the bridges' own.
pub const A: PeerHost = PeerHost {
    id: 1,
    tunnel: 5,
    underlay: [10, 0, 0, 2],
    subnet: [172, 27, 0, 0],
    container: [172, 27, 0, 9],
    vni: 0x01_0203,
    port: 4790,
    vtep_mac: [0x06, 0xaa, 0, 0, 0, 2],
};

/// A peer with the defaults, whose VTEP's MAC address nobody knows.
pub const B: PeerHost = PeerHost {
    id: 2,
    tunnel: 6,
    underlay: [10, 0, 0, 3],
    subnet: [172, 28, 0, 0],
    container: [172, 28, 0, 9],
    vni: LOCAL_VNI,
    port: PORT_NUMBER,
    vtep_mac: [0xff; 6],
};

/// The prefix `addr/len` in the bridges' network.
pub fn route_key(addr: Addr, len: u8) -> RouteKey {
    RouteKey::new(
        Vni::new(LOCAL_VNI).unwrap(),
        format!("{}/{len}", std::net::Ipv4Addr::from(addr)).parse().unwrap(),
    )
}

pub fn endpoint_key(addr: Addr) -> EndpointKey {
    EndpointKey { vni: Vni::new(LOCAL_VNI).unwrap().key(), ip: MapIp::v4(addr) }
}

/// A container's endpoint, as the daemon or a program enters it.
pub fn endpoint(ifindex: u32, mac: Mac, source: EndpointSource) -> Endpoint {
    Endpoint {
        last_seen: 0,
        ifindex,
        flags: endpoint_flag::PEER,
        source: source as u32,
        mac: MacAddr(mac),
        gateway_mac: MacAddr(GATEWAY_MAC),
    }
}

/// The entry of a bridge port.
pub fn port(flags: u32) -> Port {
    Port {
        vni: Vni::new(LOCAL_VNI).unwrap().key(),
        bridge: dev::BRIDGE,
        flags,
        subnet: SUBNET,
        mask: [255, 255, 0, 0],
        gateway: GATEWAY,
        mask_v6: [0xff; 16],
        gateway_mac: MacAddr(GATEWAY_MAC),
        ..Port::default()
    }
}

/// What the daemon drew for the uplink.
pub const TOKEN: [u32; 2] = [0x1122_3344, 0x5566_7788];

/// The uplink's decapsulation.
pub fn decap(state: DecapState) -> Decap {
    Decap {
        token: TOKEN,
        state: state as u32,
        probes: 0,
        heard: 0,
        refused: 0,
        mac: MacAddr(UPLINK_MAC),
        padding: [0; 2],
        reason: [0; REASON_BYTES],
    }
}

/// Enters everything.
///
/// # Errors
/// A map that refuses an entry.
pub fn fill(maps: &mut Maps) -> Result<(), DatapathError> {
    maps.put_port(dev::BRIDGE, port(port_flag::BRIDGE))?;
    maps.put_port(dev::PORT, port(port_flag::PEER))?;
    maps.put_port(dev::OTHER_PORT, port(port_flag::PEER))?;
    for (addr, ifindex, mac) in [(CONTAINER, dev::PORT, CONTAINER_MAC), (OTHER, dev::OTHER_PORT, OTHER_MAC)] {
        maps.put_endpoint(endpoint_key(addr), endpoint(ifindex, mac, EndpointSource::Neighbour))?;
    }
    let gateway = endpoint(dev::BRIDGE, GATEWAY_MAC, EndpointSource::Gateway);
    maps.put_endpoint(endpoint_key(GATEWAY), Endpoint { flags: endpoint_flag::HOST, ..gateway })?;
    let subnet = Subnet {
        bridge: dev::BRIDGE,
        gateway: MapIp::v4(GATEWAY),
        broadcast: MapIp::v4(BROADCAST),
        flags: 0,
    };
    maps.put_subnet(route_key(SUBNET, 16), subnet)?;
    maps.put_uplink(dev::UPLINK, Uplink { v4: UNDERLAY, v6: [0; 16] })?;
    maps.put_decap(dev::UPLINK, decap(DecapState::Xdp))?;
    maps.put_node(node(tunnels()))?;
    for peer in [A, B] {
        fill_peer(maps, &peer)?;
    }
    Ok(())
}

/// Every kind of tunnel.
pub fn tunnels() -> Kinds {
    Encap::ALL.into_iter().filter(|encap| *encap != Encap::Direct).collect()
}

/// This host, which takes packets in these kinds.
pub fn node(kinds: Kinds) -> Node {
    Node {
        vtep_mac: MacAddr(VTEP_MAC),
        port: Be16::new(PORT_NUMBER),
        vni: Vni::new(LOCAL_VNI).unwrap().key(),
        kinds: kinds.bits(),
        geneve_port: Be16::new(GENEVE_PORT),
        padding: [0; 2],
    }
}

/// What the programs know of a peer; no GRE key.
pub fn entry(peer: &PeerHost) -> Peer {
    Peer { id: peer.id, network: Vni::new(LOCAL_VNI).unwrap().key(), gre_key: 0, flags: 0 }
}

fn fill_peer(maps: &mut Maps, peer: &PeerHost) -> Result<(), DatapathError> {
    let (ip, vni) = (MapIp::v4(peer.underlay), Vni::new(peer.vni).unwrap());
    for vni in [VniKey::NONE, vni.key()] {
        maps.put_peer(PeerKey { vni, ip }, entry(peer))?;
    }
    maps.put_tunnel(peer.tunnel, tunnel(peer))?;
    let route = Route { tunnel: peer.tunnel, peer: peer.id, source: RouteSource::File as u32 };
    maps.put_route(route_key(peer.subnet, 16), route)
}

/// The tunnel to a peer, compiled as the daemon does.
pub fn tunnel(peer: &PeerHost) -> Tunnel {
    let underlay = Underlay::V4 { src: UNDERLAY, dst: peer.underlay };
    compiled(peer, underlay, ETHERTYPE_IPV4, MTU)
}

/// The same over and for either version of IP.
pub fn compiled(peer: &PeerHost, underlay: Underlay, carries: Be16, mtu: u32) -> Tunnel {
    let ends = Ends { port: peer.port, vni: Vni::new(peer.vni).unwrap(), gre_key: None, macs: macs(peer) };
    built(peer, underlay, carries, Encap::Vxlan, ends, mtu)
}

fn macs(peer: &PeerHost) -> Macs {
    Macs { src: MacAddr(VTEP_MAC), dst: MacAddr(peer.vtep_mac) }
}

/// The way to a peer in another kind of tunnel over an uplink of 1500 bytes.
pub fn tunnel_in(peer: &PeerHost, encap: Encap, gre_key: Option<u32>) -> Tunnel {
    let underlay = Underlay::V4 { src: UNDERLAY, dst: peer.underlay };
    let port = if encap == Encap::Geneve { GENEVE_PORT } else { 0 };
    let ends = Ends { port, vni: Vni::new(peer.vni).unwrap(), gre_key, macs: macs(peer) };
    let tunnel = built(peer, underlay, ETHERTYPE_IPV4, encap, ends, 0);
    Tunnel { mtu: 1514 - tunnel.template_len, ..tunnel }
}

fn built(peer: &PeerHost, underlay: Underlay, carries: Be16, encap: Encap, ends: Ends, mtu: u32) -> Tunnel {
    let shell = Shell::of(encap, ends).unwrap();
    let template = Headers { underlay, carries, shell }.compile();
    let (local, remote) = match underlay {
        Underlay::V4 { src, dst } => (MapIp::v4(src), MapIp::v4(dst)),
        Underlay::V6 { src, dst } => (MapIp::new(src), MapIp::new(dst)),
    };
    Tunnel {
        template: template.bytes,
        room_flags: template.room_flags,
        template_len: template.len as u32,
        checksum: template.checksum,
        mtu,
        peer: peer.id,
        encap: encap as u32,
        flags: template.flags,
        local,
        remote,
        gateway: MapIp::default(),
        vni: ends.vni.key(),
        port: Be16::new(ends.port),
        padding: [0; 2],
        hops: [Hop { uplink: dev::UPLINK, next_hop: remote }; MAX_HOPS],
    }
}

/// The way to a peer without a tunnel.
pub fn straight(peer: &PeerHost) -> Tunnel {
    Tunnel {
        template: template::DIRECT.bytes,
        room_flags: template::DIRECT.room_flags,
        template_len: template::DIRECT.len as u32,
        checksum: 0,
        mtu: 1500,
        encap: Encap::Direct as u32,
        flags: 0,
        ..tunnel(peer)
    }
}

/// A frame as the container sends it to its gateway.
pub fn from_container(ip: &Ipv4) -> Vec<u8> {
    eth(GATEWAY_MAC, CONTAINER_MAC, crate::packet::IPV4, &ip.bytes())
}

/// A frame as the kernel sends it to a peer's subnet.
pub fn from_host(ip: &Ipv4) -> Vec<u8> {
    eth(OVERLAY_NEIGHBOUR, GATEWAY_MAC, crate::packet::IPV4, &ip.bytes())
}

/// The tunnel packet to a peer as it leaves the program: the outer Ethernet addresses are still zero, since
/// `bpf_redirect_neigh` writes them later, and the source port is a hash that no table can know.
pub fn to_peer(peer: &PeerHost, tos: u8, inner: Vec<u8>) -> Vec<u8> {
    Vxlan {
        eth_dst: [0; 6],
        eth_src: [0; 6],
        tos,
        src: UNDERLAY,
        dst: peer.underlay,
        dst_port: peer.port,
        inner_eth_dst: peer.vtep_mac,
        inner_eth_src: VTEP_MAC,
        ..from_peer(peer, inner)
    }
    .bytes()
}

/// A tunnel packet as a peer sends it to us.
pub fn from_peer(peer: &PeerHost, inner: Vec<u8>) -> Vxlan {
    Vxlan {
        eth_dst: UPLINK_MAC,
        eth_src: [0x02, 0, 0, 0, 0, 0x20],
        tos: 0,
        flags_fragment: 0x4000,
        ip_options: Vec::new(),
        src: peer.underlay,
        dst: UNDERLAY,
        src_port: 50_000,
        dst_port: PORT_NUMBER,
        flags: 0x08,
        reserved: [0; 3],
        vni: peer.vni,
        reserved2: 0,
        inner_eth_dst: VTEP_MAC,
        inner_eth_src: [0x06, 0xaa, 0, 0, 0, 2],
        inner_ethertype: crate::packet::IPV4,
        inner,
    }
}
