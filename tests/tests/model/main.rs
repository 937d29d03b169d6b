//! A whole daemon against a model of it. What befalls etcd, its keys, the daemon and what is in the kernel is drawn by lot;
//! afterwards the daemon's routes and maps are what the keys say, and a peer that did not change has lost nothing.
//!
//! A few sequences, or with `OVERLAYD_TEST_FULL` many. Each is drawn from a number, which is told where it fails:
//! `OVERLAYD_MODEL_SEED` has the draw begin with that one.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails, in its helpers too")]

mod bed;
mod drift;
mod expected;
mod step;

use std::{
    env,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    time::Instant,
};

use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

use crate::{bed::Bed, step::Step};

/// The first number, unless another one is given.
const SEED: u64 = 20;

/// Sequences that `.ci/run` has time for, and those of a long run.
const SEQUENCES: [u64; 2] = [3, 60];

/// What happens in a sequence, at most.
const STEPS: [usize; 2] = [9, 28];

fn draw(seed: u64, most: usize) -> Vec<Step> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let steps = proptest::collection::vec(step::steps(), most / 3..=most);
    steps.new_tree(&mut runner).unwrap().current().concat()
}

#[test]
fn whatever_happens_it_comes_to_what_the_keys_say() {
    let full = usize::from(env::var_os("OVERLAYD_TEST_FULL").is_some());
    let given = env::var("OVERLAYD_MODEL_SEED").ok().map(|seed| seed.parse().unwrap());
    let first: u64 = given.unwrap_or(SEED);
    let mut bed = Bed::up();
    for seed in first..first + SEQUENCES[full] {
        let (steps, began) = (draw(seed, STEPS[full]), Instant::now());
        let run = catch_unwind(AssertUnwindSafe(|| bed.run(&steps)));
        let told = format!("OVERLAYD_MODEL_SEED={seed}: {steps:?}");
        if let Err(panic) = run {
            eprintln!("{told}");
            resume_unwind(panic);
        }
        println!("{seed}: {} steps in {:?}", steps.len(), began.elapsed());
    }
}
