//! Which rounds count: a rule that was fixed before anything was measured, and that knows the bare host alone.

use crate::measure::{Figures, Load, Metric};

/// By how much a rate of the bare host may differ between the start and the end of a round, as a share of the larger
/// one. UDP is one sender against its own socket's queue and scatters more.
#[must_use]
pub fn limit(load: Load) -> f64 {
    match load {
        Load::Tcp1 | Load::Tcp8 | Load::Rr | Load::Crr => 0.10,
        Load::Udp64 => 0.15,
    }
}

/// A rate in which two measurements of the bare host differ by more than the limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Disagreement {
    /// The rate.
    pub metric: Metric,
    /// At the start of the round.
    pub first: f64,
    /// At its end.
    pub last: f64,
    /// A share of the larger one.
    pub limit: f64,
}

/// Where the two measurements of a round disagree; a round with no such place is kept. Rates alone are judged: what else
/// is measured comes from the same runs.
#[must_use]
pub fn compare(first: &Figures, last: &Figures) -> Vec<Disagreement> {
    let judged = Load::ALL.into_iter().filter_map(|load| {
        let (first, last) = (*first.get(&load.rate())?, *last.get(&load.rate())?);
        Some(Disagreement { metric: load.rate(), first, last, limit: limit(load) })
    });
    judged.filter(|seen| apart(seen.first, seen.last) > seen.limit).collect()
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
    fn each_rate_has_its_own_limit() {
        let first = rates(20.0, 20_000.0, 200.0);
        assert_eq!(compare(&first, &rates(18.1, 18_100.0, 171.0)), []);
        let seen = compare(&first, &rates(17.9, 20_000.0, 169.0));
        let metrics: Vec<_> = seen.iter().map(|seen| (seen.metric, seen.last, seen.limit)).collect();
        assert_eq!(metrics, [(Metric::Tcp1Gbps, 17.9, 0.10), (Metric::Udp64Kpps, 169.0, 0.15)]);
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
            prop_assume!((share - limit(load)).abs() > 1e-9);
            if share < limit(load) {
                prop_assert_eq!(seen, []);
            } else {
                let told = Disagreement { metric: load.rate(), first: rate, last: other, limit: limit(load) };
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
