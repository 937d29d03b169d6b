//! The layout of every BPF map: names, capacities, keys and values.
//!
//! All types are `Pod` with explicit padding and asserted sizes: a pinned map outlives the program and the
//! daemon that made it. A change to any of them needs a new [`LAYOUT`], and may add to the end of a value and nothing
//! else: a daemon takes over from another layout by copying what both know (docs/adr/0019).

mod count;
mod decap;
mod flow;
mod neighbour;
mod node;
mod remote;
mod sample;
mod underlay;
mod workload;

pub use self::{
    count::*, decap::*, flow::*, neighbour::*, node::*, remote::*, sample::*, underlay::*, workload::*,
};

/// The layout version: a directory under the pin directory. aya 0.14 reuses a pinned map without comparing
/// its sizes, so maps of another layout must never be found.
pub const LAYOUT: &str = "v2";

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
    /// [`super::Route`] by [`super::PrefixV6`]: the IPv6 subnets of peers.
    pub const ROUTES_V6: &str = "ROUTES_V6";
    /// [`super::Subnet`] by [`super::PrefixV6`]: the IPv6 subnets of this host.
    pub const SUBNETS_V6: &str = "SUBNETS_V6";
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
    /// Ring buffer of [`crate::event::Event`], for the daemon.
    pub const EVENTS: &str = "EVENTS";
    /// [`super::PathMtu`] by the peer's outer address.
    pub const PATH_MTUS: &str = "PATH_MTUS";
    /// [`super::TunnelDevice`] by the UDP port (`u32`, host order).
    pub const TUNNEL_DEVICES: &str = "TUNNEL_DEVICES";
    /// What the operator should know, as [`super::Note`]s; the programs never read it.
    pub const NOTES: &str = "NOTES";
    /// The one [`super::Sampling`].
    pub const SAMPLING: &str = "SAMPLING";
    /// Per-CPU time of the last sample, nanoseconds of `CLOCK_MONOTONIC`, by [`crate::DropReason`].
    pub const SAMPLED: &str = "SAMPLED";
    /// Ring buffer of [`super::Sample`], for whoever listens.
    pub const SAMPLES: &str = "SAMPLES";
    /// [`super::Decap`] by the uplink's ifindex.
    pub const DECAPS: &str = "DECAPS";
    /// [`super::Generation`] of the tables.
    pub const GENERATION: &str = "GENERATION";
    /// Per-CPU [`super::EgressFlow`]s, by [`super::slot`].
    pub const EGRESS_FLOWS: &str = "EGRESS_FLOWS";
    /// Per-CPU [`super::IngressFlow`]s, by [`super::slot`].
    pub const INGRESS_FLOWS: &str = "INGRESS_FLOWS";
    /// [`super::Neighbour`] by [`super::NeighbourKey`].
    pub const NEIGHBOURS: &str = "NEIGHBOURS";

    /// Every map.
    pub const ALL: [&str; 26] = [
        PORTS,
        ENDPOINTS,
        ROUTES_V4,
        SUBNETS_V4,
        ROUTES_V6,
        SUBNETS_V6,
        TUNNELS,
        PEERS,
        UPLINKS,
        LISTEN_PORTS,
        NODE,
        STATUS,
        COUNTERS,
        DROPS,
        EVENTS,
        PATH_MTUS,
        TUNNEL_DEVICES,
        NOTES,
        SAMPLING,
        SAMPLED,
        SAMPLES,
        DECAPS,
        GENERATION,
        EGRESS_FLOWS,
        INGRESS_FLOWS,
        NEIGHBOURS,
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
    /// tcx ingress of an uplink without an Ethernet header (WireGuard, tun): what peers send.
    pub const UPLINK_L3: &str = "uplink_l3";
    /// tcx ingress of the uplink: what peers send in other ways than VXLAN.
    pub const UPLINK_KINDS: &str = "uplink_kinds";
    /// tcx ingress of the uplink: addresses that peers resolve, by ARP or neighbour discovery.
    pub const UPLINK_RESOLVE: &str = "uplink_resolve";
    /// tcx ingress of the tunnel devices: what the kernel reassembled and decapsulated.
    pub const TUNNEL_INGRESS: &str = "tunnel_ingress";
    /// XDP of the uplink, where that is the place to decapsulate.
    pub const UPLINK_DECAP: &str = "uplink_decap";

    /// The programs of the traffic-control hooks, which are always needed.
    pub const TCX: [&str; 7] = [
        WORKLOAD_EGRESS,
        BRIDGE_EGRESS,
        UPLINK_INGRESS,
        TUNNEL_INGRESS,
        UPLINK_L3,
        UPLINK_KINDS,
        UPLINK_RESOLVE,
    ];

    /// Every program. The position is the number in a [`super::Sample`].
    pub const ALL: [&str; 8] = [
        WORKLOAD_EGRESS,
        BRIDGE_EGRESS,
        UPLINK_INGRESS,
        TUNNEL_INGRESS,
        UPLINK_DECAP,
        UPLINK_L3,
        UPLINK_KINDS,
        UPLINK_RESOLVE,
    ];
}

/// Entries of `PORTS`.
pub const MAX_PORTS: usize = 16_384;
/// Entries of `ENDPOINTS`.
pub const MAX_ENDPOINTS: usize = 65_536;
/// Entries of `ROUTES_V4`, and of `ROUTES_V6`. A limit alone: a trie takes memory for the routes that it has.
pub const MAX_ROUTES: usize = 1 << 20;
/// Entries of `SUBNETS_V4`, and of `SUBNETS_V6`.
pub const MAX_SUBNETS: usize = 256;
/// Entries of `TUNNELS`. Id 0 is never used.
pub const MAX_TUNNELS: usize = 32_768;
/// Peers. Id 0 is never used.
pub const MAX_PEERS: usize = 16_384;
/// Entries of `PEERS`: one per peer, and one more per peer and VNI that it may send with.
pub const MAX_PEER_KEYS: usize = 4 * MAX_PEERS;
/// Entries of `UPLINKS`.
pub const MAX_UPLINKS: usize = 16;
/// Entries of `LISTEN_PORTS`.
pub const MAX_LISTEN_PORTS: usize = 64;
/// Entries of `NOTES`.
pub const MAX_NOTES: usize = 16;
/// Bytes of `SAMPLES`; a power of two and a multiple of the page size.
pub const SAMPLES_BYTES: usize = 1 << 18;
/// Bytes of `EVENTS`; a power of two and a multiple of the page size.
pub const EVENTS_BYTES: usize = 1 << 18;

const _: () = {
    assert!(size_of::<Port>() == 88);
    assert!(size_of::<EndpointKey>() == 20);
    assert!(size_of::<Endpoint>() == 32);
    assert!(size_of::<PrefixV4>() == 8);
    assert!(size_of::<PrefixV6>() == 20);
    assert!(size_of::<Route>() == 12);
    assert!(size_of::<Subnet>() == 40);
    assert!(size_of::<Hop>() == 20);
    assert!(size_of::<Tunnel>() == 344);
    assert!(size_of::<NeighbourKey>() == 20);
    assert!(size_of::<Neighbour>() == 24);
    assert!(size_of::<PeerKey>() == 20);
    assert!(size_of::<Peer>() == 16);
    assert!(size_of::<Uplink>() == 20);
    assert!(size_of::<Node>() == 20);
    assert!(size_of::<Status>() == 480);
    assert!(size_of::<Traffic>() == 16);
    assert!(size_of::<PathMtu>() == 16);
    assert!(size_of::<TunnelDevice>() == 8);
    assert!(size_of::<Note>() == 256);
    assert!(size_of::<Sampling>() == 8);
    assert!(size_of::<EgressFlow>() == 60);
    assert!(size_of::<IngressFlow>() == 112);
    assert!(size_of::<Sample>() == 160);
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
