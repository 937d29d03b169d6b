//! What is announced and left on the host, and that all of it goes.

use harness::{
    eventually,
    footprint::Footprint,
    topology::ETCD_PREFIX,
    traffic::ping,
    versions::Versions::{Both, V4},
};

use crate::{SOON, hosts, inside};

fn keys(topology: &harness::Topology) -> Vec<(String, String)> {
    let prefix = format!("{ETCD_PREFIX}/subnets/");
    let all = topology.etcd().get_prefix(&prefix).unwrap();
    all.into_iter().map(|(key, value)| (key[prefix.len()..].to_owned(), value)).collect()
}

#[test]
fn one_key_has_both_subnets_and_both_addresses() {
    let topology = hosts(Both).up().unwrap();
    let keys = keys(&topology);
    assert_eq!(keys.len(), 2, "{keys:?}");
    let (key, value) = &keys[0];
    assert_eq!(key, "172.17.0.0-16&fd00:17::-64");
    for part in ["\"PublicIP\":\"172.16.199.17\"", "\"PublicIPv6\":\"fd00:199::17\"", "BackendV6Data"] {
        assert!(value.contains(part), "no {part} in {value}");
    }
}

#[test]
fn without_ipv6_the_key_is_what_it_was() {
    let topology = harness::Topology::builder().versions(V4, false).up().unwrap();
    let keys = keys(&topology);
    assert_eq!(keys[0].0, "172.17.0.0-16");
    assert!(keys[0].1.contains("\"PublicIPv6\":null"), "{}", keys[0].1);
}

#[test]
fn a_restart_loses_nothing_and_a_detach_leaves_nothing() {
    let mut topology = hosts(Both).without_overlayd().up().unwrap();
    topology.start_overlayd(1).unwrap();
    let config = topology.overlayd_config(0);
    let of = |topology: &harness::Topology| {
        Footprint::of(topology, 1, &[&config.pin_dir, &config.state_dir]).unwrap()
    };
    let before = of(&topology);
    topology.start_overlayd(0).unwrap();
    topology.await_routes().unwrap();
    let to = inside(topology.h(2));
    for ip in to {
        assert!(ping(&topology.h(1).c(1).ns, ip, 3).unwrap().clean());
    }
    let changes = before.difference(&of(&topology)).join("\n");
    for trace in ["+ route fd00:27::/64", "+ neighbour fd00:27::", "+ route 172.27.0.0/16"] {
        assert!(changes.contains(trace), "no `{trace}` among\n{changes}");
    }
    let probe = {
        let ends = [1, 2]
            .map(|n| topology.h(n))
            .map(|host| harness::traffic::Endpoint { ns: &host.c(1).ns, ip: inside(host)[1] });
        harness::traffic::Probe::start(ends[0], ends[1], 1000, SOON * 6).unwrap()
    };
    eventually("traffic flows", SOON, || probe.arrived() > 100).unwrap();
    for _ in 0..2 {
        topology.h_mut(1).overlayd_mut().restart().unwrap();
    }
    let report = probe.finish().unwrap();
    assert!(report.clean(), "{report}");
    topology.h_mut(1).overlayd_mut().detach().unwrap();
    let left = || before.difference(&of(&topology));
    eventually("nothing is left", SOON, || left().is_empty()).unwrap_or_else(|e| panic!("{e}: {:?}", left()));
}
