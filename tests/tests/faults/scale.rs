//! Ten thousand subnets, and a thousand nodes that come and go.

use std::{collections::BTreeSet, fs, thread::sleep, time::Duration};

use harness::{eventually, host::Host, topology::ETCD_PREFIX, wire::ADDRESS};

use crate::bed::Bed;

/// Entries that stay.
const STAY: u32 = 9_000;
/// Nodes that come and go.
const NODES: u32 = 1_000;
/// Changes of one transaction.
const BATCH: usize = 100;
/// Twice what the daemon takes for ten thousand peers at rest.
const MOST_KIB: u64 = 96 * 1024;

fn key(n: u32) -> String {
    format!("{ETCD_PREFIX}/subnets/10.{}.{}.0-24", 60 + n / 250, n % 250)
}

fn put(n: u32) -> String {
    let value = format!(r#"{{"PublicIP":"192.168.{}.{}","BackendType":"vxlan"}}"#, n / 250, 1 + n % 250);
    format!("put {} {value:?}", key(n))
}

/// Numbers that look drawn by lot, and are the same each time.
fn lots() -> impl Iterator<Item = u32> {
    std::iter::successors(Some(2_463_534_242_u32), |n| {
        let n = n ^ (n << 13);
        let n = n ^ (n >> 17);
        Some(n ^ (n << 5))
    })
}

pub(crate) fn thousand_nodes() {
    let mut bed = Bed::with(&["--max-txn-ops=1000"], &[]);
    for host in &bed.topology.hosts {
        host.ns.ip(&format!("route add 192.168.0.0/16 via {ADDRESS}")).unwrap();
    }
    for first in (0..STAY).step_by(BATCH) {
        let batch: Vec<_> = (first..first + BATCH as u32).map(put).collect();
        bed.cluster.transact(&batch).unwrap();
    }
    eventually("nine thousand subnets are known", Duration::from_secs(60), || bed.is_right()).unwrap();
    let mut there = BTreeSet::new();
    let mut lots = lots();
    bed.under_load(|bed| {
        let before = cpu(bed.topology.h(1));
        for _ in 0..60 {
            let drawn: BTreeSet<u32> = lots.by_ref().take(BATCH).map(|lot| STAY + lot % NODES).collect();
            let change = |n: u32| {
                if there.remove(&n) {
                    return format!("del {}", key(n));
                }
                there.insert(n);
                put(n)
            };
            let batch: Vec<_> = drawn.into_iter().map(change).collect();
            bed.cluster.transact(&batch).unwrap();
            sleep(Duration::from_millis(400));
        }
        bed.becomes_right();
        let took = cpu(bed.topology.h(1)) - before;
        // Who writes all of ten thousand routes again for each of sixty messages takes minutes.
        assert!(took < Duration::from_secs(20), "it took {took:?} of a CPU");
        let kib = resident(bed.topology.h(1));
        assert!(kib < MOST_KIB, "the daemon has {kib} KiB");
    });
}

fn proc(host: &Host, file: &str) -> String {
    let pid = host.overlayd().pid().unwrap();
    fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap()
}

fn resident(host: &Host) -> u64 {
    let status = proc(host, "status");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The time that it has taken of CPUs.
fn cpu(host: &Host) -> Duration {
    let stat = proc(host, "stat");
    // Behind the name, which may hold blanks: utime and stime are the 12th and 13th, in ticks of 10 ms.
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(10 * ticks)
}
