//! Which rounds count: a rule that was fixed before anything was measured, and that knows the bare host alone.

use crate::measure::{Figures, Load, Metric};

/// By how much the bare host's rate may differ between the start and the end of a load in a round, as a share of the
/// larger one.
pub const LIMIT: f64 = 0.20;

/// A rate in which two measurements of the bare host differ by more than the limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Disagreement {
    /// The rate.
    pub metric: Metric,
    /// Before the other systems.
    pub first: f64,
    /// After them.
    pub last: f64,
}

/// Where two measurements disagree; a round with no such place is kept. Rates alone are judged: what else
/// is measured comes from the same runs.
#[must_use]
pub fn compare(first: &Figures, last: &Figures) -> Vec<Disagreement> {
    let judged = Load::ALL.into_iter().filter_map(|load| {
        let (first, last) = (*first.get(&load.rate())?, *last.get(&load.rate())?);
        Some(Disagreement { metric: load.rate(), first, last })
    });
    judged.filter(|seen| apart(seen.first, seen.last) > LIMIT).collect()
}

fn apart(first: f64, last: f64) -> f64 {
    (first - last).abs() / first.max(last)
}

/// The bare host's figures of a kept round: the mean of its two measurements, so that it stands for the middle of the
/// round as the others do, and has as many runs as they.
pub(super) fn middle(first: &Figures, last: &Figures) -> Figures {
    let both = first.iter().filter_map(|(metric, first)| Some((*metric, (first + last.get(metric)?) / 2.0)));
    both.collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rates(tcp: f64, rr: f64, udp: f64) -> Figures {
        [(Metric::Tcp1Gbps, tcp), (Metric::RrPerS, rr), (Metric::Udp64Kpps, udp), (Metric::RrP99Us, 1.0 / rr)]
            .into()
    }

    fn limits() -> impl Strategy<Value = (Load, f64)> {
        (prop::sample::select(Load::ALL.to_vec()), 0.001..1e9_f64)
    }

    #[test]
    fn a_rate_that_moves_too_far_is_told() {
        let first = rates(20.0, 20_000.0, 200.0);
        assert_eq!(compare(&first, &rates(16.1, 16_100.0, 161.0)), []);
        let seen = compare(&first, &rates(15.9, 20_000.0, 159.0));
        let metrics: Vec<_> = seen.iter().map(|seen| (seen.metric, seen.last)).collect();
        assert_eq!(metrics, [(Metric::Tcp1Gbps, 15.9), (Metric::Udp64Kpps, 159.0)]);
    }

    #[test]
    fn the_middle_has_every_metric() {
        let middle = middle(&rates(20.0, 10.0, 200.0), &rates(18.0, 20.0, 200.0));
        assert_eq!((middle[&Metric::Tcp1Gbps], middle[&Metric::RrPerS], middle.len()), (19.0, 15.0, 4));
    }

    proptest! {
        #[test]
        fn it_does_not_matter_which_one_came_first((load, rate) in limits(), share in 0.0..2.0_f64) {
            let (one, other) = ([(load.rate(), rate)].into(), [(load.rate(), rate * share)].into());
            prop_assert_eq!(compare(&one, &other).len(), compare(&other, &one).len());
        }

        #[test]
        fn what_lies_within_the_limit_is_kept_and_what_does_not_is_told((load, rate) in limits(), share in 0.0..=1.0_f64) {
            let other = rate * (1.0 - share);
            let seen = compare(&[(load.rate(), rate)].into(), &[(load.rate(), other)].into());
            // At the limit itself rounding may decide either way.
            prop_assume!((share - LIMIT).abs() > 1e-9);
            if share < LIMIT {
                prop_assert_eq!(seen, []);
            } else {
                let told = Disagreement { metric: load.rate(), first: rate, last: other };
                prop_assert_eq!(seen, [told]);
            }
        }

        #[test]
        fn only_rates_are_judged(one in 0.001..1e9_f64, other in 0.001..1e9_f64) {
            let costs = |value| [(Metric::CpuSPerGb, value), (Metric::RrP50Us, value), (Metric::RrP99Us, value)].into();
            prop_assert_eq!(compare(&costs(one), &costs(other)), []);
        }
    }
}
