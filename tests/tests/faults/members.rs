//! Members that die, freeze, or are all gone.

use std::{thread::sleep, time::Duration};

use harness::etcd_cluster::MEMBERS;
use nix::sys::signal::Signal::{SIGCONT, SIGSTOP};

use crate::bed::Bed;

/// Changes of every sort: a new peer, one that moved, and one that left.
fn change(bed: &Bed) {
    bed.put(7, 7);
    bed.put(1, 51);
    bed.delete(2);
}

pub(crate) fn killed() {
    let mut bed = Bed::up();
    bed.under_load(|bed| {
        let leader = bed.cluster.leader().unwrap();
        bed.cluster.kill((leader + 1) % MEMBERS);
        let left = [leader, (leader + 2) % MEMBERS];
        bed.put_at(&left, 7, 7);
        bed.put_at(&left, 1, 51);
        sleep(Duration::from_secs(3));
        bed.cluster.start_all().unwrap();
        bed.becomes_right();
        change(bed);
        bed.becomes_right();
    });
}

pub(crate) fn leader_killed() {
    let mut bed = Bed::up();
    bed.under_load(|bed| {
        let leader = bed.cluster.leader().unwrap();
        bed.cluster.kill(leader);
        sleep(Duration::from_secs(3));
        bed.put_at(&[(leader + 1) % MEMBERS, (leader + 2) % MEMBERS], 7, 7);
        bed.cluster.start_all().unwrap();
        bed.becomes_right();
        change(bed);
        bed.becomes_right();
    });
}

pub(crate) fn all_down() {
    let mut bed = Bed::up();
    bed.under_load(|bed| {
        bed.cluster.kill_all();
        sleep(Duration::from_secs(60));
        let told = bed.store_state(1);
        assert!(told.contains("degraded") && told.contains("Connection refused"), "{told}");
        bed.cluster.start_all().unwrap();
        change(bed);
        bed.becomes_right();
    });
}

pub(crate) fn one_frozen() {
    let mut bed = Bed::up();
    bed.under_load(|bed| {
        let leader = bed.cluster.leader().unwrap();
        for frozen in (0..MEMBERS).filter(|member| *member != leader) {
            bed.cluster.signal(frozen, SIGSTOP).unwrap();
            let left = [leader, MEMBERS - leader - frozen];
            bed.put_at(&left, 7, 20 + frozen as u8);
            sleep(Duration::from_secs(20));
            // Whoever was with the member that froze is with another one by now.
            bed.put_at(&left, 1, 60 + frozen as u8);
            bed.cluster.signal(frozen, SIGCONT).unwrap();
            bed.becomes_right();
        }
    });
}

pub(crate) fn all_frozen() {
    let mut bed = Bed::up();
    bed.under_load(|bed| {
        bed.cluster.signal_all(SIGSTOP).unwrap();
        sleep(Duration::from_secs(30));
        let told = bed.store_state(1);
        assert!(told.contains("degraded"), "{told}");
        bed.cluster.signal_all(SIGCONT).unwrap();
        bed.cluster.leader().unwrap();
        change(bed);
        bed.becomes_right();
    });
}
