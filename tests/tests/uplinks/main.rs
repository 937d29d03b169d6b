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
    let cases = CASES.map(|case| (case, case.kind.lacking()));
    let mut trials = Vec::new();
    // Kind by kind: two tests that run at the same time seldom want the same network cards.
    for (name, test, only) in TESTS {
        let concerned = cases.iter().filter(|(case, _)| only(case));
        trials.extend(concerned.map(|(case, lacking)| trial(*case, name, test, lacking.as_deref())));
    }
    libtest_mimic::run(&arguments, trials).exit();
}

type Test = fn(Case);
type Concerns = fn(&Case) -> bool;

/// Each test, and which cases it is for.
const TESTS: [(&str, Test, Concerns); 5] = [
    ("traffic_of_all_sizes_takes_the_fast_path", traffic::takes_the_fast_path, |_| true),
    ("forged_packets_are_refused_by_name", refusals::by_name, is_unlike_a_veth),
    ("a_restart_loses_nothing_and_detach_leaves_nothing", restart::loses_nothing, is_unlike_a_veth),
    ("what_comes_in_no_vlan_or_another_is_not_the_uplinks", vlan::others, |case| case.kind == Kind::Vlan),
    ("a_leg_that_fails_is_replaced", bond::fails_over, |case| case.kind == Kind::Bond),
];

/// A network card whose packets tc decapsulates is to overlayd what a veth is, and other tests have that.
fn is_unlike_a_veth(case: &Case) -> bool {
    !matches!((case.kind, case.decap.0), (Kind::Nic(_), "tc"))
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
