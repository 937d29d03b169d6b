//! Host to host: no container, no bridge, no Docker, no firewall. What there is to be had.

use anyhow::Result;
use harness::{Scope, traffic::tap::Like};

use super::{
    Side, System, Wire,
    bed::{Bed, Host, UPLINK},
    compared::Compared,
    proof::{Counter, DataPath, between},
};

struct Bare;

pub(super) fn up(name: &'static str, scope: Scope, wire: Wire) -> Result<Box<dyn System>> {
    let bed = Bed::lay(scope, wire)?;
    let sides = bed.host_sides();
    Compared::ready(name, bed, sides, Bare)
}

impl DataPath for Bare {
    fn describe(&self) -> String {
        "host to host, without containers, Docker and firewall; MTU 1500".to_owned()
    }

    fn outer(&self, from: &Side, to: &Side) -> Result<Like> {
        between(from, to)
    }

    fn counters(&self, host: &Host, _other: &Host) -> Result<Vec<Counter>> {
        Counter::device_carries(&host.ns, UPLINK)
    }
}
