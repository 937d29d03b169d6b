//! Networks behind this host that are no bridge's: keys in the store say that its kernel routes for them.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use overlay_common::map::subnet_flag;

use super::{Daemon, Dirty};
use crate::{
    datapath::{DatapathError, map::Maps},
    store::PeerSubnet,
    underlay::Underlay,
};

/// Those of a host, among the store's records.
pub(super) fn of(public: Underlay, records: &BTreeMap<IpNet, PeerSubnet>) -> BTreeSet<IpNet> {
    let ours = records.values().filter(|record| record.routed && record.host.shares(public));
    ours.map(|record| record.subnet).collect()
}

/// Those that the maps hold, where the store does not speak.
pub(super) fn in_force(maps: &Maps) -> Result<BTreeSet<IpNet>, DatapathError> {
    let subnets = maps.subnets()?.into_iter();
    Ok(subnets
        .filter(|(_, entry)| entry.flags & subnet_flag::ROUTED != 0)
        .map(|(key, _)| key.prefix)
        .collect())
}

impl Daemon {
    /// Takes over what the store's records say of this host.
    pub(super) fn follow_routed(&mut self, dirty: &mut Dirty) {
        let Some(records) = &self.records else { return };
        let addresses = self.local.public.addresses();
        let ours = addresses.flat_map(|address| records.at(address));
        let is_routed = |subnet: &IpNet| records.by_subnet().get(subnet).is_some_and(|record| record.routed);
        let routed: BTreeSet<IpNet> = ours.filter(is_routed).collect();
        if routed != self.local.routed {
            self.local.routed = routed;
            dirty.links = true;
        }
    }
}
