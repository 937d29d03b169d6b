//! The order within a round: another one each time, and the same ones in every run.

/// Where the random numbers start, so that two runs are alike.
const SEED: u64 = 0x6f76_6572_6c61_7964;

/// 0..n in an order that the two numbers alone decide (Fisher and Yates, with SplitMix64).
#[must_use]
pub fn shuffled(n: usize, round: usize, nth: usize) -> Vec<usize> {
    let mut state = SEED ^ ((round as u64) << 32) ^ nth as u64;
    let mut order: Vec<usize> = (0..n).collect();
    for left in (2..=n).rev() {
        order.swap(left - 1, (next(&mut state) % left as u64) as usize);
    }
    order
}

fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn everybody_is_in_it_once_and_it_is_the_same_again(n in 0..20_usize, round in 0..1000_usize, nth in 0..9_usize) {
            let order = shuffled(n, round, nth);
            prop_assert_eq!(&order, &shuffled(n, round, nth));
            prop_assert_eq!(order.into_iter().collect::<BTreeSet<_>>(), (0..n).collect());
        }
    }

    #[test]
    fn nobody_is_always_first() {
        let firsts: BTreeSet<_> = (1..=40).map(|round| shuffled(6, round, 0)[0]).collect();
        assert_eq!(firsts.len(), 6);
        let orders: BTreeSet<_> = (0..5).map(|nth| shuffled(6, 1, nth)).collect();
        assert!(orders.len() > 1, "every load of a round has the same order");
    }
}
