//! What somebody else did to the data path and was undone: counted, and said once.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use tracing::{debug, warn};

use super::Daemon;
use crate::reconcile::drift;

/// What was said is not said again for this long: who keeps undoing what is done would fill the log.
const QUIET: Duration = Duration::from_secs(600);

/// What was repaired since the start.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    count: u64,
    said: BTreeMap<String, Instant>,
}

impl Repairs {
    /// How many things were repaired.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Counts; returns what has not been said lately.
    fn take(&mut self, drift: Vec<String>, now: Instant) -> Vec<String> {
        self.count += drift.len() as u64;
        self.said.retain(|_, said| now.duration_since(*said) < QUIET);
        let (new, known): (Vec<_>, Vec<_>) =
            drift.into_iter().partition(|line| !self.said.contains_key(line));
        if !known.is_empty() {
            debug!("again: {}", drift::line(&known));
        }
        self.said.extend(new.iter().map(|line| (line.clone(), now)));
        new
    }
}

impl Daemon {
    /// Notes what this round has found otherwise than it was left.
    pub(super) fn note_repairs(&mut self) {
        let mut drift = self.reconciler.take_drift();
        drift.extend(self.ports.take_drift());
        drift.extend(self.tunnel_devices.take_drift());
        let new = self.repairs.take(drift, Instant::now());
        if !new.is_empty() {
            warn!("somebody else changed what is overlayd's, and it is repaired: {}", drift::line(&new));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_counted_and_said_once() {
        let (mut repairs, now) = (Repairs::default(), Instant::now());
        let lines = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(repairs.take(lines(&["a", "b"]), now), ["a", "b"]);
        assert_eq!(repairs.take(lines(&["a", "c"]), now), ["c"]);
        assert_eq!(repairs.count(), 4);
        assert_eq!(repairs.take(lines(&["a"]), now + QUIET), ["a"]);
    }
}
