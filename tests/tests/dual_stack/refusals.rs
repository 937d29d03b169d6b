//! What cannot be: one clear line each, and the rest goes on.

use harness::{
    Topology, eventually,
    host::{Host, Plan},
    topology::{ETCD_PREFIX, StoreKind},
    traffic::{Endpoint, Probe, ping},
    versions::Versions::{Both, V4, V6},
};

use crate::{SOON, await_path, hosts, inside, reached};

fn message(host: &Host) -> String {
    let output = host.overlayd().ctl_output(&["status", "-o", "json"]).unwrap();
    let status: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
    status["message"].as_str().unwrap().to_owned()
}

/// The third host speaks another version outside than the first; the second speaks both.
#[test]
fn hosts_without_a_version_in_common_are_told_so() {
    let plan = |index| Plan { underlay: [V4, Both, V6][index], bridge_v6: true };
    let topology = Topology::builder().hosts(3).plan(plan).store(StoreKind::Peers).up().unwrap();
    let probe = probe(topology.h(1), topology.h(2));
    for (here, there) in [(1, 3), (3, 1)] {
        let (here, there) = (topology.h(here), topology.h(there));
        let said = message(here);
        let address = there.addresses()[0].to_string();
        assert!(said.contains("no version of IP in common") && said.contains(&address), "{said}");
        assert!(!reached(here).iter().any(|(subnet, _)| *subnet == there.bridge.subnet()));
    }
    for to in inside(topology.h(3)) {
        assert!(ping(&topology.h(2).c(1).ns, to, 2).unwrap().clean());
    }
    let report = probe.finish().unwrap();
    assert!(report.clean() && report.forth.sent > 10, "{report}");
}

fn probe(here: &Host, there: &Host) -> Probe {
    let ends = [here, there].map(|host| Endpoint { ns: &host.c(1).ns, ip: inside(host)[1] });
    await_path(ends);
    let probe = Probe::start(ends[0], ends[1], 200, SOON * 12).unwrap();
    eventually("traffic flows", SOON, || probe.arrived() > 50).unwrap();
    probe
}

/// IPv6 needs 1280 bytes: less than that is no way for it, and IPv4 goes on.
#[test]
fn an_uplink_too_small_for_ipv6_inside_serves_ipv4_alone() {
    let topology = hosts(Both).hosts(3).store(StoreKind::Peers).up().unwrap();
    let (h1, h2) = (topology.h(1), topology.h(2));
    let elsewhere = probe(h2, topology.h(3));
    h1.ns.ip("link set eth0 mtu 1349").unwrap();
    let refused = || message(h1).contains("1279 bytes") && reached(h1).len() == 2;
    eventually("it is said", SOON, refused).unwrap_or_else(|e| panic!("{e}: {}", message(h1)));
    assert!(ping(&h1.c(1).ns, inside(h2)[0], 3).unwrap().clean());
    h1.ns.ip("link set eth0 mtu 1500").unwrap();
    eventually("it is served again", SOON, || reached(h1).len() == 4 && message(h1).is_empty()).unwrap();
    assert!(ping(&h1.c(1).ns, inside(h2)[1], 3).unwrap().clean());
    let report = elsewhere.finish().unwrap();
    assert!(report.clean() && report.forth.sent > 100, "{report}");
}

/// flannel's way to say it, and flanneld without IPv6 would end at a key with an IPv6 part.
#[test]
fn a_network_without_ipv6_is_served_ipv4_alone() {
    let config = |more: &str| {
        format!(r#"{{"Network":"172.16.0.0/12",{more}"Backend":{{"Type":"vxlan","Port":4789}}}}"#)
    };
    let mut topology = hosts(V4).without_overlayd().up().unwrap();
    let key = format!("{ETCD_PREFIX}/config");
    topology.etcd().put(&key, &config("")).unwrap();
    for index in [0, 1] {
        topology.start_overlayd(index).unwrap();
    }
    let (h1, h2) = (topology.h(1), topology.h(2));
    let ends = [h1, h2].map(|host| Endpoint { ns: &host.c(1).ns, ip: inside(host)[0] });
    await_path(ends);
    let probe = Probe::start(ends[0], ends[1], 200, SOON * 12).unwrap();
    assert_eq!(reached(h1).len(), 1, "{:?}", reached(h1));
    assert!(notes(h1).contains("fd00:17::/64") && notes(h1).contains("EnableIPv6"), "{}", notes(h1));
    let dual = |topology: &Topology| {
        let key = format!("{ETCD_PREFIX}/subnets/172.17.0.0-16&fd00:17::-64");
        topology.etcd().get(&key).unwrap().is_some()
    };
    assert!(!dual(&topology));
    topology.etcd().put(&key, &config(r#""EnableIPv6":true,"#)).unwrap();
    for number in [1, 2] {
        topology.h_mut(number).overlayd_mut().restart().unwrap();
    }
    let (h1, h2) = (topology.h(1), topology.h(2));
    eventually("IPv6 is served", SOON, || reached(h1).len() == 2 && reached(h2).len() == 2).unwrap();
    assert!(dual(&topology) && notes(h1).is_empty(), "{}", notes(h1));
    assert!(ping(&h1.c(1).ns, inside(h2)[1], 3).unwrap().clean());
    let report = probe.finish().unwrap();
    assert!(report.clean() && report.forth.sent > 100, "{report}");
}

fn notes(host: &Host) -> String {
    let status = host.overlayd().ctl(&["status", "-o", "json"]).unwrap();
    let notes = status["notes"].as_array().unwrap();
    notes.iter().filter_map(|note| note.as_str()).filter(|note| note.contains("IPv6")).collect()
}
