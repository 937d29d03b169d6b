//! Keys in etcd with an IPv6 part, seen from hosts that forward: they are read, replaced without a gap where they are
//! the host's own, and cost nobody else a packet.

#![expect(clippy::unwrap_used, reason = "set-up that fails is a test that fails")]

use std::{fs, time::Duration};

use harness::{
    Topology, Versions, eventually,
    host::Plan,
    topology::ETCD_PREFIX,
    traffic::{Endpoint, Probe},
};
use overlay_user::datapath::{map::Maps, pin::Pins};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(10);
const ALONE: &str = "172.17.0.0-16";
const DUAL: &str = "172.17.0.0-16&fd00:17::-64";

fn key(name: &str) -> String {
    format!("{ETCD_PREFIX}/subnets/{name}")
}

/// Traffic between the hosts' containers, which must not suffer.
fn probe(topology: &Topology) -> Probe {
    let [a, b] = [1, 2].map(|n| topology.h(n).c(1));
    let (a, b) = (Endpoint { ns: &a.ns, ip: a.ip }, Endpoint { ns: &b.ns, ip: b.ip });
    let probe = Probe::start(a, b, 1000, Duration::from_secs(60)).unwrap();
    eventually("traffic flows", SOON, || probe.arrived() > 50).unwrap();
    probe
}

/// The lines of a host's log with one of these words in them.
fn said(topology: &Topology, host: usize, words: &str) -> Vec<String> {
    let log = fs::read_to_string(&topology.h(host).overlayd().config.log).unwrap();
    log.lines().filter(|line| line.contains(words)).map(str::to_owned).collect()
}

/// The state file as it was written before there was IPv6.
fn age_state(topology: &Topology, host: usize) {
    let path = topology.h(host).overlayd().config.state_dir.join("state.json");
    let mut state: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    for announced in state["announcements"].as_array_mut().unwrap() {
        let (subnet, public_ip) = (&announced["subnets"]["v4"], &announced["host"]["v4"]);
        assert!(subnet.is_string() && public_ip.is_string(), "{announced}");
        *announced = json!({
            "subnet": subnet, "public_ip": public_ip, "vni": announced["vni"], "vtep_mac": announced["vtep_mac"],
        });
    }
    fs::write(&path, state.to_string()).unwrap();
}

/// As where the bridge had an IPv6 subnet when the daemon last ran, and has none now.
#[test]
fn a_hosts_own_key_with_an_ipv6_part_is_replaced_under_traffic() {
    // The other host's bridge has one: it uses what it reads.
    let plan = |index| Plan { bridge_v6: index == 1, ..Plan::default() };
    let mut topology = Topology::builder().plan(plan).up().unwrap();
    let probe = probe(&topology);
    topology.h_mut(1).overlayd_mut().stop().unwrap();
    let route = |topology: &Topology| {
        let pins = Pins::new(&topology.h(2).overlayd().config.pin_dir);
        let routes = Maps::open(&pins).unwrap().routes().unwrap();
        routes.into_iter().find(|(key, _)| key.prefix.to_string() == "172.17.0.0/16").map(|(_, route)| route)
    };
    let before = route(&topology).unwrap();
    let value = topology.etcd().get(&key(ALONE)).unwrap().unwrap();
    // On a lease, as a host writes it: without one it would be a reservation.
    let granted = topology.etcd().etcdctl(&["lease", "grant", "86400"]).unwrap().stdout;
    let lease = granted.split_whitespace().nth(1).unwrap();
    topology.etcd().etcdctl(&["put", &format!("--lease={lease}"), "--", &key(DUAL), &value]).unwrap();
    topology.etcd().del(&key(ALONE)).unwrap();
    let served = || topology.h(2).overlayd().routes().unwrap().contains(&"fd00:17::/64".to_owned());
    eventually("host 2 has read the other key", SOON, served).unwrap();
    assert_eq!(route(&topology).as_ref(), Some(&before), "the other key took over");

    age_state(&topology, 1);
    topology.h_mut(1).overlayd_mut().start_again().unwrap();
    let keys = topology.etcd().get_prefix(&key("172.17.")).unwrap();
    assert_eq!(keys.into_iter().collect::<Vec<_>>(), [(key(ALONE), value)], "one key, as it was");
    assert_eq!(route(&topology).as_ref(), Some(&before));
    let routes = || topology.h(2).overlayd().routes().unwrap();
    eventually("its IPv6 subnet is gone", SOON, || routes() == ["172.17.0.0/16"]).unwrap();
    let report = probe.finish().unwrap();
    assert!(report.clean(), "{report}");
    assert_eq!(topology.h_mut(1).overlayd_mut().detach().unwrap().code, Some(0));
    eventually("host 2 forgets host 1", SOON, || route(&topology).is_none()).unwrap();
    assert!(topology.etcd().get_prefix(&key("172.17.")).unwrap().is_empty());
}

#[test]
fn what_cannot_be_reached_is_one_line_and_the_rest_is_served() {
    let topology = Topology::builder().versions(Versions::V4, true).up().unwrap();
    let probe = probe(&topology);
    let value = r#"{"PublicIP":"172.16.199.99","PublicIPv6":"2001:db8::99","BackendType":"vxlan"}"#;
    topology.etcd().put(&key("10.9.0.0-24&fd00:9::-64"), value).unwrap();
    let value = r#"{"PublicIPv6":"2001:db8::98","BackendType":"vxlan"}"#;
    topology.etcd().put(&key("10.8.0.0-24"), value).unwrap();
    let routes = || topology.h(1).overlayd().routes().unwrap();
    let served =
        || ["10.9.0.0/24", "fd00:9::/64"].iter().all(|subnet| routes().contains(&(*subnet).to_owned()));
    eventually("both subnets of the one are served", SOON, served).unwrap();
    let refusals = || said(&topology, 1, "cannot be reached");
    eventually("the other is refused", SOON, || !refusals().is_empty()).unwrap();
    // Every second it is looked at again: two such rounds.
    let heard = probe.arrived();
    eventually("two rounds", SOON, || probe.arrived() > heard + 4500).unwrap();
    let lines = refusals();
    assert!(lines.len() == 1 && lines[0].contains("subnet 10.8.0.0/24 of peer 2001:db8::98"), "{lines:?}");
    let status = topology.h(1).overlayd().ctl_output(&["status", "-o", "json"]).unwrap();
    assert!(status.code == Some(3) && status.stdout.contains("cannot be reached"), "{}", status.text());
    topology.etcd().del(&key("10.9.0.0-24&fd00:9::-64")).unwrap();
    topology.etcd().del(&key("10.8.0.0-24")).unwrap();
    eventually("both are gone", SOON, || routes() == ["172.27.0.0/16", "fd00:27::/64"]).unwrap();
    let told = || topology.h(1).overlayd().ctl(&["status", "-o", "json"]).unwrap()["message"].to_string();
    eventually("it is no trouble any more", SOON, || !told().contains("cannot be reached")).unwrap();
    let report = probe.finish().unwrap();
    assert!(report.clean(), "{report}");
}
