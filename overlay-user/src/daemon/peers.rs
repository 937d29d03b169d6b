//! The store's records made into routes: through whom each peer is reached, and the rounds of the reconciler.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use ipnet::Ipv4Net;
use overlay_common::map::{RouteSource, StoreKind};

use super::Daemon;
use crate::{exit, reconcile::desired, store::PeerSubnet};

impl Daemon {
    pub(super) async fn reconcile(&mut self) -> BTreeSet<String> {
        let Some(records) = self.records.take() else { return BTreeSet::new() };
        let troubles = self.reconcile_with(&records).await;
        self.records = Some(records);
        troubles
    }

    async fn reconcile_with(&mut self, records: &BTreeMap<Ipv4Net, PeerSubnet>) -> BTreeSet<String> {
        let mut troubles = self.find_next_hops(records).await;
        let source = match self.announcer.kind() {
            StoreKind::Etcd => RouteSource::Etcd,
            StoreKind::File => RouteSource::File,
        };
        let next_hop = |ip: Ipv4Addr| self.next_hops.get(&ip).copied().unwrap_or(ip);
        let (desired, refusals) = desired::fold(&self.local, records, source, next_hop);
        troubles.extend(refusals);
        let bridges = self.local.bridge_indexes();
        match self.reconciler.round(&desired, &bridges, &mut self.maps, &self.netlink).await {
            Ok(failures) => troubles.extend(failures),
            Err(error) => drop(troubles.insert(exit::one_line(&error.into()))),
        }
        troubles
    }

    /// Asks the kernel through whom each peer is reached, where that is not known yet.
    async fn find_next_hops(&mut self, records: &BTreeMap<Ipv4Net, PeerSubnet>) -> BTreeSet<String> {
        let mut troubles = BTreeSet::new();
        let peers: BTreeSet<Ipv4Addr> = records
            .values()
            .map(|record| record.public_ip)
            .filter(|ip| *ip != self.local.public_ip && *ip != self.local.underlay_ip)
            .collect();
        self.next_hops.retain(|ip, _| peers.contains(ip));
        for ip in peers {
            if self.next_hops.contains_key(&ip) {
                continue;
            }
            let uplink = &self.local.uplink;
            match self.netlink.next_hop(ip, None).await {
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
                Ok(hop) => drop(self.next_hops.insert(ip, hop.gateway.unwrap_or(ip))),
                Err(error) => drop(troubles.insert(format!("peer {ip} cannot be reached: {error}"))),
            }
        }
        troubles
    }
}
