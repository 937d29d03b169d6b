//! A network goes from kind to kind, host by host, under traffic.

use std::{thread, time::Duration};

use harness::{
    Netns, Versions, eventually,
    traffic::{Probe, iperf},
};

use crate::bed::{self, SOON, end, restart_with, ways};

/// At most so many datagrams may be lost a switch, each way.
const LOST: usize = 5;

/// Seconds of TCP: longer than all the switches take.
const STREAM: u32 = 45;

/// Each host says how packets are to come to it, and takes the kind before until everybody has heard.
#[test]
fn from_each_kind_to_the_next_under_load() {
    let mut topology = bed::hosts(Versions::Both, "vxlan");
    let (a, b) = (end(topology.h(1), 0), end(topology.h(2), 0));
    let (client, server, address) = (Netns::borrow(a.ns.path()), Netns::borrow(b.ns.path()), b.ip);
    let probe = Probe::start(a, b, 1000, Duration::from_secs(180)).unwrap();
    let stream = thread::spawn(move || {
        // With room left on the CPUs: what is lost then is the switch's doing.
        iperf::tcp(STREAM).options(&["-b", "300M"]).run(&client, &server, address)
    });
    let mut steps = vec![("vxlan", probe.sent())];
    for encap in ["gre", "direct", "ipip", "geneve", "gre-l3", "vxlan"] {
        for number in [1, 2] {
            restart_with(&mut topology, number, encap);
            let (of, by) = (topology.h(number), topology.h(3 - number));
            let told = || ways(by, of).iter().all(|way| way.0 == encap);
            eventually(&format!("h{number} is sent to by {encap}"), SOON, told).unwrap();
        }
        let until = probe.arrived() + 500;
        eventually(&format!("{encap} carries"), SOON, || probe.arrived() >= until).unwrap();
        steps.push((encap, probe.sent()));
    }
    assert!(!stream.is_finished(), "the switches took longer than the stream of {STREAM} s");
    let flow = stream.join().unwrap().expect("the connection lives through all of it").flow;
    assert!(flow.bits_per_second > 100e6, "{flow:?}");
    let report = probe.finish().unwrap();
    for (direction, tally) in [&report.forth, &report.back].into_iter().enumerate() {
        assert_eq!(tally.duplicates(), 0, "{report}");
        for step in steps.windows(2) {
            let [(from, since), (to, until)] = [step[0], step[1]];
            let meanwhile = since[direction]..until[direction];
            let lost = tally.lost().into_iter().filter(|number| meanwhile.contains(number)).count();
            assert!(lost <= LOST, "{lost} datagrams were lost from {from} to {to}: {report}");
        }
    }
    bed::no_drops(&topology);
}
