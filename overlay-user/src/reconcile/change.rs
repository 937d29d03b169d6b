//! The changes that a plan is made of.

use overlay_common::map::{Peer, PeerKey, Route, Tunnel};

use crate::{datapath::map::RouteKey, netlink::OverlayRoute};

/// One change, safe on its own once those before it are done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Believe a peer. `fresh` where the id has a new owner, whose counters start at zero.
    PutPeer {
        /// The entry's key.
        key: PeerKey,
        /// The entry.
        peer: Peer,
        /// Whether the id is new.
        fresh: bool,
    },
    /// Listen on a further UDP port.
    PutListenPort(u16),
    /// Fill a tunnel id that no route uses.
    PutTunnel(u32, Box<Tunnel>),
    /// Point a prefix to a tunnel.
    PutRoute(RouteKey, Route),
    /// Lead the host's own packets into the overlay: neighbour and route.
    PutKernelRoute(OverlayRoute),
    /// Lead them there no more.
    DeleteKernelRoute(OverlayRoute),
    /// Forget a prefix.
    DeleteRoute(RouteKey),
    /// Believe a peer no more.
    DeletePeer(PeerKey),
    /// Listen on a UDP port no more.
    DeleteListenPort(u16),
    /// Free a tunnel id.
    ClearTunnel(u32),
}
