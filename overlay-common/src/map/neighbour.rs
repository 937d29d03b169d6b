//! The neighbours behind tunnels that carry frames: of peers that are bridges.

use bytemuck::{Pod, Zeroable};

use crate::{Mac, addr::MapIp};

/// Entries of `NEIGHBOURS`: the least recently used goes where they are too few.
pub const MAX_NEIGHBOURS: usize = 65_536;

/// Nanoseconds for which an address is sent to where it was last heard.
pub const NEIGHBOUR_LIFETIME: u64 = 300_000_000_000;
/// Nanoseconds after which who is sent to is asked for again.
pub const NEIGHBOUR_FRESH: u64 = 30_000_000_000;
/// Nanoseconds between two requests to ask for one address.
pub const NEIGHBOUR_INTERVAL: u64 = 1_000_000_000;

/// An address behind a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct NeighbourKey {
    /// The peer's id.
    pub peer: u32,
    /// The address of its container, or of its bridge.
    pub ip: MapIp,
}

/// Where frames for an address go. Times are nanoseconds of `CLOCK_MONOTONIC`; the programs' clock may be a tick behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Neighbour {
    /// When it was last heard, 0 for never.
    pub seen: u64,
    /// When the daemon was last told to ask for it.
    pub asked: u64,
    /// Its MAC address, or that of who routes for it.
    pub mac: Mac,
    /// Zero.
    pub padding: [u8; 2],
}

impl Neighbour {
    /// Whether frames still go there at a time.
    #[inline(always)]
    pub const fn is_alive(&self, now: u64) -> bool {
        self.seen != 0 && now.saturating_sub(self.seen) < NEIGHBOUR_LIFETIME
    }

    /// Whether it is to be asked for at a time.
    #[inline(always)]
    pub const fn is_wanted(&self, now: u64) -> bool {
        now.saturating_sub(self.seen) > NEIGHBOUR_FRESH && now.saturating_sub(self.asked) > NEIGHBOUR_INTERVAL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_old_is_asked_for_and_what_is_older_is_no_more() {
        let now = 10 * NEIGHBOUR_LIFETIME;
        let heard =
            |ago: u64, asked: u64| Neighbour { seen: now - ago, asked: now - asked, ..Neighbour::default() };
        let of = |neighbour: Neighbour| (neighbour.is_alive(now), neighbour.is_wanted(now));
        assert_eq!(of(Neighbour::default()), (false, true));
        assert_eq!(of(heard(0, now)), (true, false));
        assert_eq!(of(heard(NEIGHBOUR_FRESH + 1, now)), (true, true));
        assert_eq!(of(heard(NEIGHBOUR_FRESH + 1, NEIGHBOUR_INTERVAL)), (true, false));
        assert_eq!(of(heard(NEIGHBOUR_LIFETIME, now)), (false, true));
    }
}
