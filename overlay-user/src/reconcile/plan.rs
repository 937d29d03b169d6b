//! The pure difference between what should be and what is, as an ordered list of changes.

mod hosts;
mod ids;
mod tunnels;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use overlay_common::{
    addr::MapIp,
    map::{MAX_PEERS, MAX_TUNNELS, Peer, PeerKey, Route, Tunnel, peer_flag, tunnel_flag},
    vni::VniKey,
};

pub use self::ids::IdSet;
use self::{ids::Ids, tunnels::Tunnels};
use super::{
    change::{Change, OverlayNeighbour},
    desired::{Desired, KernelRouteKey, RemoteSubnet},
    observe::Observed,
};
use crate::{
    datapath::map::RouteKey,
    netlink::{MAIN_TABLE, OverlayRoute},
    underlay::Underlay,
};

/// What to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In this order.
    pub changes: Vec<Change>,
    /// Tunnels that no route uses once the changes are done, and that are not cleared yet.
    pub unreferenced: BTreeSet<u32>,
    /// What is desired and cannot be had, one line each.
    pub refusals: Vec<String>,
}

/// The ids that are in use, whether or not what they stand for is in view.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Of peers.
    pub peers: IdSet,
    /// Of tunnels.
    pub tunnels: IdSet,
}

impl Used {
    /// Those that are in use where all there is is in view.
    pub fn of(observed: &Observed) -> Self {
        Self {
            peers: observed.peers.values().map(|peer| peer.id).collect(),
            tunnels: observed.tunnels.keys().copied().collect(),
        }
    }
}

/// Plans the way from `observed` to `desired`. Only the tunnels in `clearable` may be cleared: the others
/// may still be read by a program.
pub fn plan(desired: &Desired, observed: &Observed, clearable: &BTreeSet<u32>) -> Plan {
    within(desired, observed, Used::of(observed), clearable)
}

/// As [`plan`], of a part of what there is that shares neither hosts nor subnets with the rest.
pub fn within(desired: &Desired, observed: &Observed, used: Used, clearable: &BTreeSet<u32>) -> Plan {
    let mut planner = Planner { observed, plan: Plan::default() };
    let ids = planner.peers(desired, Ids::new(used.peers, MAX_PEERS));
    planner.listen_ports(desired);
    planner.smaller_kernel_mtus(desired);
    let routes = planner.routes(desired, &ids, Ids::new(used.tunnels, MAX_TUNNELS));
    planner.kernel_routes(desired);
    planner.deletions(desired, &routes, &ids);
    planner.tunnels_left_over(&routes, clearable);
    planner.plan
}

struct Planner<'a> {
    observed: &'a Observed,
    plan: Plan,
}

/// The ids of peers by address, and the keys under which they are believed.
struct PeerIds {
    by_ip: BTreeMap<IpAddr, u32>,
    keys: BTreeSet<PeerKey>,
}

impl PeerIds {
    fn get(&self, host: Underlay) -> Option<u32> {
        host.addresses().find_map(|ip| self.by_ip.get(&ip).copied())
    }
}

impl Planner<'_> {
    /// One id for each host, whatever its addresses and whichever of them its records name.
    fn peers(&mut self, desired: &Desired, mut ids: Ids) -> PeerIds {
        let mut found = PeerIds { by_ip: BTreeMap::new(), keys: BTreeSet::new() };
        let held = |ip: &IpAddr| {
            let host = PeerKey { vni: VniKey::NONE, ip: MapIp::from(*ip) };
            self.observed.peers.get(&host).map(|peer| peer.id)
        };
        let mut taken = BTreeSet::new();
        let mut fresh = BTreeSet::new();
        for host in hosts::together(desired.subnets.values().map(|remote| &remote.sources[..])) {
            // Two hosts that turn out to be one have two ids, and one that turns out to be two has one.
            let before = host.iter().find_map(held).filter(|id| !taken.contains(id));
            let Some(id) = before.or_else(|| ids.take()) else {
                let addresses: Vec<String> = host.iter().map(ToString::to_string).collect();
                self.plan.refusals.push(format!(
                    "peer {} is one too many: {MAX_PEERS} are supported",
                    addresses.join(", ")
                ));
                continue;
            };
            taken.insert(id);
            if before.is_none() {
                fresh.insert(id);
            }
            found.by_ip.extend(host.into_iter().map(|ip| (ip, id)));
        }
        for remote in desired.subnets.values() {
            let Some(id) = found.get(remote.host) else { continue };
            for ip in remote.sources.iter().copied() {
                self.believe(ip, id, remote, desired, &mut fresh, &mut found.keys);
            }
        }
        found
    }

    /// The entries under which packets from an address are a peer's. The first one for a new id resets its counters.
    fn believe(
        &mut self,
        ip: IpAddr,
        id: u32,
        remote: &RemoteSubnet,
        desired: &Desired,
        fresh: &mut BTreeSet<u32>,
        keys: &mut BTreeSet<PeerKey>,
    ) {
        let (ip, network) = (MapIp::from(ip), desired.vni.key());
        let keyed = if remote.gre_key.is_some() { peer_flag::GRE_KEY } else { 0 };
        let learns = if remote.tunnel.flags & tunnel_flag::LEARN != 0 { peer_flag::LEARN } else { 0 };
        let flags = keyed | learns;
        let peer = Peer { id, network, gre_key: remote.gre_key.unwrap_or_default(), flags };
        // A peer that is an overlayd sends with the VNI that we announce, whatever its own.
        for vni in [VniKey::NONE, remote.tunnel.vni, desired.vni.key()] {
            let key = PeerKey { vni, ip };
            if keys.insert(key) && self.observed.peers.get(&key) != Some(&peer) {
                self.plan.changes.push(Change::PutPeer { key, peer, fresh: fresh.remove(&id) });
            }
        }
    }

    fn listen_ports(&mut self, desired: &Desired) {
        for (port, encap) in further_ports(desired) {
            if self.observed.listen_ports.get(&port) != Some(&encap) {
                self.plan.changes.push(Change::PutListenPort(port, encap));
            }
        }
    }

    /// Plans tunnels and routes; returns the routes that there will be.
    fn routes(&mut self, desired: &Desired, peers: &PeerIds, ids: Ids) -> BTreeMap<RouteKey, Route> {
        let mut tunnels = Tunnels::new(&self.observed.tunnels, ids);
        let mut routes = BTreeMap::new();
        let mut puts = Vec::new();
        for (prefix, remote) in &desired.subnets {
            let Some(peer) = peers.get(remote.host) else { continue };
            let key = RouteKey::new(desired.vni, *prefix);
            let held = self.observed.routes.get(&key);
            let tunnel = Tunnel { peer, ..remote.tunnel };
            let Some(id) = tunnels.id(tunnel, held.map(|held| held.tunnel)) else {
                let line = format!("subnet {prefix} cannot be reached: {MAX_TUNNELS} tunnels are supported");
                self.plan.refusals.push(line);
                // Ids are free again soon: as it was reached before is better than not at all.
                let held = held.filter(|held| held.peer == peer);
                routes.extend(held.map(|held| (key, *held)));
                continue;
            };
            let route = Route { tunnel: id, peer, source: remote.source as u32 };
            if held != Some(&route) {
                puts.push(Change::PutRoute(key, route));
            }
            routes.insert(key, route);
        }
        self.plan.changes.extend(tunnels.into_changes());
        self.plan.changes.extend(puts);
        routes
    }

    /// The kernel's routes whose MTU falls, before the tunnels' does: what the kernel let pass and the tunnel
    /// does not take is lost, and nobody is told.
    fn smaller_kernel_mtus(&mut self, desired: &Desired) {
        let routes = desired.kernel_routes.iter();
        let smaller: Vec<_> = routes.filter(|(key, route)| self.falls(key, route)).collect();
        self.plan.changes.extend(smaller.into_iter().map(|(_, route)| Change::PutKernelRoute(*route)));
    }

    /// Whether all that changes of a kernel route is that its MTU falls.
    fn falls(&self, key: &KernelRouteKey, route: &OverlayRoute) -> bool {
        let held = self.observed.kernel_routes.get(key);
        held.is_some_and(|held| route.mtu < held.mtu && OverlayRoute { mtu: held.mtu, ..*route } == *held)
    }

    /// Plans what the kernel needs to route packets into the overlay. A table is filled before a rule leads to
    /// it, and a neighbour is there before a route leads to it.
    fn kernel_routes(&mut self, desired: &Desired) {
        let (observed, plan) = (self.observed, &mut self.plan);
        let wanted: BTreeMap<&KernelRouteKey, &OverlayRoute> = desired
            .kernel_routes
            .iter()
            .filter(|(key, _)| {
                let (table, prefix) = key;
                let held = observed.kernel_routes.contains_key(key);
                let foreign = *table == MAIN_TABLE && !held && observed.foreign_routes.contains(prefix);
                if foreign {
                    plan.refusals.push(format!(
                        "the host already has a route to {prefix} that is not overlayd's: containers use the \
                         overlay, the host itself does not; delete that route to change it"
                    ));
                }
                !foreign
            })
            .collect();
        let neighbours: BTreeSet<OverlayNeighbour> =
            wanted.values().map(|route| (route.ifindex, route.gateway)).collect();
        let missing = neighbours.difference(&observed.neighbours);
        plan.changes.extend(missing.map(|neighbour| Change::PutNeighbour(*neighbour)));
        let other: Vec<_> = wanted
            .iter()
            .filter(|(key, route)| {
                observed.kernel_routes.get(key) != Some(**route) && !self.falls(key, route)
            })
            .map(|(_, route)| Change::PutKernelRoute(**route))
            .collect();
        self.plan.changes.extend(other);
        let plan = &mut self.plan;
        let missing = desired.rules.difference(&observed.rules);
        plan.changes.extend(missing.map(|rule| Change::PutRule(rule.clone())));

        let gone = observed.rules.difference(&desired.rules);
        plan.changes.extend(gone.map(|rule| Change::DeleteRule(rule.clone())));
        let gone = observed.kernel_routes.iter().filter(|(key, _)| !desired.kernel_routes.contains_key(key));
        plan.changes.extend(gone.map(|(_, route)| Change::DeleteKernelRoute(*route)));
        let gone = observed.neighbours.difference(&neighbours);
        plan.changes.extend(gone.map(|neighbour| Change::DeleteNeighbour(*neighbour)));
    }

    fn deletions(&mut self, desired: &Desired, routes: &BTreeMap<RouteKey, Route>, peers: &PeerIds) {
        let gone = self.observed.routes.keys().filter(|key| !routes.contains_key(key));
        self.plan.changes.extend(gone.map(|key| Change::DeleteRoute(*key)));
        let gone = self.observed.peers.keys().filter(|key| !peers.keys.contains(key));
        self.plan.changes.extend(gone.map(|key| Change::DeletePeer(*key)));
        let wanted = further_ports(desired);
        let gone = self.observed.listen_ports.keys().filter(|port| !wanted.contains_key(port));
        self.plan.changes.extend(gone.map(|port| Change::DeleteListenPort(*port)));
    }

    fn tunnels_left_over(&mut self, routes: &BTreeMap<RouteKey, Route>, clearable: &BTreeSet<u32>) {
        let used: BTreeSet<u32> = routes.values().map(|route| route.tunnel).collect();
        for id in self.observed.tunnels.keys().filter(|id| !used.contains(id)) {
            if clearable.contains(id) {
                self.plan.changes.push(Change::ClearTunnel(*id));
            } else {
                self.plan.unreferenced.insert(*id);
            }
        }
    }
}

/// The UDP ports that peers use besides our own, and what for: they send to the port that they listen on.
pub(super) fn further_ports(desired: &Desired) -> BTreeMap<u16, u32> {
    let ports = desired.subnets.values().map(|remote| (remote.tunnel.port.get(), remote.tunnel.encap));
    let further = ports.filter(|(port, _)| ![0, desired.port, desired.geneve_port].contains(port));
    further.collect()
}

#[cfg(test)]
mod tests;
