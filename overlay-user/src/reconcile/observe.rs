//! What is: read back from the pinned maps and the kernel's tables.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use overlay_common::{
    Mac,
    map::{Peer, PeerKey, Route},
};

use super::{
    change::{Change, OverlayNeighbour},
    desired::KernelRouteKey,
    kept::Kept,
    table,
};
use crate::{
    datapath::{
        DatapathError,
        map::{Maps, RouteKey},
    },
    netlink::{Family, Netlink, OverlayRoute, OverlayRule},
};

/// The protocol (RTPROT_*) of our routes and rules: how they are told from everybody else's.
pub const ROUTE_PROTOCOL: u8 = 79;

/// What the kernel holds because of peers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// `ROUTES_V4`.
    pub routes: BTreeMap<RouteKey, Route>,
    /// `TUNNELS` in use.
    pub tunnels: BTreeMap<u32, Kept>,
    /// `PEERS`.
    pub peers: BTreeMap<PeerKey, Peer>,
    /// `LISTEN_PORTS`.
    pub listen_ports: BTreeMap<u16, u32>,
    /// Our routes in the kernel's tables.
    pub kernel_routes: BTreeMap<KernelRouteKey, OverlayRoute>,
    /// Our neighbours on bridges.
    pub neighbours: BTreeSet<OverlayNeighbour>,
    /// Our rules.
    pub rules: BTreeSet<OverlayRule>,
    /// Prefixes for which somebody else has a route in the main table.
    pub foreign_routes: BTreeSet<IpNet>,
}

/// Reads everything.
///
/// # Errors
/// [`DatapathError`] where a map cannot be read. Kernel tables that cannot be read count as empty: the
/// routes are then set again, which changes nothing.
pub async fn read(maps: &Maps, netlink: &Netlink, bridges: &[u32]) -> Result<Observed, DatapathError> {
    let mut observed = Observed {
        routes: maps.routes()?.into_iter().collect(),
        peers: maps.peers()?.into_iter().collect(),
        listen_ports: maps.listen_ports()?.into_iter().collect(),
        ..Observed::default()
    };
    maps.each_tunnel(|id, tunnel| drop(observed.tunnels.insert(id, Kept::from(&tunnel))))?;
    let routes = netlink.routes(ROUTE_PROTOCOL).await.unwrap_or_default();
    let ours = routes.into_iter().filter(|route| table::is_ours(route.table));
    observed.kernel_routes = ours.map(|route| ((route.table, route.prefix), route)).collect();
    observed.rules = netlink.rules(ROUTE_PROTOCOL).await.unwrap_or_default().into_iter().collect();
    // Bridges that are ours no more have neighbours where they have routes.
    let left = observed.kernel_routes.values().map(|route| route.ifindex);
    let bridges: BTreeSet<u32> = bridges.iter().copied().chain(left).collect();
    for bridge in bridges {
        let ours = netlink.permanent_neighbours(bridge, Mac::OVERLAY_NEIGHBOUR).await.unwrap_or_default();
        observed.neighbours.extend(ours.into_iter().map(|neighbour| (bridge, neighbour.ip)));
    }
    for family in Family::BOTH {
        observed
            .foreign_routes
            .extend(netlink.foreign_prefixes(family, ROUTE_PROTOCOL).await.unwrap_or_default());
    }
    Ok(observed)
}

impl Observed {
    /// Notes a change that was applied.
    pub fn record(&mut self, change: &Change) {
        match change {
            Change::PutPeer { key, peer, .. } => drop(self.peers.insert(*key, *peer)),
            Change::PutListenPort(port, encap) => drop(self.listen_ports.insert(*port, *encap)),
            Change::PutTunnel(id, tunnel) => drop(self.tunnels.insert(*id, Kept::from(&**tunnel))),
            Change::PutRoute(key, route) => drop(self.routes.insert(*key, *route)),
            Change::PutNeighbour(neighbour) => drop(self.neighbours.insert(*neighbour)),
            Change::PutKernelRoute(route) => {
                self.kernel_routes.insert((route.table, route.prefix), *route);
            }
            Change::PutRule(rule) => drop(self.rules.insert(rule.clone())),
            Change::DeleteRule(rule) => drop(self.rules.remove(rule)),
            Change::DeleteKernelRoute(route) => drop(self.kernel_routes.remove(&(route.table, route.prefix))),
            Change::DeleteNeighbour(neighbour) => drop(self.neighbours.remove(neighbour)),
            Change::DeleteRoute(key) => drop(self.routes.remove(key)),
            Change::DeletePeer(key) => drop(self.peers.remove(key)),
            Change::DeleteListenPort(port) => drop(self.listen_ports.remove(port)),
            Change::ClearTunnel(id) => drop(self.tunnels.remove(id)),
        }
    }
}
