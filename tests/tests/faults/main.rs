//! What befalls etcd, and what becomes of the network meanwhile: three members with TLS, three hosts. Every fault is under a
//! sequence-checked probe of 1000 datagrams a second each way and a TCP stream, of which nothing may be lost; what changed
//! in etcd is right on the hosts within [`bed::RIGHT`] of the end of the fault.
//!
//! All of them take minutes: without `OVERLAYD_TEST_FULL` only those of `QUICK` are run.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails, in its helpers too")]

mod bed;
mod cut;
mod members;
mod scale;
mod store;

use libtest_mimic::{Arguments, Trial};

/// A fault, and the test of it.
type Fault = (&'static str, fn());

const FAULTS: [Fault; 12] = [
    ("a_member_is_killed", members::killed),
    ("the_leader_is_killed", members::leader_killed),
    ("all_members_are_down_for_a_minute", members::all_down),
    ("a_member_freezes", members::one_frozen),
    ("all_members_freeze", members::all_frozen),
    ("a_host_is_cut_off_and_history_compacted", cut::compacted),
    ("an_older_snapshot_is_restored", store::restored),
    ("all_data_are_wiped", store::wiped),
    ("a_lease_is_lost_while_its_daemon_is_away", store::lease_lost),
    ("tokens_expire", store::tokens),
    ("the_disk_is_full", store::full),
    ("a_thousand_nodes_come_and_go", scale::thousand_nodes),
];

/// What `.ci/run` has time for.
const QUICK: [&str; 2] = ["the_leader_is_killed", "an_older_snapshot_is_restored"];

fn main() {
    let arguments = Arguments::from_args();
    let full = std::env::var_os("OVERLAYD_TEST_FULL").is_some();
    let trials = FAULTS.iter().map(|(name, test)| {
        let test = *test;
        let trial = Trial::test(*name, move || {
            test();
            Ok(())
        });
        let skipped = !full && !QUICK.contains(name);
        if skipped {
            trial.with_kind("skipped: a long one, of --full").with_ignored_flag(true)
        } else {
            trial
        }
    });
    libtest_mimic::run(&arguments, trials.collect()).exit();
}
