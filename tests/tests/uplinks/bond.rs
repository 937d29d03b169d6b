//! A bond's active leg loses its carrier.

use std::time::Duration;

use harness::{Topology, eventually, host::UPLINK};
use serde_json::Value;

use crate::{
    SOON,
    bed::{Bed, flow, status},
    expected::Case,
    lay::LEGS,
};

/// Datagrams a second.
const RATE: u32 = 1000;

/// Datagrams that may be on their way when the carrier goes: a tenth of a second's.
const ON_THE_WAY: u64 = 100;

pub(crate) fn fails_over(case: Case) {
    let bed = Bed::up(case);
    let (topology, wire) = (&bed.topology, bed.topology.wire.ns().unwrap());
    let probe = bed.probe_at(RATE, Duration::from_secs(300));
    let mut gone = Vec::new();
    // There, and back again.
    for _ in LEGS {
        let active = active(topology);
        let (leg, port) = *LEGS.iter().find(|(leg, _)| *leg == active).unwrap();
        let (other, other_port) = *LEGS.iter().find(|(name, _)| *name != leg).unwrap();
        eventually("the other leg will do", SOON, || carries(topology, other)).unwrap();
        flow(&probe, 300);
        let from = probe.sent();
        wire.ip(&format!("link set {port} down")).unwrap();
        eventually("the other leg is active", SOON, || self::active(topology) == other).unwrap();
        eventually("the wire knows", SOON, || is_behind(topology, other_port)).unwrap();
        gone.push((from, probe.sent()));
        flow(&probe, 300);
        wire.ip(&format!("link set {port} up")).unwrap();
    }
    flow(&probe, 300);
    let report = probe.finish().unwrap();
    for (way, tally) in [&report.forth, &report.back].into_iter().enumerate() {
        let while_gone = |n: &u64| gone.iter().any(|(from, to)| from[way] <= n + ON_THE_WAY && *n <= to[way]);
        let (within, lost): (Vec<u64>, Vec<u64>) = tally.lost().into_iter().partition(while_gone);
        assert!(lost.is_empty(), "lost at other times than {gone:?}: {lost:?}; {report}");
        eprintln!("{} lost while {gone:?}", within.len());
    }
    assert_eq!(status(topology.h(1))["state"], "ok");
    bed.assert_nothing_dropped();
}

/// The active leg of host 1.
fn active(topology: &Topology) -> String {
    let bond = link(topology, UPLINK);
    bond["linkinfo"]["info_data"]["active_slave"].as_str().unwrap_or_default().to_owned()
}

/// Whether the bond would use a leg.
fn carries(topology: &Topology, leg: &str) -> bool {
    link(topology, leg)["linkinfo"]["info_slave_data"]["mii_status"] == "UP"
}

fn link(topology: &Topology, name: &str) -> Value {
    let said = topology.h(1).ns.ip(&format!("-d -j link show dev {name}")).unwrap().stdout;
    serde_json::from_str::<Value>(&said).unwrap()[0].take()
}

/// Whether the wire sends what is for host 1 to this port.
fn is_behind(topology: &Topology, port: &str) -> bool {
    let mac = link(topology, UPLINK)["address"].as_str().unwrap().to_owned();
    let table = topology.wire.ns().unwrap().exec(&["bridge", "fdb", "show", "br", "br0", "dynamic"]).unwrap();
    table.stdout.lines().any(|line| line.starts_with(&mac) && line.contains(&format!("dev {port} ")))
}
