//! How long the programs' main paths take. The figures are printed (`--nocapture`); the test is that each
//! packet takes the path that is measured, and that nothing is slow by orders of magnitude.

use overlay_common::map::program::{BRIDGE_EGRESS, UPLINK_INGRESS, WORKLOAD_EGRESS};

use crate::{
    bed::{Bed, with_bed},
    case::{NEXT, REDIRECT},
    packet::Ipv4,
    skb::Context,
    world::{A, CONTAINER, GATEWAY, NEW, dev, from_container, from_host, from_peer},
};

/// A packet is changed by its first run, so every run is a test run of its own: the clock is read around
/// each, and the cost of that is part of all figures alike.
const RUNS: usize = 20_000;
/// No path takes a hundredth of this on any machine worth the name.
const ABSURD: u128 = 100_000;

fn median(bed: &mut Bed, name: &str, program: &str, ifindex: u32, packet: &[u8], verdict: i32) {
    let mut times: Vec<u128> = (0..RUNS)
        .map(|_| {
            let ran = bed.run(program, Context { ifindex, ..Context::default() }, packet);
            assert_eq!(ran.verdict, verdict, "{name}");
            ran.nanoseconds
        })
        .collect();
    times.sort_unstable();
    let (low, median) = (times[RUNS / 20], times[RUNS / 2]);
    println!("{name:45} {median:5} ns (5th percentile {low} ns)");
    assert!(median < ABSURD, "{name}: {median} ns");
}

#[test]
fn main_paths() {
    with_bed(|bed| {
        let to_peer = from_container(&Ipv4::udp(CONTAINER, A.container));
        let elsewhere = from_container(&Ipv4::udp(CONTAINER, [8, 8, 8, 8]));
        let from_host = from_host(&Ipv4::udp(GATEWAY, A.container));
        let from = |dst| from_peer(&A, Ipv4::udp(A.container, dst).bytes()).bytes();
        let (stray, port, bridge, uplink) = (dev::STRAY, dev::PORT, dev::BRIDGE, dev::UPLINK);
        median(bed, "nothing but a lookup of the interface", WORKLOAD_EGRESS, stray, &to_peer, NEXT);
        median(bed, "workload_egress: to a peer", WORKLOAD_EGRESS, port, &to_peer, REDIRECT);
        median(bed, "workload_egress: no route", WORKLOAD_EGRESS, port, &elsewhere, NEXT);
        median(bed, "bridge_egress: to a peer", BRIDGE_EGRESS, bridge, &from_host, REDIRECT);
        median(bed, "uplink_ingress: to a container", UPLINK_INGRESS, uplink, &from(CONTAINER), REDIRECT);
        median(bed, "uplink_ingress: to an unknown endpoint", UPLINK_INGRESS, uplink, &from(NEW), REDIRECT);
        median(bed, "uplink_ingress: to this host", UPLINK_INGRESS, uplink, &from(GATEWAY), REDIRECT);
    });
}
