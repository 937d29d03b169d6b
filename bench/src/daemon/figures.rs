//! The figures of all rounds.

use std::fmt::Write as _;

use serde::Serialize;

use super::round::Round;

/// What is measured, in the order in which it is told, with its unit and its target.
pub(super) const METRICS: [Metric; 14] = [
    Metric::new(
        "cold_start_ms",
        "cold start: etcd's answer to the last route in the maps",
        "ms",
        Some(2000.0),
    ),
    Metric::new("start_ms", "whole start, to `ready`", "ms", None),
    Metric::new("event_p50_ms", "event to map, p50", "ms", None),
    Metric::new("event_p99_ms", "event to map, p99", "ms", Some(20.0)),
    Metric::new("event_max_ms", "event to map, max", "ms", None),
    Metric::new("changes_per_s", "changes made", "1/s", None),
    Metric::new("cpu_rest_percent", "CPU at rest", "% of a core", Some(1.0)),
    Metric::new("cpu_changes_percent", "CPU while changes are made", "% of a core", None),
    Metric::new("rss_start_mib", "resident after the start", "MiB", Some(48.0)),
    Metric::new("hwm_start_mib", "resident at most, after the start", "MiB", Some(48.0)),
    Metric::new("rss_changes_mib", "resident after the changes", "MiB", Some(48.0)),
    Metric::new("hwm_changes_mib", "resident at most, after the changes", "MiB", Some(48.0)),
    Metric::new("maps_mib", "maps, in the kernel (memlock)", "MiB", None),
    Metric::new("answered_ms", "until etcd's first answer", "ms", None),
];

/// Something that is measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Metric {
    pub(super) name: &'static str,
    pub(super) words: &'static str,
    pub(super) unit: &'static str,
    /// The most that it may be.
    pub(super) target: Option<f64>,
}

impl Metric {
    const fn new(name: &'static str, words: &'static str, unit: &'static str, target: Option<f64>) -> Self {
        Self { name, words, unit, target }
    }
}

/// All rounds of one table.
#[derive(Debug, Default)]
pub(super) struct Figures {
    /// In the order of [`METRICS`], one value a round each.
    values: [Vec<f64>; METRICS.len()],
    /// The phases of the start, in their order.
    phases: Vec<(String, Vec<f64>)>,
}

/// The middle and the ends of some values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
    pub(super) runs: usize,
}

impl Spread {
    /// `None` of nothing.
    pub(super) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let median = match sorted.len() % 2 {
            0 => f64::midpoint(*sorted.get(middle.checked_sub(1)?)?, sorted[middle]),
            _ => sorted[middle],
        };
        Some(Self { median, min: *sorted.first()?, max: *sorted.last()?, runs: sorted.len() })
    }
}

impl Figures {
    pub(super) fn add(&mut self, round: &Round) {
        let answered =
            round.start.phases.iter().take_while(|(name, _)| name != "subnets").map(|(_, took)| took).sum();
        let values = [
            round.cold_start,
            round.start.total,
            round.latencies.quantile(0.5),
            round.latencies.quantile(0.99),
            round.latencies.quantile(1.0),
            round.latencies.rate,
            round.at_rest,
            round.at_work,
            round.after_start.resident,
            round.after_start.highest,
            round.after_changes.resident,
            round.after_changes.highest,
            round.maps,
            answered,
        ];
        for (all, value) in self.values.iter_mut().zip(values) {
            all.push(value);
        }
        for (name, took) in &round.start.phases {
            match self.phases.iter_mut().find(|(known, _)| known == name) {
                Some((_, all)) => all.push(*took),
                None => self.phases.push((name.clone(), vec![*took])),
            }
        }
    }

    /// The last round, in one line.
    pub(super) fn last(&self) -> String {
        let mut text = String::new();
        for (metric, values) in METRICS.iter().zip(&self.values) {
            let _ = write!(text, " {} {:.1}", metric.name, values.last().copied().unwrap_or(f64::NAN));
        }
        for (name, values) in &self.phases {
            let _ = write!(text, "; {name} {:.1}", values.last().copied().unwrap_or(f64::NAN));
        }
        text
    }

    pub(super) fn spreads(&self) -> impl Iterator<Item = (&'static Metric, Spread)> {
        METRICS.iter().zip(&self.values).filter_map(|(metric, values)| Some((metric, Spread::of(values)?)))
    }

    pub(super) fn phases(&self) -> impl Iterator<Item = (&str, Spread)> {
        self.phases.iter().filter_map(|(name, values)| Some((name.as_str(), Spread::of(values)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_and_the_ends() {
        let spread = |values: &[f64]| Spread::of(values).map(|s| (s.median, s.min, s.max, s.runs));
        assert_eq!(spread(&[3.0, 1.0, 2.0]), Some((2.0, 1.0, 3.0, 3)));
        assert_eq!(spread(&[4.0, 1.0]), Some((2.5, 1.0, 4.0, 2)));
        assert_eq!(spread(&[]), None);
    }
}
