//! Distinct mutated packets through the loaded programs: none is accepted that a peer may not send, none is
//! changed on the way past, each is counted once, and every valid packet between them gets through.
//!
//! `cargo xtask fuzz` runs ten million of them; the test alone a few hundred thousand.

mod change;
mod corpus;
mod input;
mod mutate;
mod oracle;
mod random;
mod seed;
mod worker;

use std::{env, thread, time::Instant};

use overlay_common::map::{
    EndpointSource, MIN_PATH_MTU,
    program::{BRIDGE_EGRESS, TUNNEL_INGRESS, UPLINK_INGRESS, WORKLOAD_EGRESS},
};

use self::worker::{Tally, Worker};
use crate::{
    bed::{Bed, with_bed},
    case::{DROP, NEXT, REDIRECT},
    world::{self, A, B, CONTAINER, CONTAINER_MAC, GATEWAY, OTHER, OTHER_MAC, dev},
};

/// What the test alone runs, and from where.
const PACKETS: u64 = 200_000;
const SEED: u64 = 0x6f76_6572_6c61_7964;

/// A number from the environment, where `cargo xtask fuzz` puts its arguments.
fn variable(name: &str, default: u64) -> u64 {
    let Ok(text) = env::var(name) else { return default };
    text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}"))
}

#[test]
fn nothing_is_accepted_but_what_a_peer_may_send() {
    let packets = variable("OVERLAYD_FUZZ_PACKETS", PACKETS);
    let seed = variable("OVERLAYD_FUZZ_SEED", SEED);
    let start = Instant::now();
    let workers = thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let tally = thread::scope(|scope| {
        let run = |number| {
            let share = packets / workers + u64::from(number < packets % workers);
            scope.spawn(move || one_worker(share, seed, number, workers))
        };
        let running: Vec<_> = (0..workers).map(run).collect();
        let mut sum = Tally::default();
        for worker in running {
            sum.add(&worker.join().unwrap());
        }
        sum
    });
    println!(
        "{} distinct mutated packets (seed {seed}) and {} valid ones by {workers} workers in {:.0?}",
        tally.distinct,
        tally.valid,
        start.elapsed()
    );
    for ((program, verdict), runs) in &tally.verdicts {
        println!("  {program:16} verdict {verdict:2}: {runs}");
    }
    assert_eq!(tally.distinct, packets);
    assert!(tally.valid >= packets / 16, "{}", tally.valid);
    check_spread(&tally);
}

fn one_worker(packets: u64, seed: u64, number: u64, of: u64) -> Tally {
    let mut tally = Tally::default();
    with_bed(|bed| {
        tally = Worker::new(bed).campaign(packets, seed, number, of);
        check_maps(bed);
    });
    tally
}

/// Every program sees every verdict that it has, or the mutations are no test.
fn check_spread(tally: &Tally) {
    for program in [WORKLOAD_EGRESS, BRIDGE_EGRESS, UPLINK_INGRESS, TUNNEL_INGRESS] {
        let of = |verdict| tally.verdicts.get(&(program, verdict)).copied().unwrap_or(0);
        let all: u64 = [NEXT, DROP, REDIRECT].map(of).iter().sum();
        let verdicts = if program == TUNNEL_INGRESS { &[DROP][..] } else { &[NEXT, DROP, REDIRECT] };
        for verdict in verdicts {
            assert!(of(*verdict) > all / 100, "{program}, verdict {verdict}: {} of {all}", of(*verdict));
        }
    }
}

/// What the packets have left in the maps: no known endpoint moved, and no router believed about anybody but peers.
fn check_maps(bed: &Bed) {
    let state = bed.state();
    for (addr, ifindex, mac) in [(CONTAINER, dev::PORT, CONTAINER_MAC), (OTHER, dev::OTHER_PORT, OTHER_MAC)] {
        let entry = (world::endpoint_key(addr), world::endpoint(ifindex, mac, EndpointSource::Neighbour));
        assert!(state.endpoints.contains(&entry), "{addr:?} has moved: {:?}", state.endpoints);
    }
    let gateway = state.endpoints.iter().find(|(key, _)| *key == world::endpoint_key(GATEWAY));
    assert!(gateway.is_some_and(|(_, endpoint)| endpoint.ifindex == dev::BRIDGE), "{gateway:?}");
    for (ip, path) in bed.maps.path_mtus().unwrap() {
        let peer = [A, B].iter().find(|peer| ip.to_v4() == Some(peer.underlay.into()));
        assert!(peer.is_some() && path.mtu >= MIN_PATH_MTU, "{ip:?}: {path:?}");
    }
}
