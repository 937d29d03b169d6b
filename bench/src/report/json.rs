//! The run as an array of elements that all have the same keys. docs/benchmarking.md tells what they mean.

use serde::Serialize;

use super::{OnWire, Report, Spread};
use crate::{
    measure::Metric,
    rounds::{Discard, LIMIT},
    systems::Wire,
};

/// The metric of the element that tells of discarded rounds.
const DISCARDED: &str = "discarded_rounds";

/// One metric of one system on one wire.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Element {
    wire: Wire,
    system: String,
    metric: &'static str,
    median: f64,
    min: f64,
    max: f64,
    runs: usize,
    /// How many rounds of this wire were discarded.
    discarded: usize,
    /// Only where `metric` is `discarded_rounds`.
    #[serde(skip_serializing_if = "Option::is_none")]
    rounds: Option<Vec<Disagreement>>,
}

/// Where the bare host's two measurements of a discarded round were too far apart.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Disagreement {
    round: usize,
    metric: &'static str,
    first: f64,
    last: f64,
    limit: f64,
}

/// All of a run's elements.
#[must_use]
pub fn elements(report: &Report) -> Vec<Element> {
    report.wires.iter().flat_map(|wire| figures(wire).chain([discarded(wire)])).collect()
}

fn figures(wire: &OnWire) -> impl Iterator<Item = Element> {
    let of = |system: &'_ str, metric: Metric| {
        let Spread { median, min, max, runs } = wire.spread(system, metric)?;
        let (system, metric, discarded) = (system.to_owned(), metric.name(), wire.discarded.len());
        Some(Element { wire: wire.wire, system, metric, median, min, max, runs, discarded, rounds: None })
    };
    wire.systems()
        .flat_map(move |system| Metric::ALL.into_iter().filter_map(move |metric| of(system, metric)))
}

fn discarded(wire: &OnWire) -> Element {
    let discarded = wire.discarded.len();
    let number = discarded as f64;
    Element {
        wire: wire.wire,
        system: "bare".to_owned(),
        metric: DISCARDED,
        median: number,
        min: number,
        max: number,
        runs: wire.kept + discarded,
        discarded,
        rounds: Some(wire.discarded.iter().flat_map(disagreements).collect()),
    }
}

fn disagreements(discard: &Discard) -> impl Iterator<Item = Disagreement> {
    discard.why.iter().map(|why| Disagreement {
        round: discard.round,
        metric: why.metric.name(),
        first: why.first,
        last: why.last,
        limit: LIMIT,
    })
}
