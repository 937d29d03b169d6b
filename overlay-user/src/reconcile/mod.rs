//! From what the store says to what the kernel holds: desired → plan → apply.
//!
//! [`desired`] folds the store's records into what should be, [`observe`] reads what is, [`plan`] is the
//! pure difference of both, [`apply`] carries it out. Every step is safe on its own, in order: peers and
//! tunnels before the routes that use them, deletions last.
//!
//! What is, is kept up to date in [`held`], so that a change of the store needs to look at no more than the hosts it
//! touches ([`part`]). The whole is all parts, one after the other.

pub mod apply;
pub mod change;
pub mod desired;
pub mod drift;
pub mod held;
pub mod kept;
pub mod observe;
pub mod part;
pub mod plan;
pub mod records;
pub mod table;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use tracing::debug;

use self::{
    apply::ApplyError,
    change::{Change, OverlayNeighbour},
    desired::Desired,
    held::Held,
    observe::Observed,
    part::Part,
};
use crate::{
    datapath::{DatapathError, map::Maps},
    netlink::{Netlink, OverlayRule},
};

/// How long a tunnel stays in its map after the last route to it is gone: far longer than any program run
/// that may still be copying it.
const TUNNEL_GRACE: Duration = Duration::from_secs(2);

/// How far a part is brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// What packets between containers need is there. The kernel's tables, and what is to go, wait.
    Maps,
    /// All of it.
    All,
}

/// Brings the kernel to the desired state, again and again.
#[derive(Default)]
pub struct Reconciler {
    /// What the kernel holds; `None` before it was read the first time, and after a failure.
    held: Option<Held>,
    /// Tunnels that were idle when that was last forgotten, and since when.
    idle: BTreeMap<u32, Instant>,
    /// What the kernel held when that was last forgotten, to be compared with what it turns out to hold.
    left: Option<Observed>,
    /// What turned out to be otherwise.
    drift: Vec<String>,
}

impl Reconciler {
    /// Has the kernel read again and any drift repaired, and told.
    pub fn resync(&mut self) {
        if let Some(held) = self.held.take() {
            let (observed, idle) = held.into_parts();
            (self.left, self.idle) = (Some(observed), idle);
        }
    }

    /// As [`Self::resync`], where something happened that changes what the kernel holds: that is no drift.
    pub fn forget(&mut self) {
        self.resync();
        self.left = None;
    }

    /// What was otherwise than it had been left, one line each, since this was last asked.
    pub fn take_drift(&mut self) -> Vec<String> {
        std::mem::take(&mut self.drift)
    }

    /// What the kernel holds, as far as that is known.
    pub fn held(&self) -> Option<&Held> {
        self.held.as_ref()
    }

    /// Notes that somebody else has a route in the main table.
    pub fn note_foreign(&mut self, prefix: ipnet::IpNet) {
        if let Some(held) = &mut self.held {
            held.put_foreign(prefix);
        }
    }

    /// What the kernel holds, read where it is not known.
    ///
    /// # Errors
    /// [`DatapathError`] where a map cannot be read.
    pub async fn observe(
        &mut self,
        bridges: &[u32],
        maps: &Maps,
        netlink: &Netlink,
    ) -> Result<&Held, DatapathError> {
        let held = match self.held.take() {
            Some(held) => held,
            None => {
                let found = observe::read(maps, netlink, bridges).await?;
                if let Some(left) = self.left.take() {
                    self.drift.extend(drift::between(&left, &found));
                }
                Held::new(found, &self.idle)
            }
        };
        Ok(self.held.insert(held))
    }

    /// Brings a part to what is desired of it. Returns what could not be done and is to be tried again: kernel routes,
    /// which must not keep packets between containers waiting.
    ///
    /// # Errors
    /// [`DatapathError`] where a map refused; what was applied until then is safe to keep.
    pub async fn bring(
        &mut self,
        part: &Part,
        desired: Desired,
        stage: Stage,
        maps: &mut Maps,
        netlink: &Netlink,
    ) -> Result<Vec<String>, DatapathError> {
        let Some(held) = &self.held else { return Ok(Vec::new()) };
        let mut plan = plan_part(part, desired, held);
        if stage == Stage::Maps {
            plan.changes.retain(|change| change.is_for_maps(held));
        }
        let mut failures = self.apply(&plan.changes, maps, netlink).await?;
        failures.extend(plan.refusals);
        Ok(failures)
    }

    /// Takes away rules that are not wanted: before the routes of their tables.
    ///
    /// # Errors
    /// As [`Self::bring`].
    pub async fn drop_rules(
        &mut self,
        wanted: &BTreeSet<OverlayRule>,
        maps: &mut Maps,
        netlink: &Netlink,
    ) -> Result<Vec<String>, DatapathError> {
        let Some(held) = &self.held else { return Ok(Vec::new()) };
        let gone = held.observed().rules.difference(wanted);
        let changes: Vec<Change> = gone.map(|rule| Change::DeleteRule(rule.clone())).collect();
        self.apply(&changes, maps, netlink).await
    }

    /// Makes the rules that are wanted, after the routes of their tables, and takes away neighbours to which no route
    /// leads.
    ///
    /// # Errors
    /// As [`Self::bring`].
    pub async fn finish(
        &mut self,
        wanted: &BTreeSet<OverlayRule>,
        maps: &mut Maps,
        netlink: &Netlink,
    ) -> Result<Vec<String>, DatapathError> {
        let Some(held) = &self.held else { return Ok(Vec::new()) };
        let observed = held.observed();
        let missing = wanted.difference(&observed.rules).map(|rule| Change::PutRule(rule.clone()));
        let gateways: BTreeSet<OverlayNeighbour> =
            observed.kernel_routes.values().map(|route| (route.ifindex, route.gateway)).collect();
        let lost = observed.neighbours.difference(&gateways).map(|lost| Change::DeleteNeighbour(*lost));
        let changes: Vec<Change> = missing.chain(lost).collect();
        self.apply(&changes, maps, netlink).await
    }

    /// True while tunnels wait for their grace period: they are to be cleared later.
    pub fn has_leftovers(&self) -> bool {
        self.held.as_ref().is_some_and(Held::has_idle)
    }

    /// Clears the tunnels that have been idle for long enough.
    ///
    /// # Errors
    /// As [`Self::bring`].
    pub async fn clear(&mut self, maps: &mut Maps, netlink: &Netlink) -> Result<(), DatapathError> {
        let Some(held) = &self.held else { return Ok(()) };
        let over = held.idle_for(TUNNEL_GRACE);
        let changes: Vec<Change> = over.into_iter().map(Change::ClearTunnel).collect();
        self.apply(&changes, maps, netlink).await.map(drop)
    }

    /// Carries changes out, and notes each that is done.
    async fn apply(
        &mut self,
        changes: &[Change],
        maps: &mut Maps,
        netlink: &Netlink,
    ) -> Result<Vec<String>, DatapathError> {
        let mut failures = Vec::new();
        // Of one kind at a time: each kind needs those before it to be done.
        for kind in changes.chunk_by(|one, next| std::mem::discriminant(one) == std::mem::discriminant(next))
        {
            let results = apply::apply(kind, maps, netlink).await;
            for (change, result) in kind.iter().zip(results) {
                debug!(?change, "applied");
                match result {
                    Ok(()) => self.held.iter_mut().for_each(|held| held.record(change)),
                    Err(ApplyError::KernelRoute(error)) => failures.push(error.to_string()),
                    Err(ApplyError::Datapath(error)) => {
                        self.forget();
                        return Err(error);
                    }
                }
            }
        }
        Ok(failures)
    }
}

/// Plans a part. Tunnels are not cleared here: they are idle first.
fn plan_part(part: &Part, desired: Desired, held: &Held) -> plan::Plan {
    let view = part.of(held, &desired);
    let desired = Desired { rules: view.rules.clone(), ..desired };
    plan::within(&desired, &view, held.used().clone(), &BTreeSet::new())
}

#[cfg(test)]
mod tests;
