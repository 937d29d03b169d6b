//! What the programs tell the daemon through the `EVENTS` ring buffer.

use bytemuck::{Pod, Zeroable};

use crate::{Mac, addr::MapIp, vni::VniKey};

/// An address spoke from another port than the one it is known on. The programs never move an endpoint by
/// themselves; the daemon asks the kernel's neighbour table who is right.
pub const ENDPOINT_MOVED: u32 = 1;

/// The underlay told of a smaller MTU on the way to a peer: `ip` is the peer's outer address, and `PATH_MTUS`
/// holds the MTU.
pub const PATH_MTU_CHANGED: u32 = 2;

/// Somebody is to be asked for: `ip` is an address in a peer's subnet, whose MAC address `NEIGHBOURS` does not know, or
/// not any more.
pub const NEIGHBOUR_WANTED: u32 = 3;

/// One event. All events have this layout; `kind` says which fields count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Event {
    /// [`ENDPOINT_MOVED`], [`PATH_MTU_CHANGED`] or [`NEIGHBOUR_WANTED`].
    pub kind: u32,
    /// The interface it happened on.
    pub ifindex: u32,
    /// The network.
    pub vni: VniKey,
    /// The endpoint's address.
    pub ip: MapIp,
    /// The MAC address it spoke from.
    pub mac: Mac,
    /// Zero.
    pub padding: [u8; 2],
}

const _: () = assert!(size_of::<Event>() == 36);
