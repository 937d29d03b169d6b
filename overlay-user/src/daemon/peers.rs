//! Peers: how each is reached, how large packets to it may be, and the routes to its subnets.

use std::{collections::BTreeSet, net::IpAddr, time::Instant};

use ipnet::IpNet;
use overlay_common::map::{RouteSource, StoreKind};
use tracing::info;

use super::{Aspect, Daemon};
use crate::{
    datapath::DatapathError,
    endpoints::monotonic_now,
    exit, memory,
    path_mtu::{self, Judged},
    reconcile::{
        Stage, desired,
        part::Part,
        records::{Records, Touched},
    },
};

/// Subnets that are worked on at once: what is planned for them is in memory at the same time, and what the store tells
/// meanwhile waits.
const PART: usize = 128;

impl Daemon {
    /// Brings the peers that are touched, their tunnels and routes in step with the store's records, as far as it has
    /// spoken.
    pub(super) async fn reconcile(&mut self, touched: &Touched) {
        let Some(mut records) = self.records.take() else { return };
        if self.is_doubtful(touched, &records) {
            self.reconciler.resync();
        }
        let told = self.tell_node();
        // Whether what was wrong is over, a look at everything tells: at once where that costs little.
        let settling = self.troubles.contains_key(&Aspect::Routes) && self.whole.is_due();
        let some = self.reconciler.held().filter(|_| touched.is_few() && !settling);
        let troubles = match some.map(|held| Part::around(touched, &records, held)) {
            Some(part) => {
                let mut troubles = self.troubles.get(&Aspect::Routes).cloned().unwrap_or_default();
                troubles.extend(self.find_ways(&records, &part).await);
                troubles.extend(self.bring(&records, &part, Stage::All).await);
                troubles
            }
            None => {
                let began = Instant::now();
                let troubles = self.reconcile_all(&mut records).await;
                self.whole.took(began);
                memory::give_back();
                troubles
            }
        };
        self.records = Some(records);
        self.tell_rivals();
        self.say(Aspect::Routes, troubles.into_iter().chain(told.err()).collect());
    }

    /// Tells the programs what this host has become: in which kinds peers may send, for one.
    fn tell_node(&mut self) -> Result<(), String> {
        let node = self.local.node();
        let said = |error: DatapathError| exit::one_line(&error.into());
        if self.maps.node().map_err(said)? == node { Ok(()) } else { self.maps.put_node(node).map_err(said) }
    }

    /// Whether somebody else was seen to have a route to one of these subnets. It may be gone by now.
    fn is_doubtful(&self, touched: &Touched, records: &Records) -> bool {
        let Some(held) = self.reconciler.held() else { return false };
        // Our own subnets have routes of the kernel's.
        let is_peers = |subnet: &IpNet| {
            let record = records.by_subnet().get(subnet);
            record.is_some_and(|record| desired::peer(&self.local, record).is_some())
        };
        let mut foreign =
            touched.subnets.iter().filter(|subnet| held.observed().foreign_routes.contains(subnet));
        foreign.any(is_peers)
    }

    /// Everything, in parts: where there is much to do, first what packets between containers need, then the rest.
    async fn reconcile_all(&mut self, records: &mut Records) -> BTreeSet<String> {
        let mut troubles = BTreeSet::new();
        let bridges = self.local.bridge_indexes();
        let parts = match self.reconciler.observe(&bridges, &self.maps, &self.netlink).await {
            Ok(held) => Part::all(records, held, PART),
            Err(error) => return [exit::one_line(&error.into())].into(),
        };
        let much = self
            .reconciler
            .held()
            .is_some_and(|held| held.observed().routes.len() < records.by_subnet().len());
        self.phases.over("observe");
        self.underlay.keep(|ip| records.at(ip).next().is_some());
        for part in &parts {
            troubles.extend(self.find_ways(records, part).await);
        }
        if let Err(error) = self.take_path_mtus(records) {
            troubles.insert(exit::one_line(&error.into()));
        }
        self.phases.over("ways");
        for part in parts.iter().filter(|_| much) {
            troubles.extend(self.bring_next(records, part, Stage::Maps).await);
        }
        self.phases.over("maps");
        let rules = desired::rules(&self.local);
        let dropped = self.reconciler.drop_rules(&rules, &mut self.maps, &self.netlink).await;
        troubles.extend(words(dropped));
        for part in &parts {
            troubles.extend(self.bring_next(records, part, Stage::All).await);
        }
        self.phases.over("kernel routes");
        let finished = self.reconciler.finish(&rules, &mut self.maps, &self.netlink).await;
        troubles.extend(words(finished));
        self.absorb();
        troubles
    }

    /// Brings a part of everything in step, and before it what the store has told meanwhile: that does not wait for all
    /// the others.
    async fn bring_next(&mut self, records: &mut Records, part: &Part, stage: Stage) -> BTreeSet<String> {
        let mut troubles = BTreeSet::new();
        let mut touched = Touched::default();
        while let Ok(update) = self.updates.try_recv() {
            self.records = Some(std::mem::take(records));
            self.take_update(update, &mut touched);
            *records = self.records.take().unwrap_or_default();
        }
        if touched.is_few() {
            if let Some(held) = self.reconciler.held().filter(|_| !touched.is_empty()) {
                let changed = Part::around(&touched, records, held);
                troubles.extend(self.find_ways(records, &changed).await);
                troubles.extend(self.bring(records, &changed, Stage::All).await);
            }
        } else {
            self.waiting.add(touched);
        }
        // Hosts that were two may be one by now.
        let around = Touched { all: false, subnets: part.subnets.clone(), addresses: part.addresses.clone() };
        if let Some(part) = self.reconciler.held().map(|held| Part::around(&around, records, held)) {
            troubles.extend(self.bring(records, &part, stage).await);
        }
        self.absorb();
        troubles
    }

    async fn find_ways(&mut self, records: &Records, part: &Part) -> BTreeSet<String> {
        let peers = desired::peers(&self.local, records.of(&part.subnets).values());
        self.underlay.find(&peers, &part.addresses, &self.local, &self.netlink).await
    }

    /// Brings a part in step, with the ways to its peers known.
    async fn bring(&mut self, records: &Records, part: &Part, stage: Stage) -> BTreeSet<String> {
        let source = match self.announcer.kind() {
            StoreKind::Etcd => RouteSource::Etcd,
            StoreKind::File => RouteSource::File,
        };
        let hops = |ip: IpAddr| self.underlay.to(ip, &self.local);
        let path_mtu = |ip: IpAddr| self.path_mtus.get(&ip).copied();
        let records = records.of(&part.subnets);
        let (desired, refusals) = desired::fold(&self.local, &records, source, hops, path_mtu);
        let mut troubles = BTreeSet::from_iter(refusals);
        let brought = self.reconciler.bring(part, desired, stage, &mut self.maps, &self.netlink).await;
        troubles.extend(words(brought));
        troubles
    }

    /// Whether `PATH_MTUS` says something else than what is in force: told by a router, or expired. Looked at
    /// besides the programs' events, which are lost while the daemon is away.
    pub(super) fn path_mtus_changed(&self) -> bool {
        let Some(records) = &self.records else { return false };
        let judged = self.judge_path_mtus(records);
        judged.map_or(true, |judged| judged.believed != self.path_mtus || !judged.forgotten.is_empty())
    }

    /// Takes over what `PATH_MTUS` says. Returns the peers whose MTU is another now.
    pub(super) fn follow_path_mtus(&mut self) -> Result<BTreeSet<IpAddr>, DatapathError> {
        let Some(records) = self.records.take() else { return Ok(BTreeSet::new()) };
        let shifted = self.take_path_mtus(&records);
        self.records = Some(records);
        shifted
    }

    /// Takes over what `PATH_MTUS` says, and removes from it what is of no use any more. Returns the peers whose MTU is
    /// another now.
    fn take_path_mtus(&mut self, records: &Records) -> Result<BTreeSet<IpAddr>, DatapathError> {
        let Judged { believed, forgotten } = self.judge_path_mtus(records)?;
        for key in forgotten {
            self.maps.delete_path_mtu(key)?;
        }
        let mut shifted = BTreeSet::new();
        for shift in path_mtu::shifts(&self.path_mtus, &believed, |ip| self.most_to(ip, records)) {
            let path_mtu::Shift { peer, path_mtu, before, after } = shift;
            if !self.is_peer(peer, records) {
                continue;
            }
            shifted.insert(peer);
            match path_mtu {
                Some(path) => info!(
                    "a router on the way to peer {peer} carries packets of {path} bytes: MTU to its containers {after}, was {before}"
                ),
                None => info!("MTU to the containers of peer {peer} {after} again, was {before}"),
            }
        }
        self.path_mtus = believed;
        Ok(shifted)
    }

    fn judge_path_mtus(&self, records: &Records) -> Result<Judged, DatapathError> {
        let entries = self.maps.path_mtus()?;
        let is_peer = |ip| self.is_peer(ip, records);
        Ok(path_mtu::judge(entries, is_peer, |ip| self.most_to(ip, records), monotonic_now()))
    }

    /// Whether a peer is reached at an address.
    fn is_peer(&self, ip: IpAddr, records: &Records) -> bool {
        let mut there = records.at(ip).filter_map(|subnet| records.by_subnet().get(&subnet));
        there.any(|record| desired::peer(&self.local, record) == Some(ip))
    }

    /// The largest inner packet to a peer's address that fits the uplinks on the way, and the bytes of outer headers: those
    /// of the first of its subnets.
    fn most_to(&self, peer: IpAddr, records: &Records) -> (u32, u32) {
        let hops = self.underlay.to(peer, &self.local);
        let of = |subnet| desired::overhead(&self.local, records.by_subnet().get(&subnet)?, &hops);
        let overhead = records.at(peer).find_map(of).unwrap_or(path_mtu::LEAST_OVERHEAD);
        (self.local.mtu_over(&hops, overhead), overhead)
    }
}

/// What failed, one line each.
fn words(result: Result<Vec<String>, DatapathError>) -> Vec<String> {
    result.unwrap_or_else(|error| vec![exit::one_line(&error.into())])
}
