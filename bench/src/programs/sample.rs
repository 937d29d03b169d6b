//! Medians and how far samples spread around them.

use serde::Serialize;

/// What a set of samples says.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Spread {
    /// Half of the samples are below.
    pub(super) median: f64,
    /// A twentieth is below.
    pub(super) p5: f64,
    /// A twentieth is above.
    pub(super) p95: f64,
}

impl Spread {
    /// `None` of no samples.
    pub(super) fn of(samples: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = samples.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1)?;
        let at = |twentieths: usize| sorted[(last * twentieths + 10) / 20];
        Some(Self { median: at(10), p5: at(1), p95: at(19) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outliers_do_not_move_the_median() {
        let spread = Spread::of((0..100).map(f64::from).chain([1e9])).unwrap();
        assert_eq!((spread.median, spread.p5, spread.p95), (50.0, 5.0, 95.0));
        assert_eq!(Spread::of([7.0]).unwrap(), Spread { median: 7.0, p5: 7.0, p95: 7.0 });
        assert_eq!(Spread::of([]), None);
    }
}
