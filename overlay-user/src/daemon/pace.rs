//! How often something may be done that costs the more, the more peers there are.

use std::time::{Duration, Instant};

/// The longest rest: also on a machine that was busy with other things, which made it look dear.
const LONGEST: Duration = Duration::from_secs(120);

/// A share of one CPU that something may take.
#[derive(Debug)]
pub(super) struct Pace {
    /// It may take one part in this many of the time.
    share: u32,
    rest_until: Option<Instant>,
}

impl Pace {
    pub(super) fn new(share: u32) -> Self {
        Self { share, rest_until: None }
    }

    /// Whether it may be done again.
    pub(super) fn is_due(&self) -> bool {
        self.rest_until.is_none_or(|until| Instant::now() >= until)
    }

    /// It was done, from `began` until now.
    pub(super) fn took(&mut self, began: Instant) {
        self.rest_until = Some(began + self.rest(began.elapsed()));
    }

    fn rest(&self, took: Duration) -> Duration {
        (took * self.share).min(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_costs_little_is_done_as_often_as_asked_for() {
        let mut pace = Pace::new(100);
        assert!(pace.is_due());
        pace.took(Instant::now());
        assert_eq!(pace.rest(Duration::from_millis(3)), Duration::from_millis(300));
        let began = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
        pace.took(began);
        assert!(!pace.is_due());
    }
}
