//! At any moment, of the start and after it.

use std::{thread::sleep, time::Duration};

use crate::bed::Bed;

const MOMENTS: u32 = 50;
/// The latest moment, milliseconds after the start: a start takes about half of it.
const LATEST: u32 = 300;

/// Numbers that look drawn by lot, and are the same each time.
fn lots() -> impl Iterator<Item = u32> {
    std::iter::successors(Some(2_463_534_242_u32), |n| {
        let n = n ^ (n << 13);
        let n = n ^ (n >> 17);
        Some(n ^ (n << 5))
    })
}

pub(crate) fn fifty() {
    let mut bed = Bed::up();
    let probe = bed.probe();
    let mut lots = lots().skip(1);
    let mut lot = |of: u32| lots.next().unwrap_or_default() % of;
    for _ in 0..MOMENTS {
        bed.topology.h_mut(1).overlayd_mut().kill9().unwrap();
        // So that there is something to be done, and to be left half done.
        bed.toggle(lot(8) as u8);
        bed.topology.h_mut(1).overlayd_mut().launch().unwrap();
        sleep(Duration::from_millis(lot(LATEST).into()));
    }
    bed.topology.h_mut(1).overlayd_mut().kill9().unwrap();
    bed.start();
    let report = probe.finish().unwrap();
    assert!(report.clean(), "{report}");
}
