//! What the kernel holds, kept up to date change by change, with what is needed to look at a part of it alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use ipnet::IpNet;
use overlay_common::{
    Vni,
    addr::MapIp,
    map::{MAX_TUNNELS, Peer, PeerKey, Route, Tunnel, tunnel_flag},
    vni::VniKey,
};

use super::{change::Change, kept::Kept, observe::Observed, plan::Used};
use crate::datapath::map::RouteKey;

/// What is in the maps and in the kernel's tables, by host.
#[derive(Debug, Default)]
pub struct Held {
    observed: Observed,
    used: Used,
    index: Index,
    /// Tunnels that no route leads through, and since when.
    idle: BTreeMap<u32, Instant>,
}

/// Where to find what is there.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Index {
    /// How many entries of `PEERS` have an id.
    entries: BTreeMap<u32, u32>,
    /// The addresses that have an id.
    addresses: BTreeSet<(u32, MapIp)>,
    /// The tunnels by peer.
    tunnels: BTreeSet<(u32, u32)>,
    /// How many routes lead through a tunnel.
    routes: Vec<u32>,
    /// How many routes lead to a UDP port.
    ports: BTreeMap<u16, u32>,
    /// How many routes are in a network.
    networks: BTreeMap<VniKey, u32>,
    /// How many entries of `PEERS` have a VNI.
    vnis: BTreeMap<VniKey, u32>,
    /// The tunnels that want UDP checksums, by their port.
    checksums: BTreeSet<(u16, u32)>,
    /// The tunnels whose neighbours are learned.
    learning: BTreeSet<u32>,
}

impl Held {
    /// Begins with what was read. Tunnels that were known to be idle have been so since then.
    pub fn new(mut observed: Observed, idle: &BTreeMap<u32, Instant>) -> Self {
        let (peers, tunnels, routes) = (
            std::mem::take(&mut observed.peers),
            std::mem::take(&mut observed.tunnels),
            std::mem::take(&mut observed.routes),
        );
        let index = Index { routes: vec![0; MAX_TUNNELS], ..Index::default() };
        let mut held = Self { observed, index, ..Self::default() };
        peers.into_iter().for_each(|(key, peer)| held.put_peer(key, peer));
        tunnels.into_iter().for_each(|(id, tunnel)| held.put_tunnel(id, &tunnel.get()));
        routes.into_iter().for_each(|(key, route)| held.put_route(key, route));
        for (id, since) in &mut held.idle {
            *since = idle.get(id).copied().unwrap_or(*since);
        }
        held
    }

    /// What is there, and which tunnels are idle, and since when.
    pub fn into_parts(self) -> (Observed, BTreeMap<u32, Instant>) {
        (self.observed, self.idle)
    }

    /// What is there.
    pub fn observed(&self) -> &Observed {
        &self.observed
    }

    /// Where to find it.
    #[cfg(test)]
    pub(super) fn index(&self) -> &Index {
        &self.index
    }

    /// The ids that are in use.
    pub fn used(&self) -> &Used {
        &self.used
    }

    /// How many routes lead to a UDP port.
    pub fn routes_to_port(&self, port: u16) -> u32 {
        self.index.ports.get(&port).copied().unwrap_or_default()
    }

    /// The routes of a subnet, in whichever network.
    pub fn routes_of(&self, subnet: IpNet) -> impl Iterator<Item = (RouteKey, Route)> {
        let keys = self.index.networks.keys().map(move |vni| RouteKey { vni: *vni, prefix: subnet });
        keys.filter_map(|key| Some((key, *self.observed.routes.get(&key)?)))
    }

    /// The VNIs that peers may send with.
    pub fn vnis(&self) -> impl Iterator<Item = VniKey> {
        self.index.vnis.keys().copied().filter(|vni| *vni != VniKey::NONE)
    }

    /// The ports to which packets go that want UDP checksums.
    pub fn checksum_ports(&self) -> impl Iterator<Item = u16> {
        let next = |from: u16| self.index.checksums.range((from, 0)..).next().map(|(port, _)| *port);
        std::iter::successors(next(0), move |port| next(port.checked_add(1)?))
    }

    /// The tunnels to a port that want UDP checksums.
    pub fn wanting_checksums(&self, port: u16) -> impl Iterator<Item = Tunnel> {
        let of_port = self.index.checksums.range((port, 0)..=(port, u32::MAX));
        of_port.filter_map(|(_, id)| self.observed.tunnels.get(id).map(Kept::get))
    }

    /// The tunnels whose neighbours are learned, as far as routes lead to them.
    pub fn learning(&self) -> impl Iterator<Item = Tunnel> {
        let used = self.index.learning.iter().filter(|id| !self.is_idle(**id));
        used.filter_map(|id| self.observed.tunnels.get(id).map(Kept::get))
    }

    /// The tunnel to the subnet that covers a prefix.
    pub fn tunnel_to(&self, vni: Vni, prefix: IpNet) -> Option<Tunnel> {
        let covering = std::iter::successors(Some(prefix), IpNet::supernet);
        let mut routes = covering.filter_map(|prefix| self.observed.routes.get(&RouteKey::new(vni, prefix)));
        self.observed.tunnels.get(&routes.next()?.tunnel).map(Kept::get)
    }

    /// The ids of whoever has an address.
    pub fn ids_at(&self, ip: MapIp) -> impl Iterator<Item = u32> {
        self.keys_at(ip).filter_map(|key| self.observed.peers.get(&key).map(|peer| peer.id))
    }

    /// The addresses of whoever has an id.
    pub fn addresses_of(&self, id: u32) -> impl Iterator<Item = MapIp> {
        self.index
            .addresses
            .range((id, MapIp::default())..)
            .take_while(move |(of, _)| *of == id)
            .map(|(_, ip)| *ip)
    }

    /// The keys of `PEERS` with an address. VNIs are few.
    pub fn keys_at(&self, ip: MapIp) -> impl Iterator<Item = PeerKey> {
        let keys = self.index.vnis.keys().map(move |vni| PeerKey { vni: *vni, ip });
        keys.filter(|key| self.observed.peers.contains_key(key))
    }

    /// The tunnels of a peer.
    pub fn tunnels_of(&self, peer: u32) -> impl Iterator<Item = u32> {
        self.index.tunnels.range((peer, 0)..).take_while(move |(of, _)| *of == peer).map(|(_, id)| *id)
    }

    /// The tunnels that no route has led through for this long.
    pub fn idle_for(&self, grace: Duration) -> BTreeSet<u32> {
        let now = Instant::now();
        let over = self.idle.iter().filter(|(_, since)| now.duration_since(**since) >= grace);
        over.map(|(id, _)| *id).collect()
    }

    /// True where some tunnel is idle.
    pub fn has_idle(&self) -> bool {
        !self.idle.is_empty()
    }

    /// Whether no route leads through a tunnel.
    pub fn is_idle(&self, id: u32) -> bool {
        self.idle.contains_key(&id)
    }

    /// Notes a change that was applied.
    pub fn record(&mut self, change: &Change) {
        match change {
            Change::PutPeer { key, peer, .. } => self.put_peer(*key, *peer),
            Change::DeletePeer(key) => self.delete_peer(*key),
            Change::PutTunnel(id, tunnel) => self.put_tunnel(*id, tunnel),
            Change::ClearTunnel(id) => self.clear_tunnel(*id),
            Change::PutRoute(key, route) => self.put_route(*key, *route),
            Change::DeleteRoute(key) => self.delete_route(*key),
            other => self.observed.record(other),
        }
    }

    /// Notes that somebody else has, or may have, a route in the main table.
    pub fn put_foreign(&mut self, prefix: IpNet) {
        self.observed.foreign_routes.insert(prefix);
    }

    fn put_peer(&mut self, key: PeerKey, peer: Peer) {
        self.delete_peer(key);
        self.observed.peers.insert(key, peer);
        self.index.addresses.insert((peer.id, key.ip));
        *self.index.vnis.entry(key.vni).or_default() += 1;
        *self.index.entries.entry(peer.id).or_default() += 1;
        self.used.peers.insert(peer.id);
    }

    fn delete_peer(&mut self, key: PeerKey) {
        let Some(peer) = self.observed.peers.remove(&key) else { return };
        let has_id =
            |other: PeerKey| self.observed.peers.get(&other).is_some_and(|other| other.id == peer.id);
        if !self.keys_at(key.ip).any(has_id) {
            self.index.addresses.remove(&(peer.id, key.ip));
        }
        less(&mut self.index.vnis, key.vni);
        if less(&mut self.index.entries, peer.id) {
            self.used.peers.remove(peer.id);
        }
    }

    fn put_tunnel(&mut self, id: u32, tunnel: &Tunnel) {
        self.clear_tunnel(id);
        self.index.tunnels.insert((tunnel.peer, id));
        if tunnel.flags & tunnel_flag::UDP_CHECKSUM != 0 {
            self.index.checksums.insert((tunnel.port.get(), id));
        }
        if tunnel.flags & tunnel_flag::LEARN != 0 {
            self.index.learning.insert(id);
        }
        self.used.tunnels.insert(id);
        if self.users(id) == 0 {
            self.idle.insert(id, Instant::now());
        }
        self.observed.tunnels.insert(id, tunnel.into());
    }

    fn clear_tunnel(&mut self, id: u32) {
        let Some(tunnel) = self.observed.tunnels.remove(&id).map(|kept| kept.get()) else { return };
        self.index.tunnels.remove(&(tunnel.peer, id));
        self.index.checksums.remove(&(tunnel.port.get(), id));
        self.index.learning.remove(&id);
        self.used.tunnels.remove(id);
        self.idle.remove(&id);
    }

    fn put_route(&mut self, key: RouteKey, route: Route) {
        // First: a route that stays with its tunnel does not make it idle.
        if let Some(users) = self.index.routes.get_mut(route.tunnel as usize) {
            *users += 1;
        }
        self.idle.remove(&route.tunnel);
        let port = self.port(route.tunnel);
        *self.index.ports.entry(port).or_default() += 1;
        *self.index.networks.entry(key.vni).or_default() += 1;
        self.delete_route(key);
        self.observed.routes.insert(key, route);
    }

    fn delete_route(&mut self, key: RouteKey) {
        let Some(route) = self.observed.routes.remove(&key) else { return };
        let port = self.port(route.tunnel);
        less(&mut self.index.ports, port);
        less(&mut self.index.networks, key.vni);
        if let Some(users) = self.index.routes.get_mut(route.tunnel as usize) {
            *users = users.saturating_sub(1);
        }
        if self.users(route.tunnel) == 0 && self.observed.tunnels.contains_key(&route.tunnel) {
            self.idle.insert(route.tunnel, Instant::now());
        }
    }

    fn users(&self, tunnel: u32) -> u32 {
        self.index.routes.get(tunnel as usize).copied().unwrap_or_default()
    }

    /// The UDP port that a tunnel leads to; 0 where there is no such tunnel.
    pub fn port(&self, tunnel: u32) -> u16 {
        self.observed.tunnels.get(&tunnel).map_or(0, |tunnel| tunnel.get().port.get())
    }
}

/// Counts one less; true where it was the last.
fn less<K: Ord>(counts: &mut BTreeMap<K, u32>, key: K) -> bool {
    let Some(count) = counts.get_mut(&key) else { return false };
    *count -= 1;
    let last = *count == 0;
    if last {
        counts.remove(&key);
    }
    last
}
