//! Uplinks of other kinds than a veth, which not every machine has: a test of a kind that cannot be had here is said to be
//! skipped, and why, and is not counted as passed.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails, in its helpers too")]

mod bed;
mod bond;
mod expected;
mod kind;
mod lay;
mod refusals;
mod restart;
mod traffic;
mod tun;
mod vlan;

use std::time::Duration;

use libtest_mimic::{Arguments, Trial};

use expected::{CASES, Case};
use kind::Kind;

/// How long anything may take on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(10);

fn main() {
    let arguments = Arguments::from_args();
    let mut trials = Vec::new();
    for case in CASES {
        let lacking = case.kind.lacking();
        for (name, test) in tests(case.kind) {
            trials.push(trial(case, name, test, lacking.as_deref()));
        }
    }
    libtest_mimic::run(&arguments, trials).exit();
}

type Test = fn(Case);

fn tests(kind: Kind) -> Vec<(&'static str, Test)> {
    let mut tests: Vec<(&str, Test)> = vec![
        ("traffic_of_all_sizes_takes_the_fast_path", traffic::takes_the_fast_path),
        ("forged_packets_are_refused_by_name", refusals::by_name),
        ("a_restart_loses_nothing_and_detach_leaves_nothing", restart::loses_nothing),
    ];
    match kind {
        Kind::Vlan => tests.push(("what_comes_in_no_vlan_or_another_is_not_the_uplinks", vlan::others)),
        Kind::Bond => tests.push(("a_leg_that_fails_is_replaced", bond::fails_over)),
        _ => {}
    }
    tests
}

/// One test of one case. What its output has in brackets is why it is skipped.
fn trial(case: Case, name: &str, test: Test, lacking: Option<&str>) -> Trial {
    let trial = Trial::test(format!("{}::{name}", case.name), move || {
        test(case);
        Ok(())
    });
    match lacking {
        Some(why) => trial.with_kind(format!("skipped: {why}")).with_ignored_flag(true),
        None => trial,
    }
}
