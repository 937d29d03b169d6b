//! Rounds: every system does everything once in each, in an order that changes, and the bare host before and
//! after each load shows whether the machine kept still.

mod noise;
mod order;
mod run;

pub use self::{
    noise::{Disagreement, LIMIT, compare},
    order::shuffled,
    run::{Bed, Plan, run},
};
use crate::measure::{Figures, Metric};

/// One system's figures, a kept round each.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    /// The system.
    pub system: String,
    /// In the order of the rounds.
    pub rounds: Vec<Figures>,
}

impl Samples {
    /// One metric's, in the order of the rounds; empty where it was not measured.
    #[must_use]
    pub fn of(&self, metric: Metric) -> Vec<f64> {
        self.rounds.iter().filter_map(|figures| figures.get(&metric).copied()).collect()
    }
}

/// A round that does not count, for any system.
#[derive(Clone, Debug, PartialEq)]
pub struct Discard {
    /// Counted from 1, kept ones and discarded ones together.
    pub round: usize,
    /// Where the bare host's two measurements were too far apart.
    pub why: Vec<Disagreement>,
}

/// A system that gave no figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The system.
    pub system: String,
    /// In words.
    pub why: String,
}

/// What one wire's rounds gave.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// In the systems' order; a system that failed is not among them.
    pub samples: Vec<Samples>,
    /// Rounds kept.
    pub kept: usize,
    /// Rounds discarded.
    pub discarded: Vec<Discard>,
    /// Systems that failed on the way.
    pub failed: Vec<Failure>,
}
