//! Several kinds at once: each peer's entry says how to reach it.

use harness::{Topology, Versions, eventually, topology::StoreKind, traffic::transfer};

use crate::bed::{self, SOON, end, probes, ways};

const BYTES: usize = 4 << 20;

/// How the hosts of these numbers reach each other, in both directions, and what else the entries say.
const PAIRS: [(usize, usize, &str, &str); 3] =
    [(1, 2, "vxlan", ""), (1, 3, "gre", "gre_key = 74565\n"), (2, 3, "direct", "")];

/// Three hosts that no peers file names yet.
fn three() -> Topology {
    let builder = Topology::builder().hosts(3).store(StoreKind::Peers).versions(Versions::V4, true);
    builder.without_overlayd().up().unwrap()
}

/// The peers file of a host, where each pair has its kind.
fn peers(topology: &Topology, own: usize, pairs: &[(usize, usize, &str, &str)]) -> String {
    let of_own = |&(a, b, encap, more): &(usize, usize, &str, &str)| {
        let other = if a == own { b } else { a };
        let host = topology.h(other);
        let entry = |subnet: &str| {
            format!("[[peer]]\nsubnet = \"{subnet}\"\nhost = \"{}\"\nencap = \"{encap}\"\n{more}", host.ip)
        };
        (a == own || b == own)
            .then(|| entry(&host.bridge.subnet()) + &entry(&host.bridge.subnet_v6().unwrap()))
    };
    pairs.iter().filter_map(of_own).collect()
}

fn write(topology: &Topology, pairs: &[(usize, usize, &str, &str)]) {
    for number in [1, 2, 3] {
        std::fs::write(topology.peers_file(number - 1), peers(topology, number, pairs)).unwrap();
    }
}

#[test]
fn each_pair_of_three_hosts_has_its_own() {
    let mut topology = three();
    write(&topology, &PAIRS);
    for index in 0..3 {
        topology.start_overlayd(index).unwrap();
    }
    for (a, b, encap, _) in PAIRS {
        bed::settle(&topology, a, b);
        for (from, to) in [(a, b), (b, a)] {
            // Directly to a neighbour in the underlay's own version alone.
            let v6 = if encap == "direct" { "vxlan" } else { encap };
            let kinds = ways(topology.h(from), topology.h(to)).map(|way| way.0);
            assert_eq!(kinds, [encap, v6], "h{from} to h{to}");
        }
    }
    let running: Vec<_> = PAIRS.iter().flat_map(|(a, b, ..)| probes(&topology, *a, *b)).collect();
    for (a, b, ..) in PAIRS {
        for version in [0, 1] {
            transfer(end(topology.h(a), version), end(topology.h(b), version), BYTES).unwrap();
        }
    }
    for probe in running {
        let report = probe.finish().unwrap();
        assert!(report.forth.sent > 100 && report.clean(), "{report}");
    }
    bed::no_drops(&topology);
}

/// The file changes on one host after the other. `--accept` says what the others may begin with.
#[test]
fn a_pair_changes_its_kind_in_the_file() {
    let mut topology = three();
    write(&topology, &PAIRS);
    for index in 0..3 {
        topology.start_overlayd(index).unwrap();
        let overlayd = topology.h_mut(index + 1).overlayd_mut();
        overlayd.stop().unwrap();
        overlayd.config.args = vec!["--accept=gre-l3,ipip".into()];
        overlayd.start_again().unwrap();
    }
    bed::settle(&topology, 1, 2);
    let running = probes(&topology, 1, 2);
    for encap in ["ipip", "gre-l3", "vxlan"] {
        let mut pairs = PAIRS;
        pairs[0].2 = encap;
        for (number, other) in [(1, 2), (2, 1)] {
            std::fs::write(topology.peers_file(number - 1), peers(&topology, number, &pairs)).unwrap();
            let told = || ways(topology.h(number), topology.h(other)).iter().all(|way| way.0 == encap);
            eventually(&format!("h{number} sends by {encap}"), SOON, told).unwrap();
            let until = running[0].arrived() + 200;
            eventually("it carries", SOON, || running[0].arrived() >= until).unwrap();
        }
    }
    for probe in running {
        let report = probe.finish().unwrap();
        assert!(report.forth.sent > 100 && report.clean(), "{report}");
    }
    bed::no_drops(&topology);
}
