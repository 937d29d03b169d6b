//! What the underlay tells, and the tunnel devices on it.

use bytemuck::{Pod, Zeroable};

/// Flags of a [`TunnelDevice`].
pub mod tunnel_device_flag {
    /// The port's socket belongs to a tunnel device that is not ours: VNIs that are not ours are left to it.
    pub const SHARED: u32 = 1;
}

/// Who holds the socket of a UDP port that carries tunnels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct TunnelDevice {
    /// Our tunnel device's ifindex; 0 where we have none on this port.
    pub ifindex: u32,
    /// [`tunnel_device_flag`]s.
    pub flags: u32,
}

/// The MTU of the path to a peer, as a router on it told (RFC 1191, RFC 8201). Written by `uplink_ingress`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct PathMtu {
    /// When it was told last: nanoseconds of `CLOCK_MONOTONIC`.
    pub told: u64,
    /// The largest outer IP packet, bytes.
    pub mtu: u32,
    /// Zero.
    pub padding: [u8; 4],
}

/// The least path MTU believed, in bytes, as the kernel's `net.ipv4.route.min_pmtu`: a forged message must not
/// starve a peer.
pub const MIN_PATH_MTU: u32 = 552;

/// The same over IPv6: its links carry no less (RFC 8200 section 5).
pub const MIN_PATH_MTU_V6: u32 = crate::wire::ipv6::MIN_MTU;

/// Nanoseconds for which a path MTU is believed, as the kernel's `net.ipv4.route.mtu_expires`: the path may
/// have got better.
pub const PATH_MTU_LIFETIME: u64 = 600 * 1_000_000_000;
