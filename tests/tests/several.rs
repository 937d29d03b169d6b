//! More of everything: three hosts, two bridges on one of them, two containers on each bridge.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails, in its helpers too")]

use std::thread;

use harness::{
    Netns, Topology,
    container::{Bridge, Container, Engine, Namespaces, Spec},
    eventually,
    overlayd::Overlayd,
    topology::ETCD_PREFIX,
    traffic::ping,
};

const SOON: std::time::Duration = std::time::Duration::from_secs(5);

/// A second bridge on the first host, with two containers.
fn second_bridge(topology: &Topology) -> Vec<Container> {
    let host = topology.h(1);
    let bridge =
        Bridge { name: "br1".into(), ip: "172.18.0.1".parse().unwrap(), prefix_len: 24, ip_v6: None };
    let mut engine = Namespaces;
    engine.start(&host.ns, &bridge).unwrap();
    let run = |number: u32| {
        let name = format!("b{number}");
        let netns_name = topology.scope.netns_name(&format!("h1.{name}"));
        let spec = Spec { name, netns_name, ip: bridge.container_ip(number), ip_v6: None, mtu: 1500 };
        Namespaces.run(&host.ns, &bridge, &spec).unwrap()
    };
    vec![run(1), run(2)]
}

fn three_hosts() -> (Topology, Vec<Container>) {
    let mut topology = Topology::builder().hosts(3).containers(2).without_overlayd().up().unwrap();
    let more = second_bridge(&topology);
    for index in 0..3 {
        let mut config = topology.overlayd_config(index);
        if index == 0 {
            config.args.push("--bridge=br1".to_owned());
        }
        let host = &mut topology.hosts[index];
        host.overlayd = Some(Overlayd::start(&host.ns, config).unwrap());
    }
    (topology, more)
}

#[test]
fn all_containers_of_three_hosts_and_two_bridges_reach_each_other() {
    let (topology, more) = three_hosts();
    for host in &topology.hosts {
        let wanted = if host.name == "h1" { 2 } else { 3 };
        let complete = || host.overlayd().routes().is_ok_and(|routes| routes.len() == wanted);
        eventually(&format!("{} has all routes", host.name), SOON, complete).unwrap();
    }
    let of_hosts = topology.hosts.iter().flat_map(|host| &host.containers);
    let all: Vec<&Container> = of_hosts.chain(&more).collect();
    assert_eq!(all.len(), 8);
    let pairs = |from: &Container| {
        for to in all.iter().filter(|to| to.ip != from.ip) {
            let ping = ping(&from.ns, to.ip, 2).unwrap();
            assert!(ping.clean(), "{} to {}: {}", from.ip, to.ip, ping.text);
        }
    };
    thread::scope(|scope| all.iter().for_each(|from| drop(scope.spawn(|| pairs(from)))));
    // The host itself too, whose routes all lead through the first bridge.
    let hosts: [(&Netns, _); 2] =
        [(&topology.h(3).ns, more[0].ip), (&topology.h(1).ns, topology.h(3).c(2).ip)];
    for (ns, ip) in hosts {
        assert!(ping(ns, ip, 2).unwrap().clean());
    }
    for host in &topology.hosts {
        assert_eq!(host.overlayd().drops().unwrap().len(), 0, "on {}", host.name);
    }
}

#[test]
fn each_bridge_is_announced_and_taken_back() {
    let (mut topology, more) = three_hosts();
    let announced = |topology: &Topology| -> Vec<String> {
        let keys = topology.etcd().get_prefix(&format!("{ETCD_PREFIX}/subnets/")).unwrap();
        keys.into_keys().filter_map(|key| Some(key.rsplit_once('/')?.1.to_owned())).collect()
    };
    assert_eq!(announced(&topology), ["172.17.0.0-16", "172.18.0.0-24", "172.27.0.0-16", "172.37.0.0-16"]);
    // Without its second bridge the host takes that subnet back, and the peers forget it.
    let overlayd = topology.h_mut(1).overlayd_mut();
    overlayd.stop().unwrap();
    overlayd.config.args.retain(|arg| arg != "--bridge=br1");
    overlayd.start_again().unwrap();
    eventually("br1 is taken back", SOON, || !announced(&topology).contains(&"172.18.0.0-24".to_owned()))
        .unwrap();
    let forgotten = || topology.h(2).overlayd().routes().is_ok_and(|routes| routes.len() == 2);
    eventually("the peers forget it", SOON, forgotten).unwrap();
    assert!(!topology.h(1).attached("br1").unwrap() && !topology.h(1).attached(&more[0].port).unwrap());
    assert!(ping(&topology.h(2).c(1).ns, topology.h(1).c(2).ip, 2).unwrap().clean());
}
