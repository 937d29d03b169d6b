//! ECMP: which of a tunnel's slots lead over which of the ways that the host's routes offer.
//!
//! The programs pick a slot by a flow's hash. A slot that changes its way takes its flows along, which reorders
//! them once: as few as possible do.

use std::{cmp::Reverse, collections::BTreeMap};

use overlay_common::map::{Hop, MAX_HOPS};

/// The ways of a tunnel, as they stand in its map.
pub type Slots = [Hop; MAX_HOPS];

/// A way, and its weight among others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// The way.
    pub hop: Hop,
    /// At least 1, as `ip route`'s `weight`.
    pub weight: u32,
}

/// Fills the slots by weight, each way one at least; `None` where there is no way. Of more ways than slots those with
/// the largest weight are used. Every slot of `before` that can keep its way keeps it.
pub fn fill(ways: &[Way], before: Option<&Slots>) -> Option<Slots> {
    let ways = heaviest(ways, before);
    let mut shares = shares(&ways, before);
    let first = ways.first()?.hop;
    let mut kept = [None; MAX_HOPS];
    for (slot, hop) in kept.iter_mut().zip(before.into_iter().flatten()) {
        if let Some(share) = shares.get_mut(hop).filter(|share| **share > 0) {
            *share -= 1;
            *slot = Some(*hop);
        }
    }
    let mut left = ways.iter().flat_map(|way| vec![way.hop; shares[&way.hop]]);
    Some(kept.map(|slot| slot.or_else(|| left.next()).unwrap_or(first)))
}

/// The ways that get slots, the weights of equal ones together.
fn heaviest(ways: &[Way], before: Option<&Slots>) -> Vec<Way> {
    let mut merged: Vec<Way> = Vec::new();
    for way in ways {
        match merged.iter_mut().find(|known| known.hop == way.hop) {
            Some(known) => known.weight = known.weight.saturating_add(way.weight),
            None => merged.push(*way),
        }
    }
    merged.sort_by_key(|way| (Reverse(way.weight), Reverse(held(before, way.hop)), way.hop));
    merged.truncate(MAX_HOPS);
    merged
}

/// How many slots each way gets: one, and then by highest averages (Sainte-Laguë). Without one of the ways no
/// other gets fewer, so that only its own slots move.
fn shares(ways: &[Way], before: Option<&Slots>) -> BTreeMap<Hop, usize> {
    let mut shares: BTreeMap<Hop, usize> = ways.iter().map(|way| (way.hop, 1)).collect();
    for _ in ways.len()..MAX_HOPS {
        // Compared as fractions, weight / (2 * share + 1), without dividing.
        let next = ways.iter().min_by(|a, b| {
            let ahead = |way: &Way, other: &Way| u64::from(way.weight) * (2 * shares[&other.hop] as u64 + 1);
            let waits = |way: &Way| held(before, way.hop) > shares[&way.hop];
            ahead(b, a).cmp(&ahead(a, b)).then(waits(b).cmp(&waits(a)))
        });
        if let Some(share) = next.and_then(|way| shares.get_mut(&way.hop)) {
            *share += 1;
        }
    }
    shares
}

/// How many slots a way had.
fn held(before: Option<&Slots>, hop: Hop) -> usize {
    before.into_iter().flatten().filter(|slot| **slot == hop).count()
}

#[cfg(test)]
mod tests {
    use overlay_common::addr::MapIp;
    use proptest::prelude::*;

    use super::*;

    fn hop(n: u8) -> Hop {
        Hop { uplink: u32::from(n), next_hop: MapIp::v4([192, 0, 2, n]) }
    }

    fn ways(weights: &[(u8, u32)]) -> Vec<Way> {
        weights.iter().map(|(n, weight)| Way { hop: hop(*n), weight: *weight }).collect()
    }

    fn counts(slots: &Slots) -> BTreeMap<u32, usize> {
        let mut counts = BTreeMap::new();
        for slot in slots {
            *counts.entry(slot.uplink).or_default() += 1;
        }
        counts
    }

    fn moved(before: &Slots, after: &Slots) -> usize {
        before.iter().zip(after).filter(|(a, b)| a != b).count()
    }

    #[test]
    fn by_weight() {
        let filled = |weights: &[(u8, u32)]| counts(&fill(&ways(weights), None).unwrap());
        assert_eq!(fill(&[], None), None);
        assert_eq!(filled(&[(1, 1)]), [(1, 8)].into());
        assert_eq!(filled(&[(1, 1), (2, 1)]), [(1, 4), (2, 4)].into());
        assert_eq!(filled(&[(1, 3), (2, 1)]), [(1, 6), (2, 2)].into());
        assert_eq!(filled(&[(1, 256), (2, 1)]), [(1, 7), (2, 1)].into());
        assert_eq!(filled(&[(1, 1), (1, 1), (2, 2)]), [(1, 4), (2, 4)].into());
        let nine: Vec<(u8, u32)> = (1..=9).map(|n| (n, if n == 1 { 1 } else { 2 })).collect();
        assert!(!filled(&nine).contains_key(&1), "the lightest has no place");
    }

    #[test]
    fn a_way_that_goes_and_comes_back_moves_its_own_slots_only() {
        let three = ways(&[(1, 1), (2, 1), (3, 1)]);
        let before = fill(&three, None).unwrap();
        let had = counts(&before)[&2];
        let without = fill(&ways(&[(1, 1), (3, 1)]), Some(&before)).unwrap();
        assert_eq!((counts(&without).len(), moved(&before, &without)), (2, had));
        let again = fill(&three, Some(&without)).unwrap();
        assert_eq!(moved(&without, &again), counts(&again)[&2]);
    }

    fn weights() -> impl Strategy<Value = Vec<(u8, u32)>> {
        prop::collection::btree_map(1u8..20, 1u32..257, 1..12).prop_map(|map| map.into_iter().collect())
    }

    proptest! {
        #[test]
        fn every_slot_is_a_way_and_every_way_has_one(weights in weights(), before in weights()) {
            let before = fill(&ways(&before), None);
            let slots = fill(&ways(&weights), before.as_ref()).unwrap();
            let counts = counts(&slots);
            prop_assert_eq!(counts.len(), weights.len().min(MAX_HOPS));
            prop_assert!(counts.keys().all(|n| weights.iter().any(|(m, _)| u32::from(*m) == *n)));
            prop_assert_eq!(fill(&ways(&weights), Some(&slots)), Some(slots), "stable");
        }

        #[test]
        fn one_change_moves_the_slots_of_one_way(mut weights in weights(), which: prop::sample::Index) {
            weights.truncate(MAX_HOPS);
            let before = fill(&ways(&weights), None).unwrap();
            let (gone, _) = weights.remove(which.index(weights.len()));
            prop_assume!(!weights.is_empty());
            let after = fill(&ways(&weights), Some(&before)).unwrap();
            prop_assert_eq!(moved(&before, &after), counts(&before)[&u32::from(gone)]);
        }
    }
}
