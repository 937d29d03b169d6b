//! Round trips, each one kept: exact percentiles, and no buckets to compute while the clock runs.

use std::time::Duration;

/// More than a round trip through two namespaces can be had for.
const MOST_PER_SECOND: f64 = 150_000.0;

/// Round trips in nanoseconds.
#[derive(Debug)]
pub(super) struct Latencies(Vec<u32>);

impl Latencies {
    /// With room for a run of this length.
    pub(super) fn with_room(time: Duration) -> Self {
        // Written once, so that no page has to be found while the clock runs.
        let mut room = vec![1; (time.as_secs_f64() * MOST_PER_SECOND) as usize];
        room.clear();
        Self(room)
    }

    /// Notes one; what takes longer than 4 s counts as 4 s.
    pub(super) fn note(&mut self, latency: Duration) {
        self.0.push(u32::try_from(latency.as_nanos()).unwrap_or(u32::MAX));
    }

    /// The smallest round trips that so many percent are not longer than, in microseconds; 0 where none was noted.
    pub(super) fn percentiles_us<const N: usize>(mut self, percents: [f64; N]) -> [f64; N] {
        self.0.sort_unstable();
        percents.map(|percent| {
            let rank = (percent / 100.0 * self.0.len() as f64).ceil() as usize;
            self.0.get(rank.saturating_sub(1)).map_or(0.0, |ns| f64::from(*ns) / 1000.0)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(microseconds: impl IntoIterator<Item = u64>) -> Latencies {
        let mut latencies = Latencies::with_room(Duration::from_millis(1));
        microseconds.into_iter().for_each(|us| latencies.note(Duration::from_micros(us)));
        latencies
    }

    #[test]
    fn percentiles_are_those_of_the_nearest_rank() {
        let hundred = || of((1..=100).rev());
        assert_eq!(hundred().percentiles_us([50.0, 99.0, 100.0]), [50.0, 99.0, 100.0]);
        assert_eq!(of([7]).percentiles_us([50.0, 99.0]), [7.0, 7.0]);
        assert_eq!(of([1, 2, 3]).percentiles_us([50.0, 99.0]), [2.0, 3.0]);
    }

    #[test]
    fn none_is_zero_and_too_long_is_not_small() {
        assert_eq!(of([]).percentiles_us([50.0]), [0.0]);
        assert!(of([1 << 40]).percentiles_us([50.0])[0] > 4e6);
    }
}
