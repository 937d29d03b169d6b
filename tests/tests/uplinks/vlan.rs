//! An uplink that is a VLAN hears that VLAN and nothing else.

use std::time::Duration;

use harness::{
    frame::tagged,
    traffic::{Injector, Sniffer},
};

use crate::{
    bed::{Bed, flow},
    expected::Case,
    lay::{UNDER, VLAN},
    refusals::{FORGED, await_drops, tunnel},
};

const COUNT: u64 = 20;

pub(crate) fn others(case: Case) {
    let bed = Bed::up(case);
    let h1 = bed.topology.h(1);
    let (probe, injector) =
        (bed.probe(Duration::from_secs(300)), Injector::open(&bed.topology.h(2).ns, UNDER).unwrap());
    let container = Sniffer::everywhere(&h1.c(1).ns).unwrap();
    let packet = tunnel(&bed, FORGED).bytes();
    let mut expected = h1.overlayd().drops().unwrap();
    // Of an interface without an address even the loose kind of it takes nothing.
    h1.ns.sysctl(&format!("ipv4/conf/{UNDER}/rp_filter"), "0").unwrap();
    // Untagged it is the host's, by way of another interface: the tunnel device's guard has not seen it come in.
    for (frame, counted) in [(tagged(&packet, VLAN + 1), 0), (packet.clone(), COUNT)] {
        for _ in 0..COUNT {
            injector.send(&frame).unwrap();
        }
        if counted > 0 {
            expected.insert("not_from_uplink".to_owned(), counted);
        }
        await_drops(h1, &expected, "beside the VLAN");
    }
    flow(&probe, 200);
    assert_eq!(container.count(|f| f.contains(FORGED)), 0);
    // In the VLAN it is as good as any.
    injector.send(&tagged(&packet, VLAN)).unwrap();
    container.await_count("it arrives", 1, crate::SOON, |f| f.contains(FORGED)).unwrap();
    let report = probe.finish().unwrap();
    assert!(report.clean(), "{report}");
    await_drops(h1, &expected, "in the end");
}
