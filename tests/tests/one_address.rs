//! Hosts that give themselves one address: who comes second is refused, and what can be seen of it is told, while packets
//! of all others flow.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails, in its helpers too")]

use std::{fs, time::Duration};

use harness::{
    Topology, eventually,
    topology::ETCD_PREFIX,
    traffic::{Endpoint, Probe},
};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(10);

fn probe(topology: &Topology) -> Probe {
    let [a, b] = [1, 2].map(|n| topology.h(n).c(1));
    let (a, b) = (Endpoint { ns: &a.ns, ip: a.ip }, Endpoint { ns: &b.ns, ip: b.ip });
    let probe = Probe::start(a, b, 200, Duration::from_secs(60)).unwrap();
    eventually("traffic flows", SOON, || probe.arrived() > 20).unwrap();
    probe
}

fn status(topology: &Topology, host: usize) -> Value {
    topology.h(host).overlayd().ctl(&["status", "-o", "json"]).unwrap()
}

/// The lines of a host's log with these words in them.
fn said(topology: &Topology, host: usize, words: &str) -> usize {
    let log = fs::read_to_string(&topology.h(host).overlayd().config.log).unwrap();
    log.lines().filter(|line| line.contains(words)).count()
}

fn key(name: &str) -> String {
    format!("{ETCD_PREFIX}/subnets/{name}")
}

#[test]
fn who_comes_second_with_an_address_is_refused() {
    let mut topology = Topology::builder().hosts(3).up().unwrap();
    let probe = probe(&topology);
    let keys = |topology: &Topology| topology.etcd().get_prefix(&key("")).unwrap();
    let before = keys(&topology);
    eventually("host 1 says who it is", SOON, || {
        let nodes = topology.etcd().get_prefix(&format!("{ETCD_PREFIX}/overlayd/nodes/h1")).unwrap();
        nodes.values().any(|value| value.contains("172.16.199.17"))
    })
    .unwrap();
    let address = topology.h(1).addresses();
    let h3 = topology.h_mut(3).overlayd_mut();
    h3.stop().unwrap();
    let own = std::mem::replace(&mut h3.config.public_ips, address);
    let refused = h3.start_again().unwrap_err().to_string();
    for part in ["node h1 (172.16.199.17, VTEP ", "own address", "--public-ip"] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
    assert_eq!(keys(&topology), before, "nothing is written");
    // With its own address it is as welcome as before.
    let h3 = topology.h_mut(3).overlayd_mut();
    h3.config.public_ips = own;
    h3.start_again().unwrap();
    topology.await_routes().unwrap();
    let report = probe.finish().unwrap();
    assert!(report.clean(), "{report}");
}

#[test]
fn what_appears_meanwhile_is_told() {
    let topology = Topology::builder().up().unwrap();
    let probe = probe(&topology);
    let message = |host| status(&topology, host)["message"].to_string();
    let notes = |host| status(&topology, host)["notes"].to_string();
    // Host 1's address, and another VTEP.
    let value =
        r#"{"PublicIP":"172.16.199.17","BackendType":"vxlan","BackendData":{"VtepMAC":"02:00:00:00:00:99"}}"#;
    topology.etcd().put(&key("10.9.0.0-24"), value).unwrap();
    let trouble = "own address 172.16.199.17, by another VTEP (02:00:00:00:00:99)";
    eventually("host 1 tells", SOON, || message(1).contains(trouble)).unwrap();
    eventually("host 2 tells", SOON, || notes(2).contains("address 172.16.199.17 has two VTEPs")).unwrap();
    assert!(status(&topology, 2)["state"] == "ok" && !notes(1).contains("two VTEPs"));
    assert_eq!((said(&topology, 1, "WARN"), said(&topology, 2, "WARN")), (1, 1));
    topology.etcd().del(&key("10.9.0.0-24")).unwrap();
    eventually("it is over", SOON, || message(1) == "\"\"" && !notes(2).contains("two VTEPs")).unwrap();

    // Host 1's subnet, under another key: it stays host 1's.
    let dual = key("172.17.0.0-16&fd00:17::-64");
    topology.etcd().put(&dual, r#"{"PublicIP":"172.16.199.99","BackendType":"vxlan"}"#).unwrap();
    for host in [1, 2] {
        eventually("both tell", SOON, || {
            message(host).contains("subnet 172.17.0.0/16 is claimed by several")
        })
        .unwrap();
        assert!(message(host).contains("172.16.199.99"), "{}", message(host));
    }
    topology.etcd().del(&dual).unwrap();
    for host in [1, 2] {
        eventually("it is over", SOON, || message(host) == "\"\"").unwrap();
    }
    let report = probe.finish().unwrap();
    assert!(report.clean(), "{report}");
}
