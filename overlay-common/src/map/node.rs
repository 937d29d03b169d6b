//! This host: its uplink, its VTEP, and the daemon's word on itself.

use bytemuck::{Pod, Zeroable};

use crate::{Be16, Mac, addr::MapIp, vni::VniKey};

/// An underlay interface: the addresses of ours to which peers send, whichever of the uplinks has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Uplink {
    /// The IPv4 address, network order; 0.0.0.0 for none.
    pub v4: [u8; 4],
    /// The IPv6 address, network order; `::` for none.
    pub v6: [u8; 16],
}

/// What the programs need to know of this host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Node {
    /// The inner destination MAC address we answer to, besides broadcast.
    pub vtep_mac: Mac,
    /// The UDP port we listen on for VXLAN.
    pub port: Be16,
    /// The VNI of the bridges.
    pub vni: VniKey,
    /// How peers may send besides in VXLAN, as [`crate::Kinds::bits`].
    pub kinds: u32,
    /// The UDP port we listen on for Geneve.
    pub geneve_port: Be16,
    /// Zero.
    pub padding: [u8; 2],
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
    /// The IPv4 address that peers reach us at; `::` for none.
    pub public_ip: MapIp,
    /// The IPv6 address that peers reach us at; `::` for none.
    pub public_ip_v6: MapIp,
    /// Zero.
    pub padding: [u8; 4],
    /// The node's name.
    pub node_name: [u8; NAME_BYTES],
    /// The uplink's name.
    pub uplink_name: [u8; NAME_BYTES],
    /// What is wrong, if anything.
    pub message: [u8; MESSAGE_BYTES],
    /// How often this daemon has repaired what somebody else had changed.
    pub repaired: u64,
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

/// Bytes of a [`Note`].
pub const NOTE_BYTES: usize = 256;

/// A line that the operator should know though nothing is wrong, UTF-8 padded with zeroes; empty behind the
/// last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Note {
    /// The line.
    pub text: [u8; NOTE_BYTES],
}
