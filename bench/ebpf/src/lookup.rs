//! The route lookup alone, as the programs do it: over destinations that userspace has put in random order, in a chain,
//! so that no lookup begins before the last one has ended.

use aya_ebpf::{btf_maps::Array, macros::btf_map};
use overlay_common::{Vni, map::Route, vni::VniKey};

use crate::maps;

/// Lookups in a run.
pub(crate) const RUNS: u32 = 64;
/// Destinations; a power of two.
const DESTINATIONS: usize = 1 << 20;

/// A destination, and how many further the next one is: 1, which the compiler does not know.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Destination<A> {
    pub(crate) addr: A,
    step: u32,
}

#[btf_map]
pub(crate) static KEYS_V4: Array<Destination<[u8; 4]>, DESTINATIONS> = Array::new();
#[btf_map]
pub(crate) static KEYS_V6: Array<Destination<[u8; 16]>, DESTINATIONS> = Array::new();
/// Where the next run goes on.
#[btf_map]
static NEXT: Array<u32, 1> = Array::new();

/// VNI 1, in which the bed's bridges are.
pub(crate) const NETWORK: VniKey = Vni::DEFAULT.key();

#[inline(always)]
pub(crate) fn chain<A: Copy + 'static>(
    keys: &'static Array<Destination<A>, DESTINATIONS>,
    mut step: impl FnMut(&Destination<A>) -> Option<u32>,
) -> i32 {
    let Some(next) = NEXT.get_ptr_mut(0) else { return 0 };
    // SAFETY: one run at a time, by the benchmark.
    let mut at = unsafe { *next };
    let mut found = 0;
    for _ in 0..RUNS {
        let Some(key) = keys.get(at & (DESTINATIONS as u32 - 1)) else { break };
        let Some(step) = step(key) else { break };
        at = at.wrapping_add(step);
        found += 1;
    }
    // SAFETY: as above.
    unsafe { *next = at };
    found
}

/// The step of a route: its source, which userspace sets to 1.
#[inline(always)]
pub(crate) fn of_route(route: &Route) -> u32 {
    route.source
}

/// Tells how many lookups found a route.
#[inline(always)]
pub(crate) fn v4(look_up: bool) -> i32 {
    chain(
        &KEYS_V4,
        |key| {
            if look_up { maps::route_v4(NETWORK, key.addr).map(of_route) } else { Some(key.step) }
        },
    )
}

/// As [`v4`].
#[inline(always)]
pub(crate) fn v6(look_up: bool) -> i32 {
    chain(
        &KEYS_V6,
        |key| {
            if look_up { maps::route_v6(NETWORK, key.addr).map(of_route) } else { Some(key.step) }
        },
    )
}
