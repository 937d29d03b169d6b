//! What a CPU remembers of the flows that it sees, so that most packets need one lookup instead of five.
//!
//! An entry repeats what the tables said, and holds as long as they say the same: the daemon counts [`Generation`] up
//! after every change of a table, and an entry of another generation is none.

use bytemuck::{Pod, Zeroable};

use crate::{Be16, Mac, addr::MapIp, vni::VniKey};

/// Entries of `EGRESS_FLOWS` and of `INGRESS_FLOWS`, each: a power of two.
pub const MAX_FLOWS: usize = 1024;

/// How often the tables have changed. 0 is none: nothing is remembered then.
pub type Generation = u32;

/// A container's sender and destination, whose packets may leave through a tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct EgressFlow {
    /// The generation of the tables that said so; 0 where the entry is free.
    pub generation: Generation,
    /// The port.
    pub ifindex: u32,
    /// The sender's address.
    pub src: MapIp,
    /// The destination's.
    pub dst: MapIp,
    /// The sender's MAC address.
    pub mac: Mac,
    /// The bridge's, to which it sends.
    pub gateway_mac: Mac,
    /// The EtherType of the version of IP.
    pub version: Be16,
    /// Zero.
    pub padding: [u8; 2],
    /// The id of the tunnel to it.
    pub tunnel: u32,
}

/// A peer's sender and a local container, which it may send to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct IngressFlow {
    /// The generation of the tables that said so; 0 where the entry is free.
    pub generation: Generation,
    /// The VNI on the wire.
    pub vni: VniKey,
    /// The EtherTypes of the outer and of the inner version of IP.
    pub versions: [Be16; 2],
    /// The outer source.
    pub outer_src: MapIp,
    /// The outer destination: this host.
    pub outer_dst: MapIp,
    /// The inner source.
    pub src: MapIp,
    /// The inner destination.
    pub dst: MapIp,
    /// The uplink that it comes in on.
    pub uplink: u32,
    /// The UDP port that it is sent to.
    pub port: Be16,
    /// The inner frame's destination: this VTEP, or broadcast.
    pub inner_mac: Mac,
    /// The peer's id.
    pub peer: u32,
    /// The network that it sends into.
    pub network: VniKey,
    /// The container's interface, a veth whose other end is in its namespace.
    pub ifindex: u32,
    /// Its MAC address.
    pub mac: Mac,
    /// Its bridge's.
    pub gateway_mac: Mac,
}

/// The entry where two addresses are looked for: Fibonacci hashing of all their words.
#[inline(always)]
pub const fn slot(src: MapIp, dst: MapIp) -> u32 {
    let ([a, b, c, d], [e, f, g, h]) = (src.words(), dst.words());
    let mixed = (a ^ b ^ c ^ d).rotate_left(16) ^ e ^ f ^ g ^ h;
    mixed.wrapping_mul(0x9e37_79b9) >> (u32::BITS - MAX_FLOWS.ilog2())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_have_different_slots() {
        let slots = |addr: fn(u8) -> MapIp| {
            (0..=255).map(|n| slot(addr(1), addr(n))).collect::<std::collections::BTreeSet<_>>().len()
        };
        assert!(slots(|n| MapIp::v4([10, 0, 0, n])) > 200);
        assert!(slots(|n| MapIp::v4([10, 0, n, 2])) > 200);
        assert!(slots(|n| MapIp::new([0xfd, 0, 0, 0, 0, 0, 0, n, 0, 0, 0, 0, 0, 0, 0, 2])) > 200);
        assert!(slot(MapIp::v4([255; 4]), MapIp::v4([254; 4])) < MAX_FLOWS as u32);
    }
}
