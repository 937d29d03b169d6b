//! The changes that a plan is made of.

use std::net::IpAddr;

use overlay_common::map::{Peer, PeerKey, Route, Tunnel};

use super::held::Held;
use crate::{
    datapath::map::RouteKey,
    netlink::{OverlayRoute, OverlayRule},
};

/// A permanent neighbour on a bridge that stands for a peer's subnet: the bridge's ifindex, and the address.
pub type OverlayNeighbour = (u32, IpAddr);

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
    /// Listen on a further UDP port, for an [`overlay_common::Encap`].
    PutListenPort(u16, u32),
    /// Fill a tunnel id that no route uses.
    PutTunnel(u32, Box<Tunnel>),
    /// Point a prefix to a tunnel.
    PutRoute(RouteKey, Route),
    /// Give a bridge the neighbour that stands for a peer's subnet.
    PutNeighbour(OverlayNeighbour),
    /// Lead packets that the kernel routes into the overlay.
    PutKernelRoute(OverlayRoute),
    /// Look a further bridge's packets up in its own table first.
    PutRule(OverlayRule),
    /// Look them up there no more.
    DeleteRule(OverlayRule),
    /// Lead packets there no more.
    DeleteKernelRoute(OverlayRoute),
    /// Take a neighbour away.
    DeleteNeighbour(OverlayNeighbour),
    /// Forget a prefix.
    DeleteRoute(RouteKey),
    /// Believe a peer no more.
    DeletePeer(PeerKey),
    /// Listen on a UDP port no more.
    DeleteListenPort(u16),
    /// Free a tunnel id.
    ClearTunnel(u32),
}

impl Change {
    /// True for what packets between containers need: new entries of maps, and before them the kernel routes whose MTU
    /// falls.
    pub fn is_for_maps(&self, held: &Held) -> bool {
        match self {
            Self::PutPeer { .. } | Self::PutListenPort(..) | Self::PutTunnel(..) | Self::PutRoute(..) => true,
            Self::PutKernelRoute(route) => {
                let before = held.observed().kernel_routes.get(&(route.table, route.prefix));
                before.is_some_and(|before| route.mtu < before.mtu)
            }
            _ => false,
        }
    }
}
