//! Restarts, and changes from the one place to the other, under traffic.

use harness::{Topology, eventually, host::Host};
use overlay_user::datapath::pin::Pins;

use crate::{SOON, decap, flow, native_program, probe, two_hosts_with_xdp};

fn xdp_pins(host: &Host) -> usize {
    let links = Pins::new(&host.overlayd().config.pin_dir).pinned_links().unwrap();
    links.iter().filter(|(_, program)| program == "uplink_decap").count()
}

/// Ends the daemon the hard way, and starts it with other arguments.
fn restart_with(topology: &mut Topology, number: usize, arguments: &[&str]) {
    let overlayd = topology.h_mut(number).overlayd_mut();
    overlayd.kill9().unwrap();
    overlayd.config.args = arguments.iter().map(|&argument| argument.to_owned()).collect();
    overlayd.start_again().unwrap();
}

#[test]
fn a_restart_replaces_the_program_and_loses_nothing() {
    let mut topology = two_hosts_with_xdp();
    let probe = probe(&topology, 12);
    for _ in 0..2 {
        let before = native_program(topology.h(1));
        topology.h_mut(1).overlayd_mut().kill9().unwrap();
        flow(&probe, 1000);
        assert_eq!(native_program(topology.h(1)), before, "it goes on without its daemon");
        topology.h_mut(1).overlayd_mut().start_again().unwrap();
        assert_eq!(decap(topology.h(1)).0, "xdp", "no second trial");
        assert_ne!(native_program(topology.h(1)), before, "the old program");
        flow(&probe, 1000);
    }
    let report = probe.join().unwrap();
    assert!(report.clean() && report.forth.sent > 8000, "{report}");
    assert_eq!(topology.h(1).overlayd().drops().unwrap().len(), 0);
}

#[test]
fn from_xdp_to_tc_and_back_nothing_is_lost_or_taken_twice() {
    let mut topology = two_hosts_with_xdp();
    let probe = probe(&topology, 25);
    for _ in 0..2 {
        restart_with(&mut topology, 1, &["--decap=tc"]);
        let (place, why) = decap(topology.h(1));
        assert_eq!(place, "tc");
        assert!(why.contains("--decap tc"), "{why}");
        assert_eq!((native_program(topology.h(1)), xdp_pins(topology.h(1))), (None, 0));
        flow(&probe, 2500);
        restart_with(&mut topology, 1, &["--decap=xdp"]);
        eventually("XDP decapsulates", SOON, || decap(topology.h(1)).0 == "xdp").unwrap();
        assert!(native_program(topology.h(1)).is_some());
        assert_eq!(xdp_pins(topology.h(1)), 1);
        flow(&probe, 1000);
    }
    let report = probe.join().unwrap();
    assert!(report.clean() && report.forth.sent > 15_000, "{report}");
    for host in &topology.hosts {
        assert_eq!(host.overlayd().drops().unwrap().len(), 0, "on {}", host.name);
    }
}

#[test]
fn detach_takes_the_program_along() {
    let mut topology = two_hosts_with_xdp();
    assert!(native_program(topology.h(1)).is_some());
    topology.h_mut(1).overlayd_mut().detach().unwrap();
    assert_eq!(native_program(topology.h(1)), None);
}
