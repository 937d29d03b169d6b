//! A host that cannot reach etcd, while the others can.

use std::{thread::sleep, time::Duration};

use harness::{etcd_cluster::Cluster, host::Host};

use crate::bed::Bed;

pub(crate) fn compacted() {
    let mut bed = Bed::up();
    bed.under_load(|bed| {
        let (h1, cluster) = (bed.topology.h(1), &bed.cluster);
        cut(h1, cluster, true);
        bed.put(7, 7);
        bed.put(1, 51);
        bed.delete(2);
        // What is deleted and made again in between has another age.
        bed.delete(3);
        bed.put(3, 53);
        cluster.compact().unwrap();
        sleep(Duration::from_secs(25));
        let told = bed.store_state(1);
        assert!(told.contains("degraded"), "{told}");
        cut(h1, cluster, false);
        bed.becomes_right();
        bed.put(8, 8);
        bed.becomes_right();
    });
}

/// Drops, or no longer, all that a host and etcd send each other: nobody is told that the other end is gone.
fn cut(host: &Host, cluster: &Cluster, cut: bool) {
    let action = if cut { "-I" } else { "-D" };
    for port in cluster.ports() {
        for (chain, end) in [("OUTPUT", "--dport"), ("INPUT", "--sport")] {
            let port = port.to_string();
            host.ns.exec(&["iptables", "-w", action, chain, "-p", "tcp", end, &port, "-j", "DROP"]).unwrap();
        }
    }
}
