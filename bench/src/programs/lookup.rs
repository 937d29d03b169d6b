//! The route lookup alone, as the programs do it (`maps.rs`), over maps of all sizes: destinations in random order,
//! each chosen when the last one's route is known.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, MapData};
use overlay_common::{
    Vni,
    map::{MAX_ROUTES, Route, RouteSource},
};
use overlay_user::datapath::map::RouteKey;
use serde::Serialize;

use super::{
    objects::{Objects, Which},
    sample::Spread,
};

/// How many routes there are.
const SIZES: [usize; 5] = [10, 1_000, 10_000, 100_000, 1_000_000];
/// As in the benchmark's own programs: lookups in a run, and destinations in a round.
const LOOKUPS: u32 = 64;
const DESTINATIONS: u32 = 1 << 20;
/// Runs in a batch. A round of batches goes through all destinations.
const RUNS: u32 = 512;
const BATCHES: u32 = DESTINATIONS / (LOOKUPS * RUNS);
/// Destinations of traffic that goes to few places at a time.
const FEW: usize = 1_024;

/// What a lookup costs.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Lookup {
    /// What the routes are.
    pub(super) of: &'static str,
    /// How many there are.
    pub(super) routes: usize,
    /// To how many of them packets go.
    pub(super) destinations: usize,
    /// Nanoseconds a lookup.
    pub(super) ns: Spread,
    /// Nanoseconds to enter a route, the system call included.
    pub(super) put_ns: f64,
}

/// Routes of one kind, and addresses in them.
struct Kind<const BYTES: usize> {
    name: &'static str,
    keys: &'static str,
    /// With the lookup and without.
    programs: [&'static str; 2],
    route: fn(usize) -> RouteKey,
    /// A destination, with the step to the next one, as the programs take it.
    destination: fn(usize, u64) -> [u8; BYTES],
}

fn v4_at(n: usize) -> u32 {
    0x0a00_0000 + ((n as u32) << 8)
}

fn v6_at(n: usize) -> u128 {
    (0xfd00_0001_u128 << 96) | ((n as u128) << 64)
}

fn key(prefix: ipnet::IpNet) -> RouteKey {
    RouteKey::new(Vni::DEFAULT, prefix)
}

const V4: Kind<8> = Kind {
    name: "IPv4 /24",
    keys: "KEYS_V4",
    programs: ["look_up_v4", "no_look_up_v4"],
    route: |n| key(ipnet::Ipv4Net::new_assert(v4_at(n).into(), 24).into()),
    destination: |n, random| {
        let addr = v4_at(n) | (random as u32 & 0xff);
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&addr.to_be_bytes());
        bytes[4..].copy_from_slice(&1_u32.to_ne_bytes());
        bytes
    },
};

const V6: Kind<20> = Kind {
    name: "IPv6 /64",
    keys: "KEYS_V6",
    programs: ["look_up_v6", "no_look_up_v6"],
    route: |n| key(ipnet::Ipv6Net::new_assert(v6_at(n).into(), 64).into()),
    destination: |n, random| {
        let addr = v6_at(n) | u128::from(random);
        let mut bytes = [0; 20];
        bytes[..16].copy_from_slice(&addr.to_be_bytes());
        bytes[16..].copy_from_slice(&1_u32.to_ne_bytes());
        bytes
    },
};

/// Numbers without pattern, the same in every run (xorshift64, Marsaglia 2003).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn shuffle(&mut self, items: &mut [usize]) {
        for end in (1..items.len()).rev() {
            items.swap(end, self.below(end + 1));
        }
    }
}

/// Measures all sizes, of both versions of IP.
pub(super) fn measure(objects: &mut Objects) -> Result<Vec<Lookup>> {
    let mut all = measure_kind(objects, &V4)?;
    all.extend(measure_kind(objects, &V6)?);
    Ok(all)
}

fn measure_kind<const BYTES: usize>(objects: &mut Objects, kind: &Kind<BYTES>) -> Result<Vec<Lookup>> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut order, mut found) = (Vec::new(), Vec::new());
    let mut keys: Array<MapData, [u8; BYTES]> = objects.own_map(kind.keys)?.try_into()?;
    for routes in SIZES.into_iter().filter(|size| size + 16 <= MAX_ROUTES) {
        let mut new: Vec<usize> = (order.len()..routes).collect();
        random.shuffle(&mut new);
        let put_ns = put(objects, kind, &new)?;
        order.extend(new);
        random.shuffle(&mut order);
        for destinations in [routes, FEW] {
            if destinations > routes || (destinations == FEW && routes <= FEW) {
                continue;
            }
            for slot in 0..DESTINATIONS {
                let to = order[random.below(destinations)];
                // Few destinations are the same few addresses each time.
                let host = if destinations == routes { random.next() } else { to as u64 };
                keys.set(slot, (kind.destination)(to, host), 0)?;
            }
            let ns = cost(objects, kind)?;
            found.push(Lookup { of: kind.name, routes, destinations, ns, put_ns });
        }
    }
    Ok(found)
}

/// Enters routes; tells the nanoseconds that each took.
fn put<const BYTES: usize>(objects: &mut Objects, kind: &Kind<BYTES>, new: &[usize]) -> Result<f64> {
    let maps = &mut objects.bed(Which::Present)?.maps;
    // The programs take the source for the step to the next destination: 1.
    let route = Route { tunnel: 1, peer: 1, source: RouteSource::Etcd as u32 };
    let start = Instant::now();
    for n in new {
        maps.put_route((kind.route)(*n), route)?;
    }
    Ok(start.elapsed().as_nanos() as f64 / new.len() as f64)
}

/// A round over all destinations with the lookup, and one without, batch by batch.
fn cost<const BYTES: usize>(objects: &mut Objects, kind: &Kind<BYTES>) -> Result<Spread> {
    let mut samples = Vec::new();
    for _ in 0..BATCHES {
        let mut of = |program: &str| -> Result<f64> {
            let (found, ns) = objects.own(program)?.repeat(RUNS)?;
            ensure!(
                found == LOOKUPS.cast_signed(),
                "{program}: {found} of {LOOKUPS} destinations have a route"
            );
            Ok(ns / f64::from(LOOKUPS))
        };
        let [with, without] = kind.programs;
        samples.push(of(with)? - of(without)?);
    }
    Spread::of(samples).context("no batch")
}
