//! Peers: how each is reached, how large packets to it may be, and the routes to its subnets.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use ipnet::IpNet;
use overlay_common::map::{RouteSource, StoreKind};
use tracing::info;

use super::Daemon;
use crate::{
    datapath::DatapathError,
    endpoints::monotonic_now,
    exit,
    local::Local,
    path_mtu::{self, Judged},
    reconcile::desired,
    store::PeerSubnet,
};

impl Daemon {
    /// Brings peers, tunnels and routes in step with the store's records, as far as it has spoken.
    pub(super) async fn reconcile(&mut self) -> BTreeSet<String> {
        let Some(records) = self.records.take() else { return BTreeSet::new() };
        let troubles = self.reconcile_with(&records).await;
        self.records = Some(records);
        troubles
    }

    async fn reconcile_with(&mut self, records: &BTreeMap<IpNet, PeerSubnet>) -> BTreeSet<String> {
        let peers = peers(&self.local, records);
        let mut troubles = self.find_next_hops(&peers).await;
        if let Err(error) = self.take_path_mtus(&peers) {
            troubles.insert(exit::one_line(&error.into()));
        }
        let source = match self.announcer.kind() {
            StoreKind::Etcd => RouteSource::Etcd,
            StoreKind::File => RouteSource::File,
        };
        // While the kernel has no route, as between an uplink's going down and its routes' coming back, what was
        // right before is more likely to be so again than that the peer has moved next door.
        let next_hop = |ip: Ipv4Addr| self.last_next_hops.get(&ip).copied().unwrap_or(ip);
        let path_mtu = |ip: Ipv4Addr| self.path_mtus.get(&ip).copied();
        let (desired, refusals) = desired::fold(&self.local, records, source, next_hop, path_mtu);
        troubles.extend(refusals);
        let bridges = self.local.bridge_indexes();
        match self.reconciler.round(&desired, &bridges, &mut self.maps, &self.netlink).await {
            Ok(failures) => troubles.extend(failures),
            Err(error) => drop(troubles.insert(exit::one_line(&error.into()))),
        }
        troubles
    }

    /// Asks the kernel through whom each peer is reached, where that is not known yet.
    async fn find_next_hops(&mut self, peers: &BTreeSet<Ipv4Addr>) -> BTreeSet<String> {
        let mut troubles = BTreeSet::new();
        self.next_hops.retain(|ip, _| peers.contains(ip));
        self.last_next_hops.retain(|ip, _| peers.contains(ip));
        for ip in peers.iter().copied() {
            if self.next_hops.contains_key(&ip) {
                continue;
            }
            let uplink = &self.local.uplink;
            match self.netlink.next_hop(ip.into(), None).await {
                Ok(hop) if hop.local => {
                    troubles
                        .insert(format!("peer {ip} is an address of this host: packets to it go nowhere"));
                }
                // Asked again each round, until the route leads where the packets are sent.
                Ok(hop) if hop.ifindex != uplink.index => {
                    troubles.insert(format!(
                        "the host's route to peer {ip} does not lead through the uplink {}: packets to it are sent \
                         there all the same; correct the route, or choose another --iface",
                        uplink.name
                    ));
                }
                Ok(hop) => {
                    let next_hop = match hop.gateway {
                        Some(IpAddr::V4(gateway)) => gateway,
                        _ => ip,
                    };
                    self.next_hops.insert(ip, next_hop);
                    self.last_next_hops.insert(ip, next_hop);
                }
                Err(error) => drop(troubles.insert(format!("peer {ip} cannot be reached: {error}"))),
            }
        }
        troubles
    }

    /// Whether `PATH_MTUS` says something else than what is in force: told by a router, or expired. Looked at
    /// besides the programs' events, which are lost while the daemon is away.
    pub(super) fn path_mtus_changed(&self) -> bool {
        let Some(records) = &self.records else { return false };
        let quiet =
            self.path_mtus.is_empty() && self.maps.path_mtus().is_ok_and(|entries| entries.is_empty());
        if quiet {
            return false;
        }
        let judged = self.judge_path_mtus(&peers(&self.local, records));
        judged.map_or(true, |judged| judged.believed != self.path_mtus || !judged.forgotten.is_empty())
    }

    /// Takes over what `PATH_MTUS` says, and removes from it what is of no use any more.
    fn take_path_mtus(&mut self, peers: &BTreeSet<Ipv4Addr>) -> Result<(), DatapathError> {
        let Judged { believed, forgotten } = self.judge_path_mtus(peers)?;
        for key in forgotten {
            self.maps.delete_path_mtu(key)?;
        }
        for shift in path_mtu::shifts(&self.path_mtus, &believed, self.local.mtu) {
            let path_mtu::Shift { peer, path_mtu, before, after } = shift;
            if !peers.contains(&peer) {
                continue;
            }
            match path_mtu {
                Some(path) => info!(
                    "a router on the way to peer {peer} carries packets of {path} bytes: MTU to its containers {after}, was {before}"
                ),
                None => info!("MTU to the containers of peer {peer} {after} again, was {before}"),
            }
        }
        self.path_mtus = believed;
        Ok(())
    }

    fn judge_path_mtus(&self, peers: &BTreeSet<Ipv4Addr>) -> Result<Judged, DatapathError> {
        let entries = self.maps.path_mtus()?;
        Ok(path_mtu::judge(entries, peers, self.local.mtu, monotonic_now()))
    }
}

/// The hosts that the store's records name, ourselves excepted.
fn peers(local: &Local, records: &BTreeMap<IpNet, PeerSubnet>) -> BTreeSet<Ipv4Addr> {
    let hosts = records.values().filter_map(|record| record.host.v4());
    hosts.filter(|ip| *ip != local.public_ip && *ip != local.underlay_ip).collect()
}
