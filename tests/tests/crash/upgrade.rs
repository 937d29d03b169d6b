//! Two builds with different map layouts, one after the other and side by side.

use harness::traffic::ping;

use crate::bed::{Bed, STEPS, are_gone, attachments, next};

fn programs(bed: &Bed) -> Vec<u32> {
    attachments(bed.topology.h(1)).into_iter().map(|attachment| attachment.program).collect()
}

/// What was received of host 2.
fn received(bed: &Bed) -> u64 {
    let peers = bed.topology.h(1).overlayd().ctl(&["peers", "-o", "json"]).unwrap();
    let peers = peers.as_array().unwrap();
    let host = bed.topology.h(2).ip.to_string();
    let peer =
        peers.iter().find(|peer| peer["public_ip"] == host.as_str()).unwrap_or_else(|| panic!("{peers:?}"));
    peer["packets_from"].as_u64().unwrap()
}

pub(crate) fn there_and_back() {
    let mut bed = Bed::up();
    let probe = bed.probe();
    for (n, build) in (1..).zip([next(), None, next(), next(), None]) {
        let (before, counted) = (programs(&bed), received(&bed));
        bed.topology.h_mut(1).overlayd_mut().kill9().unwrap();
        bed.toggle(n);
        bed.prepare(build, None);
        bed.start();
        are_gone(before);
        assert!(received(&bed) >= counted, "what was counted is carried over");
        let (h1, h2) = (bed.topology.h(1), bed.topology.h(2));
        assert!(ping(&h2.ns, h1.c(1).ip, 2).unwrap().clean());
    }
    let report = probe.finish().unwrap();
    assert!(report.clean(), "{report}");
}

/// The upgrade dies; then the new build is started again, or the old one, whichever the operator thinks better.
pub(crate) fn each_step() {
    let mut bed = Bed::up();
    let probe = bed.probe();
    for (n, step) in (1..).zip(STEPS) {
        for then in [next(), None] {
            bed.topology.h_mut(1).overlayd_mut().kill9().unwrap();
            bed.toggle(n);
            bed.prepare(next(), Some(step));
            bed.start_and_die(step);
            bed.prepare(then, None);
            bed.start();
            bed.topology.h_mut(1).overlayd_mut().kill9().unwrap();
            bed.prepare(None, None);
            bed.start();
        }
    }
    let report = probe.finish().unwrap();
    assert!(report.clean(), "{report}");
}

/// Who asks with the old tool after an upgrade is not told that nothing runs.
pub(crate) fn overlayctl_of_another_build() {
    let mut bed = Bed::up();
    bed.topology.h_mut(1).overlayd_mut().kill9().unwrap();
    bed.prepare(next(), None);
    bed.start();
    bed.prepare(None, None);
    let said = bed.topology.h(1).overlayd().ctl_output(&["status"]).unwrap();
    assert_eq!(said.code, Some(4), "{}", said.text());
    assert!(said.stderr.contains("of another build"), "{}", said.text());
}
