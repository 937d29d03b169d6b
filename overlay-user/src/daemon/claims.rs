//! What others claim of what is ours: refused before anything is changed, and told while the daemon runs.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{bail, ensure};
use ipnet::IpNet;

use super::{Aspect, Daemon, leased, notes::Source};
use crate::{
    local::{Local, overlaps},
    reconcile::desired,
    state::State,
    store::{Announcement, PeerSubnet, Store},
};

/// A peer that holds (part of) our subnet already: starting would split the network's opinion.
pub(super) fn refuse_overlap(
    local: &Local,
    records: &BTreeMap<IpNet, PeerSubnet>,
    state: &State,
) -> anyhow::Result<()> {
    for record in records.values() {
        if record.host.shares(local.public) || is_noted(state, record) {
            continue;
        }
        for (bridge, own) in local.bridges.iter().flat_map(|b| b.subnets().map(move |own| (b, own))) {
            let advice =
                leased::note(state.leased, local).map(|note| format!("; {note}")).unwrap_or_default();
            ensure!(
                !overlaps(record.subnet, own),
                "{}{advice}",
                desired::overlap_message(record, &bridge.name, own)
            );
        }
    }
    Ok(())
}

/// Another node that gives itself our address, and lives: packets to that address reach one of the two.
pub(super) async fn refuse_rival(
    local: &Local,
    records: &BTreeMap<IpNet, PeerSubnet>,
    store: &dyn Store,
) -> anyhow::Result<()> {
    let is_anothers = |record: &&PeerSubnet| {
        record.host.shares(local.public) && record.vtep_mac.is_some_and(|mac| mac != local.vtep_mac)
    };
    let Some(record) = records.values().find(is_anothers) else { return Ok(()) };
    if let Some(rival) = store.rival(local.public, local.vtep_mac).await? {
        bail!(
            "{rival} gives itself this host's own address {} and announces {}: give one of the two another one with \
             --public-ip; if it was this host under another name, its key goes within half a minute",
            local.public,
            record.subnet
        );
    }
    Ok(())
}

/// Leaves out what this host announced and will take back as soon as it is ready.
pub(super) fn leave_out_stale(records: &mut BTreeMap<IpNet, PeerSubnet>, local: &Local, state: &State) {
    let is_own = |subnet: IpNet| local.bridges.iter().any(|bridge| bridge.subnets().any(|own| own == subnet));
    records.retain(|subnet, record| is_own(*subnet) || !is_noted(state, record));
}

/// Whether this host announced it.
fn is_noted(state: &State, record: &PeerSubnet) -> bool {
    let announced = |own: &Announcement| {
        own.subnets.each().any(|subnet| subnet == record.subnet) && own.host.shares(record.host)
    };
    state.announcements.iter().any(announced)
}

impl Daemon {
    /// Takes in what several keys claim. The store has told the log already.
    pub(super) fn take_contests(&mut self, contests: BTreeSet<String>) {
        if contests.is_empty() {
            self.troubles.remove(&Aspect::Contests);
        } else {
            self.troubles.insert(Aspect::Contests, contests);
        }
    }

    /// Tells of peers' addresses that several hosts give themselves. Of our own the records' own troubles tell.
    pub(super) fn tell_rivals(&mut self) {
        let Some(records) = &self.records else { return };
        let others = records.rivals().filter(|(address, _)| !self.local.public.has(*address));
        let rivals: Vec<String> = others.map(|(_, told)| told.to_owned()).collect();
        if self.notes.get(&Source::Hosts).map_or(&[][..], Vec::as_slice) != rivals {
            self.note(Source::Hosts, rivals);
        }
    }
}
