//! What others claim of what is ours: refused before anything is changed.

use std::collections::BTreeMap;

use anyhow::ensure;
use ipnet::IpNet;

use super::leased;
use crate::{
    local::{Local, overlaps},
    reconcile::desired,
    state::State,
    store::{Announcement, PeerSubnet},
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
