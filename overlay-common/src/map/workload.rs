//! The local side: bridges, their ports, and the endpoints behind them.

use bytemuck::{Pod, Zeroable};

use crate::{Mac, addr::MapIp, vni::VniKey};

/// Flags of a [`Port`].
pub mod port_flag {
    /// The bridge itself rather than one of its ports: who sent a packet cannot be told from the interface.
    pub const BRIDGE: u32 = 1;
    /// A veth whose other end lives in another network namespace: `bpf_redirect_peer` works. Elsewhere the
    /// kernel frees the packet without a word.
    pub const PEER: u32 = 2;
    /// Nothing filters or rewrites what IPv4 goes from one port of the bridge to another, so the programs may hand it
    /// over without the bridge.
    pub const LOCAL: u32 = 4;
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
    /// The bridge's IPv6 subnet, network order; `::` where it has none.
    pub subnet_v6: [u8; 16],
    /// Its mask, network order; all ones where there is none, so that no address is in it.
    pub mask_v6: [u8; 16],
    /// The bridge's IPv6 address, network order.
    pub gateway_v6: [u8; 16],
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
    /// Somebody else claims the address, and who has it was asked whether it still does. The programs do
    /// not read this.
    pub const CONTESTED: u32 = 4;
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

/// Flags of a [`Subnet`].
pub mod subnet_flag {
    /// It is not the bridge's: the host's kernel routes for it.
    pub const ROUTED: u32 = 1;
}

/// A subnet of this host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Subnet {
    /// The bridge's ifindex.
    pub bridge: u32,
    /// The address of the bridge.
    pub gateway: MapIp,
    /// The subnet's directed broadcast address; `::` for IPv6, which has none.
    pub broadcast: MapIp,
    /// [`subnet_flag`]s.
    pub flags: u32,
}
