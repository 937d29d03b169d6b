//! The daemon is killed: at moments drawn by lot, after each step of its start, and in the middle of an upgrade to a build
//! with another map layout. Whatever it had done, nothing of a sequence-checked probe of 1000 datagrams a second each way
//! is lost, and the next start puts everything in order: no stale link, program or pin.
//!
//! What needs the next build is of `cargo xtask test --full`, which makes it.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails, in its helpers too")]

mod bed;
mod moments;
mod steps;
mod upgrade;

use libtest_mimic::{Arguments, Trial};

/// A test, and whether it needs the next build.
type Test = (&'static str, bool, fn());

const TESTS: [Test; 6] = [
    ("fifty_moments", false, moments::fifty),
    ("after_each_step_of_a_restart", true, steps::restart),
    ("after_each_step_of_a_first_start", true, steps::first_start),
    ("an_upgrade_and_the_way_back", true, upgrade::there_and_back),
    ("after_each_step_of_an_upgrade", true, upgrade::each_step),
    ("a_build_that_knows_nothing_of_the_layout_is_told_so", true, upgrade::overlayctl_of_another_build),
];

fn main() {
    let arguments = Arguments::from_args();
    let trials = TESTS.iter().map(|(name, needs_next, test)| {
        let test = *test;
        let trial = Trial::test(*name, move || {
            test();
            Ok(())
        });
        if *needs_next && bed::next().is_none() {
            trial.with_kind("skipped: it needs the next build, of --full").with_ignored_flag(true)
        } else {
            trial
        }
    });
    libtest_mimic::run(&arguments, trials.collect()).exit();
}
