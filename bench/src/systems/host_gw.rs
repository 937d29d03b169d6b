//! Static routes between the hosts' container subnets, as `flannel`'s host-gw backend and many a how-to have them: no encapsulation.

use anyhow::Result;
use harness::{Scope, traffic::tap::Like};

use super::{
    Side, System, Wire,
    bed::{Bed, Host, UPLINK},
    compared::Compared,
    proof::{Counter, DataPath, between},
    versions,
};

/// Docker's bridge.
pub(super) const BRIDGE: &str = "docker0";

struct HostGw {
    docker: String,
}

pub(super) fn up(name: &'static str, scope: Scope, wire: Wire) -> Result<Box<dyn System>> {
    let mut bed = Bed::lay(scope, wire)?;
    bed.start_engines(&[])?;
    for (host, other) in bed.pairs() {
        host.ns.ip(&format!("route add {} via {}", other.subnet, other.ip))?;
        let_through(host, other, UPLINK)?;
    }
    let sides = bed.start_containers(None)?;
    let docker = versions::docker(&bed)?;
    Compared::ready(name, bed, sides, HostGw { docker })
}

/// What Docker's rules need for containers of two hosts to talk: FORWARD drops what is not accepted, and whatever leaves
/// docker0 by another device is masqueraded.
pub(super) fn let_through(host: &Host, other: &Host, device: &str) -> Result<()> {
    host.iptables(&format!("-I DOCKER-USER -i {device} -o {BRIDGE} -j ACCEPT"))?;
    host.iptables(&format!("-t nat -I POSTROUTING -s {} -d {} -j RETURN", host.subnet, other.subnet))
}

impl DataPath for HostGw {
    fn describe(&self) -> String {
        format!(
            "static routes, no encapsulation; {}, containers on {BRIDGE} at MTU 1500; DOCKER-USER accepts and NAT returns \
             what goes between the container subnets",
            self.docker
        )
    }

    fn outer(&self, from: &Side, to: &Side) -> Result<Like> {
        between(from, to)
    }

    fn counters(&self, host: &Host, _other: &Host) -> Result<Vec<Counter>> {
        Counter::device_carries(&host.ns, BRIDGE)
    }
}
