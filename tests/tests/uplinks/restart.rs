//! The daemon restarted under traffic, and detached.

use std::time::Duration;

use harness::hooks;

use crate::{
    bed::{Bed, decap, flow},
    expected::Case,
};

pub(crate) fn loses_nothing(case: Case) {
    let mut bed = Bed::up(case);
    let programs =
        |bed: &Bed| bed.topology.hosts.iter().map(|host| hooks::attached(host).unwrap()).collect::<Vec<_>>();
    // The uplink, docker0 both ways, the container's port, and the tunnel device.
    let before = programs(&bed);
    assert_eq!(before, [5, 5]);
    let probe = bed.probe(Duration::from_secs(300));
    for number in [1, 2] {
        let host = bed.topology.h_mut(number);
        host.overlayd_mut().restart().unwrap();
        host.overlayd_mut().kill9().unwrap();
        flow(&probe, 100);
        host.overlayd_mut().start_again().unwrap();
    }
    flow(&probe, 100);
    let report = probe.finish().unwrap();
    assert!(report.clean(), "{report}");
    assert_eq!(programs(&bed), before);
    bed.assert_nothing_dropped();
    for number in [1, 2] {
        let host = bed.topology.h_mut(number);
        assert_eq!(decap(host).0, case.decap.0, "on {}", host.name);
        assert_eq!(hooks::has_xdp(host).unwrap(), case.decap.0 == "xdp", "on {}", host.name);
        let output = host.overlayd_mut().detach().unwrap();
        assert_eq!(output.code, Some(0), "{}", output.text());
        assert_eq!(
            (hooks::attached(host).unwrap(), hooks::has_xdp(host).unwrap()),
            (0, false),
            "on {}",
            host.name
        );
    }
}
