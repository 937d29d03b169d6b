//! How long each phase of the start took: told once, when everything is in place.

use std::{fmt::Write as _, time::Instant};

use tracing::info;

/// The phases that are over.
#[derive(Debug)]
pub(super) struct Phases {
    began: Instant,
    over: Vec<(&'static str, Instant)>,
    told: bool,
}

impl Phases {
    /// Begins.
    pub(super) fn begin() -> Self {
        Self { began: Instant::now(), over: Vec::new(), told: false }
    }

    /// A phase is over. What is done again after the start is none.
    pub(super) fn over(&mut self, phase: &'static str) {
        if !self.told {
            self.over.push((phase, Instant::now()));
        }
    }

    /// Whether the start is over.
    pub(super) fn are_told(&self) -> bool {
        self.told
    }

    /// Tells of them all, in milliseconds: `started in 523.1 ms: network 3.2, subnets 41.5, …`.
    pub(super) fn tell(&mut self) {
        self.told = true;
        let mut text = String::new();
        let mut before = self.began;
        for (phase, at) in self.over.drain(..) {
            let separator = if text.is_empty() { "" } else { ", " };
            // Writing to a string does not fail.
            let _ = write!(text, "{separator}{phase} {:.1}", (at - before).as_secs_f64() * 1e3);
            before = at;
        }
        info!("started in {:.1} ms: {text}", (before - self.began).as_secs_f64() * 1e3);
    }
}
