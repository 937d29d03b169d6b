//! From what the store says to what the kernel holds: desired → plan → apply.
//!
//! [`desired`] folds the store's records into what should be, [`observe`] reads what is, [`plan`] is the
//! pure difference of both, [`apply`] carries it out. Every step is safe on its own, in order: peers and
//! tunnels before the routes that use them, deletions last.

pub mod apply;
pub mod change;
pub mod desired;
pub mod observe;
pub mod plan;
pub mod table;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use tracing::debug;

use self::{desired::Desired, observe::Observed};
use crate::{
    datapath::{DatapathError, map::Maps},
    netlink::Netlink,
};

/// How long a tunnel stays in its map after the last route to it is gone: far longer than any program run
/// that may still be copying it.
const TUNNEL_GRACE: Duration = Duration::from_secs(2);

/// Brings the kernel to the desired state, again and again.
#[derive(Default)]
pub struct Reconciler {
    /// What the kernel held after the last round; `None` before the first and after a failure.
    observed: Option<Observed>,
    /// Tunnels that no route uses, and since when.
    unreferenced: BTreeMap<u32, Instant>,
}

impl Reconciler {
    /// Forgets what was observed, so that the next round reads the kernel again and repairs any drift.
    pub fn resync(&mut self) {
        self.observed = None;
    }

    /// True while tunnels wait for their grace period: another round is due.
    pub fn has_leftovers(&self) -> bool {
        !self.unreferenced.is_empty()
    }

    /// One round. Returns what could not be done and will be tried again: kernel routes, which must not
    /// keep packets between containers waiting.
    ///
    /// # Errors
    /// [`DatapathError`] where a map refused; what was applied until then is safe to keep.
    pub async fn round(
        &mut self,
        desired: &Desired,
        bridges: &[u32],
        maps: &mut Maps,
        netlink: &Netlink,
    ) -> Result<Vec<String>, DatapathError> {
        let mut observed = match self.observed.take() {
            Some(observed) => observed,
            None => observe::read(maps, netlink, bridges).await?,
        };
        let now = Instant::now();
        let clearable: BTreeSet<u32> = self
            .unreferenced
            .iter()
            .filter(|(_, since)| now.duration_since(**since) >= TUNNEL_GRACE)
            .map(|(id, _)| *id)
            .collect();
        let plan = plan::plan(desired, &observed, &clearable);
        let mut failures = Vec::new();
        for change in &plan.changes {
            debug!(?change, "applying");
            match apply::apply(change, maps, netlink).await {
                Ok(()) => observed.record(change),
                Err(apply::ApplyError::KernelRoute(error)) => failures.push(error.to_string()),
                Err(apply::ApplyError::Datapath(error)) => return Err(error),
            }
        }
        self.unreferenced.retain(|id, _| plan.unreferenced.contains(id));
        for id in plan.unreferenced {
            self.unreferenced.entry(id).or_insert(now);
        }
        failures.extend(plan.refusals);
        self.observed = Some(observed);
        Ok(failures)
    }
}
