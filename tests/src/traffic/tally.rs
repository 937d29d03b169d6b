//! What one direction of the probe received, told from sequence numbers.

use std::fmt;

/// The sequence numbers of one direction.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Datagrams sent: the numbers 0 .. sent.
    pub sent: u64,
    /// Datagrams the kernel refused to send; their numbers are lost as well.
    pub refused: u64,
    /// How often each number arrived.
    seen: Vec<u8>,
    /// Numbers that arrived after a higher one, for the first time.
    pub reordered: u64,
    highest: Option<u64>,
}

impl Tally {
    /// Sets it against what was sent.
    #[must_use]
    pub fn of(mut self, sent: u64, refused: u64) -> Self {
        (self.sent, self.refused) = (sent, refused);
        self
    }

    /// Notes an arrival.
    pub fn arrived(&mut self, sequence: u64) {
        let Ok(index) = usize::try_from(sequence) else { return };
        if self.seen.len() <= index {
            self.seen.resize(index + 1, 0);
        }
        if self.seen[index] == 0 && self.highest.is_some_and(|highest| sequence < highest) {
            self.reordered += 1;
        }
        self.seen[index] = self.seen[index].saturating_add(1);
        self.highest = self.highest.max(Some(sequence));
    }

    /// How many different numbers arrived.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.seen.iter().map(|n| u64::from(*n > 0)).sum()
    }

    /// How many arrivals were repetitions.
    #[must_use]
    pub fn duplicates(&self) -> u64 {
        self.seen.iter().map(|n| u64::from(n.saturating_sub(1))).sum()
    }

    /// The numbers that were sent and did not arrive.
    #[must_use]
    pub fn lost(&self) -> Vec<u64> {
        let arrived =
            |n: &u64| usize::try_from(*n).ok().and_then(|i| self.seen.get(i)).is_some_and(|c| *c > 0);
        (0..self.sent).filter(|n| !arrived(n)).collect()
    }

    /// Whether everything sent arrived, and once. The order is the network's own affair.
    #[must_use]
    pub fn clean(&self) -> bool {
        self.sent > 0 && self.received() == self.sent && self.duplicates() == 0
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lost = self.lost();
        write!(
            f,
            "{} sent, {} received, {} lost, {} duplicates, {} reordered, {} refused",
            self.sent,
            self.received(),
            lost.len(),
            self.duplicates(),
            self.reordered,
            self.refused
        )?;
        match (lost.first(), lost.last()) {
            (Some(first), Some(last)) => write!(f, " (the lost ones lie in {first}..={last})"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn counts_losses_repetitions_and_disorder_apart() {
        let mut tally = Tally { sent: 6, ..Tally::default() };
        for sequence in [0, 2, 1, 1, 4] {
            tally.arrived(sequence);
        }
        assert_eq!((tally.received(), tally.duplicates(), tally.reordered), (4, 1, 1));
        assert_eq!(tally.lost(), [3, 5]);
        assert!(!tally.clean());
    }

    #[test]
    fn nothing_sent_proves_nothing() {
        assert!(!Tally::default().clean());
    }
}
