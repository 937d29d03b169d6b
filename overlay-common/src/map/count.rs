//! Traffic counters.

use bytemuck::{Pod, Zeroable};

use super::MAX_PEERS;

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
    /// The id that no peer has: its [`Direction::ToPeer`] counts what went from container to container on this
    /// host past the bridge.
    pub const LOCAL: u32 = 0;

    /// The entry for a peer and a direction.
    #[inline(always)]
    pub const fn index(peer: u32, direction: Direction) -> u32 {
        peer * 2 + direction as u32
    }
}
