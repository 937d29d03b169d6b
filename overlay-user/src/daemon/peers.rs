//! Peers: how each is reached, how large packets to it may be, and the routes to its subnets.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use overlay_common::{
    Encap,
    map::{RouteSource, StoreKind},
};
use tracing::info;

use super::Daemon;
use crate::{
    datapath::DatapathError,
    endpoints::monotonic_now,
    exit,
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
        let peers = desired::peers(&self.local, records);
        let mut troubles = self.underlay.find(&peers, &self.local, &self.netlink).await;
        if let Err(error) = self.take_path_mtus(&peers) {
            troubles.insert(exit::one_line(&error.into()));
        }
        let source = match self.announcer.kind() {
            StoreKind::Etcd => RouteSource::Etcd,
            StoreKind::File => RouteSource::File,
        };
        let hops = |ip: IpAddr| self.underlay.to(ip, &self.local);
        let path_mtu = |ip: IpAddr| self.path_mtus.get(&ip).copied();
        let (desired, refusals) = desired::fold(&self.local, records, source, hops, path_mtu);
        troubles.extend(refusals);
        let bridges = self.local.bridge_indexes();
        match self.reconciler.round(&desired, &bridges, &mut self.maps, &self.netlink).await {
            Ok(failures) => troubles.extend(failures),
            Err(error) => drop(troubles.insert(exit::one_line(&error.into()))),
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
        let judged = self.judge_path_mtus(&desired::peers(&self.local, records));
        judged.map_or(true, |judged| judged.believed != self.path_mtus || !judged.forgotten.is_empty())
    }

    /// Takes over what `PATH_MTUS` says, and removes from it what is of no use any more.
    fn take_path_mtus(&mut self, peers: &BTreeSet<IpAddr>) -> Result<(), DatapathError> {
        let Judged { believed, forgotten } = self.judge_path_mtus(peers)?;
        for key in forgotten {
            self.maps.delete_path_mtu(key)?;
        }
        for shift in path_mtu::shifts(&self.path_mtus, &believed, |ip| self.most_to(ip)) {
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

    fn judge_path_mtus(&self, peers: &BTreeSet<IpAddr>) -> Result<Judged, DatapathError> {
        let entries = self.maps.path_mtus()?;
        Ok(path_mtu::judge(entries, peers, |ip| self.most_to(ip), monotonic_now()))
    }

    /// The largest inner packet to a peer's address that fits the uplinks on the way.
    fn most_to(&self, peer: IpAddr) -> u32 {
        self.local.mtu_to(peer, &self.underlay.to(peer, &self.local), Encap::Vxlan)
    }
}
