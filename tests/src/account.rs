//! What a host has dropped, held against what it should have.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    eventually,
    host::Host,
    traffic::{Frame, Injector},
};

/// How long a counter may lag behind on a busy machine.
const SOON: Duration = Duration::from_secs(5);

/// The drops of a host as they should be, and what was otherwise.
#[derive(Debug)]
pub struct Account<'a> {
    host: &'a Host,
    expected: BTreeMap<String, u64>,
    faults: Vec<String>,
}

impl<'a> Account<'a> {
    /// Starts with what has been dropped so far.
    ///
    /// # Panics
    /// overlayctl failed.
    #[must_use]
    pub fn of(host: &'a Host) -> Self {
        Self { host, expected: drops(host), faults: Vec::new() }
    }

    /// Sends each frame once, each to be dropped for this reason, or for none.
    ///
    /// # Panics
    /// A frame could not be sent.
    pub fn send(&mut self, case: &str, injector: &Injector, frames: &[Vec<u8>], reason: &str) {
        for frame in frames {
            injector.send(frame).unwrap_or_else(|e| panic!("{case}: {e:#}"));
        }
        let expected = [(reason, frames.len() as u64)];
        self.dropped(case, if reason.is_empty() { &[] } else { &expected });
    }

    /// Waits until just so many more have been dropped for just these reasons.
    ///
    /// # Panics
    /// overlayctl failed.
    pub fn dropped(&mut self, case: &str, more: &[(&str, u64)]) {
        let before = self.expected.clone();
        for (reason, count) in more {
            *self.expected.entry((*reason).to_owned()).or_default() += count;
        }
        let mut seen = BTreeMap::new();
        let settled = eventually("drops", SOON, || {
            seen = drops(self.host);
            seen == self.expected
        });
        if settled.is_err() {
            let mut grown = seen.clone();
            grown.iter_mut().for_each(|(reason, n)| *n -= before.get(reason).unwrap_or(&0));
            grown.retain(|_, n| *n > 0);
            self.faults.push(format!("{case}: {more:?} on {}, not {grown:?}", self.host.name));
            self.expected = seen;
        }
    }

    /// Nothing came later, and nothing was otherwise.
    ///
    /// # Panics
    /// Something was.
    pub fn close(mut self) {
        self.dropped("in the end", &[]);
        assert!(self.faults.is_empty(), "{}", self.faults.join("\n"));
    }
}

fn drops(host: &Host) -> BTreeMap<String, u64> {
    host.overlayd().drops().unwrap_or_else(|e| panic!("the drops of {}: {e:#}", host.name))
}

/// No frame is like this.
///
/// # Panics
/// One is.
pub fn assert_none(place: &str, frames: Vec<Frame>, like: impl Fn(&Frame) -> bool) {
    let total = frames.len();
    let found: Vec<Frame> = frames.into_iter().filter(|f| like(f)).collect();
    assert!(found.is_empty(), "{} of {total} frames in {place}, such as {:02x?}", found.len(), found[0]);
}
