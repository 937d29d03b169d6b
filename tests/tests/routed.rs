//! A network behind a host that is no bridge's: a key in the store has the host's kernel route for it.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails, in its helpers too")]

use std::{net::Ipv4Addr, time::Duration};

use harness::{
    Netns, Topology, binaries, eventually,
    process::{Cmd, Output},
    topology::ETCD_PREFIX,
    traffic::{Endpoint, Probe, ping, ping_from},
};

const SOON: Duration = Duration::from_secs(5);
const NETWORK: &str = "192.168.50.0/24";
const RESIDENT: Ipv4Addr = Ipv4Addr::new(192, 168, 50, 7);

/// A network behind host 2, with somebody in it.
fn lan(topology: &Topology) -> Netns {
    let resident = Netns::create(&topology.scope.netns_name("lan")).unwrap();
    let (h2, far) = (topology.h(2), resident.path().display().to_string());
    h2.ns
        .ip_batch(&[
            format!("link add lan0 type veth peer name eth0 netns {far}"),
            "addr add 192.168.50.1/24 dev lan0".to_owned(),
            "link set lan0 up".to_owned(),
        ])
        .unwrap();
    resident
        .ip_batch(&[
            format!("addr add {RESIDENT}/24 dev eth0"),
            "link set eth0 up".to_owned(),
            "route add default via 192.168.50.1".to_owned(),
        ])
        .unwrap();
    resident
}

fn leases(topology: &Topology, args: &[&str]) -> Output {
    Cmd::new(binaries::find("overlayctl").unwrap())
        .netns(topology.h(1).ns.path())
        .arg("leases")
        .arg(format!("--etcd-endpoints={}", topology.etcd().endpoint()))
        .arg(format!("--etcd-prefix={ETCD_PREFIX}"))
        .args(args)
        .run()
        .unwrap()
}

fn route(topology: &Topology, number: usize, subnet: &str) -> Output {
    leases(topology, &["route", subnet, "--public-ip", &topology.h(number).ip.to_string()])
}

fn routes(topology: &Topology, number: usize) -> Vec<String> {
    topology.h(number).overlayd().routes().unwrap_or_default()
}

#[test]
fn containers_and_a_network_behind_another_host_talk() {
    let mut topology = Topology::builder().hosts(3).up().unwrap();
    let resident = lan(&topology);
    let (container, outside) = (topology.h(1).c(1), topology.h(3).c(1));
    let ends = [container, outside].map(|c| Endpoint { ns: &c.ns, ip: c.ip });
    let probe = Probe::start(ends[0], ends[1], 1000, Duration::from_secs(60)).unwrap();
    assert_eq!(ping(&container.ns, RESIDENT, 1).unwrap().received, 0);

    let said = route(&topology, 2, NETWORK);
    assert_eq!(said.code, Some(0), "{}", said.text());
    let known = || [1, 3].iter().all(|n| routes(&topology, *n).iter().any(|route| route == NETWORK));
    eventually("the others have a route", SOON, known).unwrap();
    let talk = || ping(&container.ns, RESIDENT, 1).is_ok_and(|ping| ping.clean());
    eventually("a container reaches the network", SOON, talk).unwrap();
    assert!(ping(&resident, container.ip, 3).unwrap().clean());
    assert!(ping(&outside.ns, RESIDENT, 3).unwrap().clean());
    let status = topology.h(2).overlayd().ctl(&["status", "-o", "json"]).unwrap();
    assert_eq!(status["state"], "ok", "{status}");
    assert!(status["subnets"].as_array().unwrap().iter().any(|subnet| subnet == NETWORK), "{status}");

    // Nobody else may speak for it: a container with one of its addresses is refused where it lives.
    outside.ns.ip("addr add 192.168.50.9/32 dev eth0").unwrap();
    let forged = ping_from(&outside.ns, Ipv4Addr::new(192, 168, 50, 9), container.ip, 2).unwrap();
    assert_eq!(forged.received, 0);
    assert!(topology.h(3).overlayd().drops().unwrap().contains_key("source_spoofed"));

    // The owner's daemon comes and goes, and finds it in force without the store too.
    topology.h_mut(2).overlayd_mut().restart().unwrap();
    assert!(ping(&topology.h(1).c(1).ns, RESIDENT, 2).unwrap().clean());
    topology.etcd().pause().unwrap();
    topology.h_mut(2).overlayd_mut().kill9().unwrap();
    topology.h_mut(2).overlayd_mut().start_again().unwrap();
    assert!(ping(&topology.h(1).c(1).ns, RESIDENT, 2).unwrap().clean());
    topology.etcd().resume().unwrap();

    let said = leases(&topology, &["release", NETWORK, "--delete"]);
    assert_eq!(said.code, Some(0), "{}", said.text());
    let gone = || [1, 3].iter().all(|n| routes(&topology, *n).iter().all(|route| route != NETWORK));
    eventually("the others have no route", Duration::from_secs(15), gone).unwrap();
    assert_eq!(ping(&topology.h(1).c(1).ns, RESIDENT, 1).unwrap().received, 0);
    let forgets = || {
        let status = topology.h(2).overlayd().ctl(&["status", "-o", "json"]).unwrap();
        status["subnets"].as_array().unwrap().len() == 1
    };
    eventually("its host forgets it", Duration::from_secs(15), forgets).unwrap();
    let report = probe.finish().unwrap();
    assert!(report.clean(), "{report}");
}

#[test]
fn what_cannot_be_routed_is_refused_with_a_reason() {
    let topology = Topology::builder().hosts(2).up().unwrap();
    let refused = |said: Output, why: &str| {
        assert_eq!(said.code, Some(1), "{}", said.text());
        assert!(said.stderr.contains(why), "{}", said.text());
    };
    let subnet = topology.h(2).bridge.subnet();
    refused(route(&topology, 1, &subnet), "overlaps what");
    refused(
        leases(&topology, &["route", NETWORK, "--public-ip", "172.16.199.99"]),
        "no host at 172.16.199.99",
    );
    refused(route(&topology, 1, "fd00:50::/64"), "IPv4 subnet");
    assert_eq!(route(&topology, 1, NETWORK).code, Some(0));
    refused(route(&topology, 2, NETWORK), "overlaps what");
    assert_eq!(routes(&topology, 2).len(), 2);
}
