//! Parts of the whole that can be planned by themselves: hosts with all that is theirs, in the store's records and in
//! the kernel. What one part changes no other part looks at, but for the ids that are in use.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use overlay_common::addr::MapIp;

use super::{
    change::OverlayNeighbour,
    desired::Desired,
    held::Held,
    observe::Observed,
    plan::further_ports,
    records::{Records, Touched},
};
use crate::store::PeerSubnet;

/// Some hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// Their subnets.
    pub subnets: BTreeSet<IpNet>,
    /// Their addresses.
    pub addresses: BTreeSet<IpAddr>,
}

/// What is yet to be looked at.
#[derive(Debug, Default)]
struct Open {
    subnets: Vec<IpNet>,
    addresses: Vec<IpAddr>,
    ids: Vec<u32>,
}

impl Part {
    /// The hosts that are touched, and whoever shares an address, a subnet or an id with them.
    pub fn around(touched: &Touched, records: &Records, held: &Held) -> Self {
        let subnets = touched.subnets.iter().copied().collect();
        let addresses = touched.addresses.iter().copied().collect();
        Self::closed(Open { subnets, addresses, ids: Vec::new() }, records, held)
    }

    /// All there is, in parts of about `size` subnets.
    pub fn all(records: &Records, held: &Held, size: usize) -> Vec<Self> {
        let observed = held.observed();
        let routed = observed.routes.keys().map(|key| key.prefix);
        let led = observed.kernel_routes.keys().map(|(_, prefix)| *prefix);
        let subnets: BTreeSet<IpNet> = records.by_subnet().keys().copied().chain(routed).chain(led).collect();
        let addresses = observed.peers.keys().map(|key| IpAddr::from(key.ip));
        let mut parts = vec![Self::default()];
        let mut done = Self::default();
        let of_subnets = subnets.into_iter().map(|subnet| (Some(subnet), None));
        for (subnet, address) in of_subnets.chain(addresses.map(|address| (None, Some(address)))) {
            let known = subnet.is_none_or(|subnet| done.subnets.contains(&subnet))
                && address.is_none_or(|address| done.addresses.contains(&address));
            if known {
                continue;
            }
            let (subnets, addresses) = (subnet.into_iter().collect(), address.into_iter().collect());
            let mut part = Self::closed(Open { subnets, addresses, ids: Vec::new() }, records, held);
            done.subnets.extend(&part.subnets);
            done.addresses.extend(&part.addresses);
            match parts.last_mut() {
                Some(last) if last.subnets.len() < size => {
                    last.subnets.append(&mut part.subnets);
                    last.addresses.append(&mut part.addresses);
                }
                _ => parts.push(part),
            }
        }
        parts
    }

    /// What is open, and whatever that leads to.
    fn closed(mut open: Open, records: &Records, held: &Held) -> Self {
        let mut part = Self::default();
        loop {
            if let Some(subnet) = open.subnets.pop() {
                if part.subnets.insert(subnet) {
                    let record = records.by_subnet().get(&subnet);
                    open.addresses.extend(record.into_iter().flat_map(PeerSubnet::sources));
                    open.ids.extend(held.routes_of(subnet).map(|(_, route)| route.peer));
                }
            } else if let Some(address) = open.addresses.pop() {
                if part.addresses.insert(address) {
                    open.subnets.extend(records.at(address));
                    open.ids.extend(held.ids_at(MapIp::from(address)));
                }
            } else if let Some(id) = open.ids.pop() {
                let addresses = held.addresses_of(id).map(IpAddr::from);
                open.addresses.extend(addresses.filter(|address| !part.addresses.contains(address)));
            } else {
                return part;
            }
        }
    }

    /// What the kernel holds of this part: all that a plan for it may change.
    pub fn of(&self, held: &Held, desired: &Desired) -> Observed {
        let observed = held.observed();
        let mut view = Observed { rules: observed.rules.clone(), ..Observed::default() };
        for key in self.addresses.iter().flat_map(|ip| held.keys_at(MapIp::from(*ip))) {
            view.peers.extend(observed.peers.get(&key).map(|peer| (key, *peer)));
        }
        let ids: BTreeSet<u32> = view.peers.values().map(|peer| peer.id).collect();
        for id in ids.into_iter().flat_map(|id| held.tunnels_of(id)) {
            view.tunnels.extend(observed.tunnels.get(&id).map(|tunnel| (id, tunnel.clone())));
        }
        for subnet in &self.subnets {
            view.routes.extend(held.routes_of(*subnet));
            view.foreign_routes.extend(observed.foreign_routes.get(subnet));
        }
        let tables = tables(observed);
        for key in self.subnets.iter().flat_map(|subnet| tables.iter().map(|table| (*table, *subnet))) {
            view.kernel_routes.extend(observed.kernel_routes.get(&key).map(|route| (key, *route)));
        }
        view.neighbours = self.neighbours(observed, &tables);
        view.listen_ports = self.listen_ports(held, &view, desired);
        view
    }

    /// The neighbours that routes to these subnets lead to, without those that other routes lead to as well: a subnet's
    /// first address is that of smaller ones in it, too.
    fn neighbours(&self, observed: &Observed, tables: &[u32]) -> BTreeSet<OverlayNeighbour> {
        let next = |from: u32| {
            observed.neighbours.range((from, lowest().addr())..).next().map(|(bridge, _)| *bridge)
        };
        let bridges = std::iter::successors(next(0), |bridge| next(bridge.checked_add(1)?));
        let of_bridge = |bridge| self.subnets.iter().map(move |subnet| (bridge, subnet.network()));
        let mut found: BTreeSet<OverlayNeighbour> = bridges.flat_map(of_bridge).collect();
        found.retain(|neighbour| observed.neighbours.contains(neighbour));
        found.retain(|(ifindex, gateway)| !self.is_shared(*ifindex, *gateway, observed, tables));
        found
    }

    fn is_shared(&self, ifindex: u32, gateway: IpAddr, observed: &Observed, tables: &[u32]) -> bool {
        let Ok(largest) = IpNet::new(gateway, 0) else { return false };
        tables.iter().any(|table| {
            let from = observed.kernel_routes.range((*table, largest)..);
            let mut at = from.take_while(|((of, subnet), _)| of == table && subnet.network() == gateway);
            at.any(|((_, subnet), route)| route.ifindex == ifindex && !self.subnets.contains(subnet))
        })
    }

    /// The ports that this part listens on, and those that nobody else does.
    fn listen_ports(&self, held: &Held, view: &Observed, desired: &Desired) -> BTreeMap<u16, u32> {
        let wanted = further_ports(desired);
        let of_part =
            |port: u16| view.routes.values().filter(|route| held.port(route.tunnel) == port).count();
        let ours = |(port, _): &(u16, u32)| {
            wanted.contains_key(port) || held.routes_to_port(*port) as usize <= of_part(*port)
        };
        held.observed().listen_ports.iter().map(|(port, encap)| (*port, *encap)).filter(ours).collect()
    }
}

/// The tables that routes of ours are in. They are few: each is found, and passed over.
fn tables(observed: &Observed) -> Vec<u32> {
    let next =
        |from: u32| observed.kernel_routes.range((from, lowest())..).next().map(|((table, _), _)| *table);
    std::iter::successors(next(0), |table| next(table.checked_add(1)?)).collect()
}

/// The first of all subnets.
fn lowest() -> IpNet {
    IpNet::V4(ipnet::Ipv4Net::default())
}
