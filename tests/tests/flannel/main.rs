//! A network with flanneld in it: what it does to its keys in etcd and to its kernel, done here by its rules, beside hosts
//! with overlayd whose traffic goes on. What overlayd writes is read by flanneld's rules, too: `rules` states them.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails, in its helpers too")]

mod keys;
mod kinds;
mod life;
mod node;
mod rules;
mod way;

use std::time::{Duration, Instant};

use harness::{
    Topology, eventually,
    topology::{Builder, ETCD_PREFIX},
    traffic::{Endpoint, Probe, ping},
};

/// What flanneld's node changes is in force within this time.
pub(crate) const FOLLOWED: Duration = Duration::from_secs(1);

pub(crate) const SOON: Duration = Duration::from_secs(10);

/// Hosts 1 and 3 get overlayd, host 2 is flanneld's; the containers' MTU is what flannel tells Docker.
pub(crate) fn hosts() -> Builder {
    Topology::builder().hosts(3).without_overlayd().container_mtu(1450)
}

/// Writes the network's configuration, and starts overlayd on hosts 1 and 3.
pub(crate) fn serve(topology: &mut Topology, config: &str) {
    topology.etcd().put(&format!("{ETCD_PREFIX}/config"), config).unwrap();
    for index in [0, 2] {
        topology.start_overlayd(index).unwrap();
    }
    let known = |from: usize, to: usize| {
        let subnet = topology.h(to).bridge.subnet();
        topology.h(from).overlayd().routes().is_ok_and(|routes| routes.contains(&subnet))
    };
    eventually("hosts 1 and 3 know each other", SOON, || known(1, 3) && known(3, 1)).unwrap();
}

/// Traffic between hosts that do not change: all of it has to arrive.
pub(crate) fn unchanged(topology: &Topology) -> Probe {
    let ends = [1, 3].map(|n| Endpoint { ns: &topology.h(n).c(1).ns, ip: topology.h(n).c(1).ip });
    let probe = Probe::start(ends[0], ends[1], 1000, Duration::from_secs(120)).unwrap();
    eventually("traffic flows", SOON, || probe.arrived() > 100).unwrap();
    probe
}

/// Has something done, and waits until it is in force.
pub(crate) fn followed(what: &str, change: impl FnOnce(), is_so: impl FnMut() -> bool) {
    change();
    let changed = Instant::now();
    eventually(what, FOLLOWED, is_so).unwrap();
    println!("{what}: {:?}", changed.elapsed());
}

/// Containers of host 2 and of the others reach each other, whoever begins.
pub(crate) fn both_ways(topology: &Topology) {
    let there = topology.h(2).c(1);
    for number in [1, 3] {
        let here = topology.h(number).c(1);
        let mut pings = vec![ping(&here.ns, there.ip, 3).unwrap(), ping(&there.ns, here.ip, 3).unwrap()];
        if let (Some(here_v6), Some(there_v6)) = (here.ip_v6, there.ip_v6) {
            pings.extend([ping(&here.ns, there_v6, 3).unwrap(), ping(&there.ns, here_v6, 3).unwrap()]);
        }
        for ping in pings {
            assert!(ping.clean(), "host {number}: {}", ping.text);
        }
    }
}
