//! The layout of every BPF map: names, capacities, keys and values.
//!
//! All types are `Pod` with explicit padding and asserted sizes: a pinned map outlives the program and the
//! daemon that made it. A change to any of them needs a new [`LAYOUT`].

use bytemuck::{Pod, Zeroable};

use crate::{Be16, Mac, addr::MapIp, vni::VniKey};

/// The layout version: a directory under the pin directory. aya 0.14 reuses a pinned map without comparing
/// its sizes, so maps of another layout must never be found.
pub const LAYOUT: &str = "v1";

/// Map names, as they stand in the object file, under the pin directory and in `bpftool map`.
pub mod name {
    /// [`super::Port`] by ifindex.
    pub const PORTS: &str = "PORTS";
    /// [`super::Endpoint`] by [`super::EndpointKey`].
    pub const ENDPOINTS: &str = "ENDPOINTS";
    /// [`super::Route`] by [`super::PrefixV4`]: the subnets of peers.
    pub const ROUTES_V4: &str = "ROUTES_V4";
    /// [`super::Subnet`] by [`super::PrefixV4`]: the subnets of this host.
    pub const SUBNETS_V4: &str = "SUBNETS_V4";
    /// [`super::Tunnel`] by tunnel id.
    pub const TUNNELS: &str = "TUNNELS";
    /// [`super::Peer`] by [`super::PeerKey`].
    pub const PEERS: &str = "PEERS";
    /// [`super::Uplink`] by ifindex.
    pub const UPLINKS: &str = "UPLINKS";
    /// Further UDP ports that carry tunnels, as keys; the value is the [`crate::Encap`] number.
    pub const LISTEN_PORTS: &str = "LISTEN_PORTS";
    /// The one [`super::Node`].
    pub const NODE: &str = "NODE";
    /// The one [`super::Status`]; the programs never read it.
    pub const STATUS: &str = "STATUS";
    /// Per-CPU [`super::Traffic`] by [`super::Traffic::index`].
    pub const COUNTERS: &str = "COUNTERS";
    /// Per-CPU packets by [`crate::DropReason`].
    pub const DROPS: &str = "DROPS";
    /// Ring buffer of [`crate::event::Event`].
    pub const EVENTS: &str = "EVENTS";

    /// Every map.
    pub const ALL: [&str; 13] = [
        PORTS,
        ENDPOINTS,
        ROUTES_V4,
        SUBNETS_V4,
        TUNNELS,
        PEERS,
        UPLINKS,
        LISTEN_PORTS,
        NODE,
        STATUS,
        COUNTERS,
        DROPS,
        EVENTS,
    ];
}

/// Program names: `<where>_<hook>`.
pub mod program {
    /// tcx ingress of bridges and their ports: what containers send.
    pub const WORKLOAD_EGRESS: &str = "workload_egress";
    /// tcx egress of bridges: what the host sends, and what the fast path declined.
    pub const BRIDGE_EGRESS: &str = "bridge_egress";
    /// tcx ingress of the uplink: what peers send.
    pub const UPLINK_INGRESS: &str = "uplink_ingress";

    /// Every program.
    pub const ALL: [&str; 3] = [WORKLOAD_EGRESS, BRIDGE_EGRESS, UPLINK_INGRESS];
}

/// Entries of `PORTS`.
pub const MAX_PORTS: usize = 16_384;
/// Entries of `ENDPOINTS`.
pub const MAX_ENDPOINTS: usize = 65_536;
/// Entries of `ROUTES_V4`.
pub const MAX_ROUTES: usize = 65_536;
/// Entries of `SUBNETS_V4`.
pub const MAX_SUBNETS: usize = 256;
/// Entries of `TUNNELS`. Id 0 is never used.
pub const MAX_TUNNELS: usize = 16_384;
/// Peers. Id 0 is never used.
pub const MAX_PEERS: usize = 4_096;
/// Entries of `PEERS`: one per peer, and one more per peer and VNI.
pub const MAX_PEER_KEYS: usize = 4 * MAX_PEERS;
/// Entries of `UPLINKS`.
pub const MAX_UPLINKS: usize = 16;
/// Entries of `LISTEN_PORTS`.
pub const MAX_LISTEN_PORTS: usize = 64;
/// Bytes of `EVENTS`; a power of two and a multiple of the page size.
pub const EVENTS_BYTES: usize = 1 << 18;

/// Flags of a [`Port`].
pub mod port_flag {
    /// The bridge itself rather than one of its ports: who sent a packet cannot be told from the interface.
    pub const BRIDGE: u32 = 1;
    /// A veth whose other end lives in another network namespace: `bpf_redirect_peer` works. Elsewhere the
    /// kernel frees the packet without a word.
    pub const PEER: u32 = 2;
}

/// A bridge or one of its ports: where packets enter the overlay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Port {
    /// The network it belongs to.
    pub vni: VniKey,
    /// The bridge's ifindex.
    pub bridge: u32,
    /// [`port_flag`]s.
    pub flags: u32,
    /// The bridge's subnet, network order.
    pub subnet: [u8; 4],
    /// Its mask, network order.
    pub mask: [u8; 4],
    /// The bridge's address, network order.
    pub gateway: [u8; 4],
    /// The bridge's MAC address.
    pub gateway_mac: Mac,
    /// Zero.
    pub padding: [u8; 2],
    /// Endpoints the programs have learned on this port since the daemon last counted. At
    /// [`MAX_LEARNED_PER_PORT`] they learn no more, so that one container cannot fill the table.
    pub learned: u32,
    /// When this port last sent an event: milliseconds of `CLOCK_MONOTONIC`, the low 32 bits.
    pub last_event_ms: u32,
}

/// The most endpoints that the programs learn on one port.
pub const MAX_LEARNED_PER_PORT: u32 = 256;

/// Key of `ENDPOINTS`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct EndpointKey {
    /// The network.
    pub vni: VniKey,
    /// The endpoint's address.
    pub ip: MapIp,
}

/// Who says that an endpoint lives where it does. A higher number is a stronger authority and is never
/// displaced by a weaker one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum EndpointSource {
    /// It spoke from there.
    Spoken = 1,
    /// The kernel's neighbour entry and the bridge's FDB.
    Neighbour = 2,
    /// Docker.
    Docker = 3,
    /// The bridge's own address.
    Gateway = 4,
}

impl EndpointSource {
    /// The name in the CLI and in JSON, or `unknown`.
    pub const fn name_of(number: u32) -> &'static str {
        match number {
            1 => "spoken",
            2 => "neighbour",
            3 => "docker",
            4 => "gateway",
            _ => "unknown",
        }
    }
}

/// Flags of an [`Endpoint`].
pub mod endpoint_flag {
    /// Deliver with `bpf_redirect_peer`; otherwise by a plain redirect to the port.
    pub const PEER: u32 = 1;
    /// The bridge's own address: deliver to the host.
    pub const HOST: u32 = 2;
}

/// A local address and the interface behind which it lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Endpoint {
    /// When it last spoke: nanoseconds of `CLOCK_MONOTONIC`, renewed at most once a second.
    pub last_seen: u64,
    /// The host's side of the veth, or the bridge for the gateway.
    pub ifindex: u32,
    /// [`endpoint_flag`]s.
    pub flags: u32,
    /// An [`EndpointSource`].
    pub source: u32,
    /// Its MAC address.
    pub mac: Mac,
    /// The bridge's MAC address: the source of what is delivered to it.
    pub gateway_mac: Mac,
}

/// Key of the LPM tries over IPv4: a prefix inside a network. The prefix length counts the 32 bits of the
/// VNI too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct PrefixV4 {
    /// The network: always matched whole.
    pub vni: VniKey,
    /// The address, network order.
    pub addr: [u8; 4],
}

impl PrefixV4 {
    /// Bits of the VNI, in front of the address's own.
    pub const VNI_BITS: u32 = 32;
}

/// Which store a route came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum RouteSource {
    /// A key in etcd.
    Etcd = 1,
    /// The peers file.
    File = 2,
}

impl RouteSource {
    /// The name in the CLI and in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::File => "file",
        }
    }

    /// The source stored under a number in a map.
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Etcd),
            2 => Some(Self::File),
            _ => None,
        }
    }
}

/// A peer's subnet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Route {
    /// Index into `TUNNELS`.
    pub tunnel: u32,
    /// The peer that owns the subnet: the only one whose packets may have a source in it.
    pub peer: u32,
    /// A [`RouteSource`].
    pub source: u32,
}

/// A subnet of this host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Subnet {
    /// The bridge's ifindex.
    pub bridge: u32,
    /// The address of the bridge, network order.
    pub gateway: [u8; 4],
    /// The subnet's directed broadcast address, network order.
    pub broadcast: [u8; 4],
}

/// Bytes of the longest header template.
pub const TEMPLATE_BYTES: usize = 96;

/// How to reach a peer in one network: its outer headers, compiled by [`crate::template`], and where they
/// go. Never overwritten while a route points to it, since the programs may be copying it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Tunnel {
    /// Outer Ethernet header to inner Ethernet header, ready but for the fields that differ by packet.
    pub template: [u8; TEMPLATE_BYTES],
    /// Flags of `bpf_skb_adjust_room`.
    pub room_flags: u64,
    /// Bytes of `template` in use; 0 marks an id that is free.
    pub template_len: u32,
    /// Unfolded checksum of the outer IPv4 header without TOS and total length.
    pub checksum: u32,
    /// The uplink's ifindex.
    pub uplink: u32,
    /// The largest inner IP packet, bytes.
    pub mtu: u32,
    /// The peer's id.
    pub peer: u32,
    /// An [`crate::Encap`].
    pub encap: u32,
    /// The underlay next hop: the peer itself, or the gateway to it.
    pub next_hop: MapIp,
    /// The peer's outer address.
    pub remote: MapIp,
    /// The VNI on the wire.
    pub vni: VniKey,
    /// The UDP destination port on the wire.
    pub port: Be16,
    /// Zero.
    pub padding: [u8; 2],
}

/// Key of `PEERS`. With [`VniKey::NONE`] the entry says only that the address is a peer's, which tells a
/// wrong VNI from a stranger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct PeerKey {
    /// The VNI on the wire, or none.
    pub vni: VniKey,
    /// The outer source address.
    pub ip: MapIp,
}

/// A host whose packets are believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Peer {
    /// Its id, 1 to [`MAX_PEERS`] - 1.
    pub id: u32,
    /// The local network that its packets with this VNI belong to; none in the entry for the host.
    pub network: VniKey,
}

/// An underlay interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Uplink {
    /// Our address on it, to which peers send; network order.
    pub addr: [u8; 4],
}

/// What the programs need to know of this host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Node {
    /// The inner destination MAC address we answer to, besides broadcast.
    pub vtep_mac: Mac,
    /// The UDP port we listen on.
    pub port: Be16,
    /// The VNI of the bridges.
    pub vni: VniKey,
}

/// Bytes of a name in [`Status`].
pub const NAME_BYTES: usize = 64;
/// Bytes of the message in [`Status`].
pub const MESSAGE_BYTES: usize = 256;

/// What `overlayctl status` tells, kept in a map so that it can be told with the daemon dead. Texts are
/// UTF-8 padded with zeroes; times are seconds since 1970, 0 for never.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Status {
    /// The network namespace that the interfaces live in: its cookie.
    pub netns_cookie: u64,
    /// When the daemon started.
    pub started: u64,
    /// When the daemon last wrote here.
    pub heartbeat: u64,
    /// When the store was last known to be in step.
    pub store_synced: u64,
    /// The daemon's process id, 0 after it has ended in order.
    pub pid: u32,
    /// A [`StoreKind`].
    pub store_kind: u32,
    /// A [`StoreState`].
    pub store_state: u32,
    /// The uplink's ifindex.
    pub uplink: u32,
    /// The overlay MTU, bytes.
    pub mtu: u32,
    /// The address that peers reach us at.
    pub public_ip: MapIp,
    /// Zero.
    pub padding: [u8; 4],
    /// The node's name.
    pub node_name: [u8; NAME_BYTES],
    /// The uplink's name.
    pub uplink_name: [u8; NAME_BYTES],
    /// What is wrong, if anything.
    pub message: [u8; MESSAGE_BYTES],
}

/// Where routes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum StoreKind {
    /// etcd.
    Etcd = 1,
    /// A peers file.
    File = 2,
}

/// How the store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum StoreState {
    /// Not yet heard of.
    Starting = 0,
    /// In step.
    Ok = 1,
    /// Out of reach, or what it says cannot be used; the last good state stays in force.
    Degraded = 2,
}

/// Packets and bytes, inner IP bytes, headers included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Traffic {
    /// Packets; an aggregate (GSO, GRO) counts its segments.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// The two directions of [`Traffic`], seen from this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Direction {
    /// Encapsulated and sent to the peer.
    ToPeer = 0,
    /// Received from the peer and delivered.
    FromPeer = 1,
}

impl Traffic {
    /// Entries of `COUNTERS`.
    pub const CAPACITY: usize = MAX_PEERS * 2;

    /// The entry for a peer and a direction.
    #[inline(always)]
    pub const fn index(peer: u32, direction: Direction) -> u32 {
        peer * 2 + direction as u32
    }
}

const _: () = {
    assert!(size_of::<Port>() == 40);
    assert!(size_of::<EndpointKey>() == 20);
    assert!(size_of::<Endpoint>() == 32);
    assert!(size_of::<PrefixV4>() == 8);
    assert!(size_of::<Route>() == 12);
    assert!(size_of::<Subnet>() == 12);
    assert!(size_of::<Tunnel>() == 168);
    assert!(size_of::<PeerKey>() == 20);
    assert!(size_of::<Peer>() == 8);
    assert!(size_of::<Uplink>() == 4);
    assert!(size_of::<Node>() == 12);
    assert!(size_of::<Status>() == 456);
    assert!(size_of::<Traffic>() == 16);
    // The kernel cuts names at 15 bytes (BPF_OBJ_NAME_LEN - 1).
    let mut i = 0;
    while i < name::ALL.len() {
        assert!(name::ALL[i].len() <= 15);
        i += 1;
    }
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_entries_do_not_collide() {
        let last = Traffic::index(MAX_PEERS as u32 - 1, Direction::FromPeer);
        assert_eq!(last as usize, Traffic::CAPACITY - 1);
        assert_ne!(Traffic::index(1, Direction::ToPeer), Traffic::index(0, Direction::FromPeer));
    }

    #[test]
    fn stored_numbers_are_frozen() {
        assert_eq!([EndpointSource::Spoken as u32, EndpointSource::Neighbour as u32], [1, 2]);
        assert_eq!([EndpointSource::Docker as u32, EndpointSource::Gateway as u32], [3, 4]);
        assert_eq!([RouteSource::Etcd as u32, RouteSource::File as u32], [1, 2]);
        for source in [RouteSource::Etcd, RouteSource::File] {
            assert_eq!(RouteSource::from_number(source as u32), Some(source));
        }
    }
}
