//! Ids of peers and tunnels: which are in use, and which is the lowest that is not.

/// A set of small numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdSet {
    words: Vec<u64>,
}

impl IdSet {
    /// Adds an id.
    pub fn insert(&mut self, id: u32) {
        let word = (id / 64) as usize;
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        self.words[word] |= 1 << (id % 64);
    }

    /// Takes an id away.
    pub fn remove(&mut self, id: u32) {
        if let Some(word) = self.words.get_mut((id / 64) as usize) {
            *word &= !(1 << (id % 64));
        }
    }

    /// All of them, in their order.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        let bits = |(number, word): (usize, &u64)| {
            let word = *word;
            (0..64).filter(move |bit| word & 1 << bit != 0).map(move |bit| number as u32 * 64 + bit)
        };
        self.words.iter().enumerate().flat_map(bits)
    }

    /// The lowest id from 1 on that is not in here.
    fn lowest_free(&self) -> u32 {
        // Id 0 is never used, so that a zeroed entry points nowhere.
        let free = |(number, word): (usize, &u64)| {
            let taken = if number == 0 { word | 1 } else { *word };
            (taken != u64::MAX).then(|| number as u32 * 64 + taken.trailing_ones())
        };
        let beyond = (self.words.len() as u32 * 64).max(1);
        self.words.iter().enumerate().find_map(free).unwrap_or(beyond)
    }
}

impl FromIterator<u32> for IdSet {
    fn from_iter<I: IntoIterator<Item = u32>>(ids: I) -> Self {
        let mut set = Self::default();
        ids.into_iter().for_each(|id| set.insert(id));
        set
    }
}

/// Hands out the lowest ids that are not in use, below a limit.
pub(super) struct Ids {
    used: IdSet,
    limit: u32,
}

impl Ids {
    pub(super) fn new(used: IdSet, limit: usize) -> Self {
        Self { used, limit: limit as u32 }
    }

    pub(super) fn take(&mut self) -> Option<u32> {
        let id = Some(self.used.lowest_free()).filter(|id| *id < self.limit)?;
        self.used.insert(id);
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_lowest_that_is_free(used: BTreeSet<u8>, gone: BTreeSet<u8>) {
            let mut set: IdSet = used.iter().map(|id| u32::from(*id)).collect();
            gone.iter().for_each(|id| set.remove((*id).into()));
            let left: BTreeSet<u32> = used.difference(&gone).map(|id| u32::from(*id)).collect();
            let lowest = (1..).find(|id| !left.contains(id)).unwrap();
            let mut ids = Ids::new(set, 300);
            prop_assert_eq!(ids.take(), Some(lowest));
            prop_assert!(ids.take().is_some_and(|next| next > lowest && !left.contains(&next)));
        }
    }

    #[test]
    fn the_limit_is_kept() {
        let mut ids = Ids::new((0..64).collect(), 66);
        assert_eq!([ids.take(), ids.take(), ids.take()], [Some(64), Some(65), None]);
    }
}
