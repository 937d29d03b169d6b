//! Distinct mutated packets through the loaded programs: none is accepted that a peer may not send, none is
//! changed on the way past, each is counted once, and every valid packet between them gets through.
//!
//! `cargo xtask fuzz` runs ten million of them; the test alone a few hundred thousand.

mod change;
mod corpus;
mod header;
mod hosts;
mod input;
mod ip;
mod layout;
mod mutate;
mod oracle;
mod random;
mod seed;
mod special;
mod worker;

use std::{env, net::IpAddr, thread, time::Instant};

use overlay_common::{
    addr::MapIp,
    map::{
        EndpointKey, EndpointSource, MIN_PATH_MTU,
        program::{BRIDGE_EGRESS, TUNNEL_INGRESS, UPLINK_INGRESS, WORKLOAD_EGRESS},
    },
};

use self::{
    hosts::{GATEWAYS, HOMES, RESERVED, is_local, peer_at},
    worker::{Tally, Worker},
};
use crate::{
    bed::{Bed, has_decap_across, with_bed},
    case::{DROP, NEXT, REDIRECT},
    world::{self, dev},
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
    for ((program, mix, verdict), runs) in &tally.verdicts {
        println!("  {program:16} {mix:14} verdict {verdict:2}: {runs}");
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

/// Every program sees every verdict that it has, of both IP versions, and redirects every mix of them; or the mutations
/// are no test.
fn check_spread(tally: &Tally) {
    for program in [WORKLOAD_EGRESS, BRIDGE_EGRESS, UPLINK_INGRESS, TUNNEL_INGRESS] {
        let runs = |is: &dyn Fn(&str, i32) -> bool| -> u64 {
            let of = tally
                .verdicts
                .iter()
                .filter(|((name, mix, verdict), _)| *name == program && is(mix, *verdict));
            of.map(|(_, runs)| runs).sum()
        };
        let all = runs(&|_, _| true);
        let verdicts = if program == TUNNEL_INGRESS { &[DROP][..] } else { &[NEXT, DROP, REDIRECT] };
        for verdict in verdicts {
            // The version of what the program sees: in a mix that comes out of a tunnel, the last one.
            for version in ["IPv4", "IPv6"] {
                let seen = |mix: &str| {
                    if program == UPLINK_INGRESS { mix.ends_with(version) } else { mix.starts_with(version) }
                };
                let of = runs(&|mix, is| is == *verdict && seen(mix));
                assert!(of > all / 100, "{program}, {version}, verdict {verdict}: {of} of {all}");
            }
        }
        for mix in MIXES {
            if program == UPLINK_INGRESS
                && !has_decap_across()
                && !["IPv4 over IPv4", "IPv6 over IPv6"].contains(&mix)
            {
                continue;
            }
            let of = runs(&|is, verdict| is == mix && verdict == REDIRECT);
            assert!(
                program == TUNNEL_INGRESS || of > all / 200,
                "{program}, {mix}, redirected: {of} of {all}"
            );
        }
    }
}

const MIXES: [&str; 4] = ["IPv4 over IPv4", "IPv4 over IPv6", "IPv6 over IPv4", "IPv6 over IPv6"];

/// What the packets have left in the maps: no known endpoint moved, nobody learned who cannot live here, and no router
/// believed about anybody but peers.
fn check_maps(bed: &Bed) {
    let state = bed.state();
    let key = |addr| EndpointKey { vni: world::endpoint_key([0; 4]).vni, ip: MapIp::from(addr) };
    for (addr, mac, ifindex) in HOMES {
        let entry = (key(addr), world::endpoint(ifindex, mac, EndpointSource::Neighbour));
        assert!(state.endpoints.contains(&entry), "{addr} has moved: {:?}", state.endpoints);
    }
    for addr in GATEWAYS {
        let gateway = state.endpoints.iter().find(|(is, _)| *is == key(addr));
        assert!(gateway.is_some_and(|(_, endpoint)| endpoint.ifindex == dev::BRIDGE), "{gateway:?}");
    }
    for (is, endpoint) in &state.endpoints {
        let addr = IpAddr::from(is.ip);
        assert!(is_local(addr) && !RESERVED.contains(&addr), "{addr} was learned: {endpoint:?}");
    }
    let paths = bed.maps.path_mtus().unwrap();
    for (ip, path) in &paths {
        let addr = IpAddr::from(*ip);
        // RFC 8200 section 5: every link of IPv6 carries so much.
        let least = if addr.is_ipv6() { 1280 } else { MIN_PATH_MTU };
        assert!(peer_at(addr).is_some() && path.mtu >= least, "{addr}: {path:?}");
    }
}
