//! What is: read back from the pinned maps and the kernel's tables.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv4Net;
use overlay_common::{
    Mac,
    map::{Peer, PeerKey, Route, Tunnel},
};

use super::change::Change;
use crate::{
    datapath::{
        DatapathError,
        map::{Maps, RouteKey},
    },
    netlink::{Netlink, NudState, OverlayRoute},
};

/// The `rtproto` of our routes: how they are told from everybody else's.
pub const ROUTE_PROTOCOL: u8 = 79;

/// What the kernel holds because of peers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// `ROUTES_V4`.
    pub routes: BTreeMap<RouteKey, Route>,
    /// `TUNNELS` in use.
    pub tunnels: BTreeMap<u32, Tunnel>,
    /// `PEERS`.
    pub peers: BTreeMap<PeerKey, Peer>,
    /// `LISTEN_PORTS`.
    pub listen_ports: BTreeSet<u16>,
    /// Our routes in the kernel's table whose neighbour is there too.
    pub kernel_routes: BTreeMap<Ipv4Net, OverlayRoute>,
    /// Our routes in the kernel's table whose neighbour is missing.
    pub broken_routes: BTreeMap<Ipv4Net, OverlayRoute>,
    /// Prefixes for which somebody else has a route.
    pub foreign_routes: BTreeSet<Ipv4Net>,
}

/// Reads everything.
///
/// # Errors
/// [`DatapathError`] where a map cannot be read. Kernel tables that cannot be read count as empty: the
/// routes are then set again, which changes nothing.
pub async fn read(maps: &Maps, netlink: &Netlink, bridges: &[u32]) -> Result<Observed, DatapathError> {
    let mut observed = Observed {
        routes: maps.routes()?.into_iter().collect(),
        tunnels: maps.tunnels()?.into_iter().collect(),
        peers: maps.peers()?.into_iter().collect(),
        listen_ports: maps.listen_ports()?.into_iter().map(|(port, _)| port).collect(),
        ..Observed::default()
    };
    let mut neighbours = BTreeSet::new();
    for bridge in bridges {
        for neighbour in netlink.neighbours(*bridge).await.unwrap_or_default() {
            if neighbour.state == NudState::Permanent && neighbour.mac == Some(Mac::OVERLAY_NEIGHBOUR) {
                neighbours.insert((*bridge, neighbour.ip));
            }
        }
    }
    for route in netlink.routes(ROUTE_PROTOCOL).await.unwrap_or_default() {
        let whole = neighbours.contains(&(route.ifindex, route.gateway));
        let table = if whole { &mut observed.kernel_routes } else { &mut observed.broken_routes };
        table.insert(route.prefix, route);
    }
    let everywhere = netlink.covering_routes(Ipv4Net::default()).await.unwrap_or_default();
    let foreign = everywhere.into_iter().filter(|route| route.protocol != ROUTE_PROTOCOL);
    observed.foreign_routes = foreign.map(|route| route.prefix).collect();
    Ok(observed)
}

impl Observed {
    /// Notes a change that was applied.
    pub fn record(&mut self, change: &Change) {
        match change {
            Change::PutPeer { key, peer, .. } => drop(self.peers.insert(*key, *peer)),
            Change::PutListenPort(port) => drop(self.listen_ports.insert(*port)),
            Change::PutTunnel(id, tunnel) => drop(self.tunnels.insert(*id, **tunnel)),
            Change::PutRoute(key, route) => drop(self.routes.insert(*key, *route)),
            Change::PutKernelRoute(route) => {
                self.broken_routes.remove(&route.prefix);
                self.kernel_routes.insert(route.prefix, *route);
            }
            Change::DeleteKernelRoute(route) => {
                self.broken_routes.remove(&route.prefix);
                self.kernel_routes.remove(&route.prefix);
            }
            Change::DeleteRoute(key) => drop(self.routes.remove(key)),
            Change::DeletePeer(key) => drop(self.peers.remove(key)),
            Change::DeleteListenPort(port) => drop(self.listen_ports.remove(port)),
            Change::ClearTunnel(id) => drop(self.tunnels.remove(id)),
        }
    }
}
