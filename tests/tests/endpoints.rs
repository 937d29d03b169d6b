//! Endpoints: how they become known, move and go, and who may not claim them.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails, in its helpers too")]

use std::{net::Ipv4Addr, time::Duration};

use harness::{
    Netns, Topology,
    container::{Engine, Namespaces, Spec},
    counters, eventually,
    host::{BRIDGE, Host},
    traffic::{self, Probe, ping, ping_from, ping_with},
    two_hosts,
};

const SOON: Duration = Duration::from_secs(5);

/// How long a container started later may wait for its fast path.
const ATTACHED: Duration = Duration::from_secs(1);

fn source(host: &Host, ip: Ipv4Addr) -> Option<String> {
    host.overlayd().endpoint(ip).unwrap().map(|endpoint| endpoint.source)
}

fn end(host: &Host, number: u32) -> traffic::Endpoint<'_> {
    traffic::Endpoint { ns: &host.c(number).ns, ip: host.c(number).ip }
}

#[test]
fn the_very_first_packet_arrives_and_the_next_go_directly() {
    let topology = two_hosts().unwrap();
    let (h1, h2) = (topology.h(1), topology.h(2));
    assert_eq!(h2.overlayd().endpoint(h2.c(1).ip).unwrap(), None);
    let first = ping(&h1.c(1).ns, h2.c(1).ip, 1).unwrap();
    assert!(first.clean(), "{}", first.text);
    eventually("the endpoint is known", SOON, || h2.knows(1)).unwrap();
    let confirmed = || source(h2, h2.c(1).ip).as_deref() == Some("neighbour");
    eventually("the kernel's neighbour entry says so", SOON, confirmed).unwrap();
    let before = counters::packets(&h2.ns, BRIDGE).unwrap();
    let report =
        Probe::start(end(h1, 1), end(h2, 1), 1000, Duration::from_millis(500)).unwrap().join().unwrap();
    assert!(report.clean(), "{report}");
    let after = counters::packets(&h2.ns, BRIDGE).unwrap();
    // ARP still goes over the bridge.
    assert!(after.tx < before.tx + 20 && after.rx < before.rx + 20, "{before:?} {after:?}: {report}");
}

#[test]
fn a_container_is_learned_from_its_own_packets() {
    let topology = two_hosts().unwrap();
    let (h1, h2) = (topology.h(1), topology.h(2));
    // Without ARP the kernel hears nothing of the container.
    let (gateway, c1) = (h1.bridge.ip, h1.c(1));
    let mac = harness::container::docker_mac(gateway);
    c1.ns.ip(&format!("neigh replace {gateway} lladdr {mac} dev eth0 nud permanent")).unwrap();
    assert_eq!(h1.overlayd().endpoint(c1.ip).unwrap(), None);
    assert!(ping(&c1.ns, h2.c(1).ip, 1).unwrap().clean());
    assert!(h1.knows(1));
    assert_eq!(source(h1, c1.ip).as_deref(), Some("spoken"));
}

#[test]
fn a_container_started_later_is_attached_and_one_removed_is_forgotten() {
    let mut topology = two_hosts().unwrap();
    topology.start_container(1, 2).unwrap();
    let (h1, h2) = (topology.h(1), topology.h(2));
    let port = h1.c(2).port.clone();
    eventually("the port is attached", ATTACHED, || h1.attached(&port).unwrap()).unwrap();
    assert!(ping(&h2.c(1).ns, h1.c(2).ip, 3).unwrap().clean());
    assert!(ping(&h1.c(2).ns, h2.c(1).ip, 3).unwrap().clean());
    eventually("the endpoint is known", SOON, || h1.knows(2)).unwrap();
    let ip = h1.c(2).ip;
    topology.h_mut(1).remove_container("c2").unwrap();
    let h1 = topology.h(1);
    eventually("the endpoint is gone", ATTACHED, || source(h1, ip).is_none()).unwrap();
    assert!(ping(&h1.c(1).ns, topology.h(2).c(1).ip, 2).unwrap().clean());
}

#[test]
fn a_restarted_container_is_reached_at_once() {
    // A bridge that loses its last port forgets all neighbours: the second container keeps it up.
    let mut topology = Topology::builder().containers(2).up().unwrap();
    assert!(ping(&topology.h(2).c(1).ns, topology.h(1).c(1).ip, 2).unwrap().clean());
    // Engines give out new MAC addresses too, and the kernel may still believe in the old one.
    for mac in [None, Some("02:00:00:00:01:01"), Some("02:00:00:00:01:02")] {
        topology.restart_container(1, 1).unwrap();
        let (h1, h2) = (topology.h(1), topology.h(2));
        if let Some(mac) = mac {
            h1.c(1).ns.ip(&format!("link set eth0 address {mac}")).unwrap();
        }
        let ping = ping(&h2.c(1).ns, h1.c(1).ip, 2).unwrap();
        assert!(ping.clean(), "{}", ping.text);
        eventually("the endpoint has moved", SOON, || h1.knows(1)).unwrap();
    }
}

#[test]
fn an_address_moves_from_one_live_container_to_another() {
    let topology = Topology::builder().containers(2).up().unwrap();
    let (h1, h2) = (topology.h(1), topology.h(2));
    let (old, new, ip) = (h1.c(1), h1.c(2), h1.c(1).ip);
    assert!(ping(&h2.c(1).ns, ip, 2).unwrap().clean());
    eventually("the endpoint is known", SOON, || h1.knows(1)).unwrap();
    old.ns.ip(&format!("addr del {ip}/16 dev eth0")).unwrap();
    new.ns.ip(&format!("addr add {ip}/16 dev eth0")).unwrap();
    let port = h1.port_index(2).unwrap();
    let moved = || {
        let heard = ping_with(&new.ns, h2.c(1).ip, 1, &["-I", &ip.to_string(), "-W", "0.2"]);
        heard.is_ok_and(|ping| ping.clean())
    };
    eventually("the address has moved", Duration::from_secs(10), moved).unwrap();
    assert_eq!(h1.overlayd().endpoint(ip).unwrap().unwrap().ifindex, port);
    assert!(ping(&h2.c(1).ns, ip, 3).unwrap().clean());
}

/// Has a container's packets leave with another source address, which it does not even have.
fn forge(ns: &Netns, ip: Ipv4Addr) {
    let ip = ip.to_string();
    ns.cmd("iptables").args(["-t", "nat", "-F"]).check().unwrap();
    let args = ["-t", "nat", "-A", "POSTROUTING", "-p", "icmp", "-j", "SNAT", "--to-source", &ip];
    ns.cmd("iptables").args(args).check().unwrap();
}

fn dropped(host: &Host, reason: &str) -> u64 {
    host.overlayd().drops().unwrap().get(reason).copied().unwrap_or(0)
}

#[test]
fn nobody_takes_over_an_address_that_is_not_his() {
    let topology = Topology::builder().containers(2).up().unwrap();
    let (h1, h2) = (topology.h(1), topology.h(2));
    let (victim, impostor) = (h1.c(1).ip, h1.c(2));
    assert!(ping(&h1.c(1).ns, h2.c(1).ip, 2).unwrap().clean());
    assert!(ping(&impostor.ns, h2.c(1).ip, 2).unwrap().clean());
    eventually("both endpoints are known", SOON, || h1.knows(1) && h1.knows(2)).unwrap();
    let gateway = h1.overlayd().endpoint(h1.bridge.ip).unwrap();
    let probe = Probe::start(end(h1, 1), end(h2, 1), 1000, Duration::from_secs(30)).unwrap();
    let (network, broadcast) = ("172.17.0.0".parse().unwrap(), "172.17.255.255".parse().unwrap());
    let strangers = ["10.1.2.3".parse().unwrap(), h2.c(1).ip];
    for ip in [victim, h1.bridge.ip, network, broadcast].into_iter().chain(strangers) {
        let reason = if ip == h1.bridge.ip { "gateway_claimed" } else { "source_spoofed" };
        let before = dropped(h1, reason);
        forge(&impostor.ns, ip);
        let forged = ping_with(&impostor.ns, h2.c(1).ip, 3, &["-W", "0.2"]).unwrap();
        assert_eq!(forged.received, 0, "as {ip}: {}", forged.text);
        assert_eq!(dropped(h1, reason), before + 3, "as {ip}");
    }
    assert!(h1.knows(1) && h1.knows(2));
    assert_eq!(h1.overlayd().endpoint(h1.bridge.ip).unwrap(), gateway);
    for ip in [network, broadcast] {
        assert_eq!(h1.overlayd().endpoint(ip).unwrap(), None);
    }
    let report = probe.finish().unwrap();
    assert!(report.clean(), "{report}");
    impostor.ns.cmd("iptables").args(["-t", "nat", "-F"]).check().unwrap();
    assert!(ping(&impostor.ns, h2.c(1).ip, 2).unwrap().clean());
}

/// The impostor has the address and says so by ARP, which the kernel believes.
#[test]
fn arp_does_not_take_over_an_address_whose_owner_lives() {
    let topology = Topology::builder().containers(2).up().unwrap();
    let (h1, h2) = (topology.h(1), topology.h(2));
    let (victim, impostor) = (h1.c(1).ip, h1.c(2));
    assert!(ping(&h1.c(1).ns, h2.c(1).ip, 2).unwrap().clean());
    eventually("the endpoint is known", SOON, || h1.knows(1)).unwrap();
    let probe = Probe::start(end(h1, 1), end(h2, 1), 1000, Duration::from_secs(30)).unwrap();
    impostor.ns.ip(&format!("addr add {victim}/32 dev eth0")).unwrap();
    for _ in 0..5 {
        // So that the gateway is asked for anew, in the name of the victim.
        impostor.ns.ip("neigh flush dev eth0").unwrap();
        let before = dropped(h1, "source_spoofed");
        let forged =
            ping_with(&impostor.ns, h2.c(1).ip, 3, &["-I", &victim.to_string(), "-W", "0.2"]).unwrap();
        assert_eq!(forged.received, 0, "{}", forged.text);
        assert_eq!(dropped(h1, "source_spoofed"), before + 3);
    }
    assert!(h1.knows(1));
    let report = probe.finish().unwrap();
    assert!(report.clean(), "{report}");
}

/// A server that only listens is asked, and its answer counts.
#[test]
fn arp_does_not_take_over_the_address_of_a_silent_container() {
    let topology = Topology::builder().containers(2).up().unwrap();
    let (h1, h2) = (topology.h(1), topology.h(2));
    let (silent, impostor) = (h1.c(1), h1.c(2));
    assert!(ping(&h2.c(1).ns, silent.ip, 2).unwrap().clean());
    let confirmed = || h1.knows(1) && source(h1, silent.ip).as_deref() == Some("neighbour");
    eventually("the endpoint is known", SOON, confirmed).unwrap();
    impostor.ns.ip(&format!("addr add {}/32 dev eth0", silent.ip)).unwrap();
    let forged = ping_from(&impostor.ns, silent.ip, h2.c(1).ip, 3).unwrap();
    assert_eq!(forged.received, 0, "{}", forged.text);
    let mac = harness::container::docker_mac(silent.ip);
    let answered = || {
        let neighbour = h1.ns.ip(&format!("neigh show {} dev {BRIDGE}", silent.ip)).unwrap().stdout;
        neighbour.contains(&mac) && neighbour.contains("REACHABLE")
    };
    eventually("the kernel knows better", SOON, answered).unwrap();
    assert!(h1.knows(1));
    assert!(ping(&h2.c(1).ns, silent.ip, 2).unwrap().clean());
}

/// redirect_peer would lose packets without a word where a port's other end is not in another namespace:
/// here it is a port of a second bridge, which has the container.
#[test]
fn a_port_that_leads_to_no_other_namespace_gets_its_packets() {
    let topology = two_hosts().unwrap();
    let (h1, h2) = (topology.h(1), topology.h(2));
    h2.ns
        .ip_batch(&[
            "link add name behind type bridge".to_owned(),
            "link set behind up".to_owned(),
            "link add name near type veth peer name far".to_owned(),
            "link set far master behind up".to_owned(),
            format!("link set near master {BRIDGE} up"),
        ])
        .unwrap();
    let behind = harness::container::Bridge { name: "behind".into(), ..h2.bridge.clone() };
    let netns_name = topology.scope.netns_name("h2.b1");
    let spec = Spec { name: "b1".into(), netns_name, ip: h2.bridge.container_ip(8), ip_v6: None, mtu: 1500 };
    let container = Namespaces.run(&h2.ns, &behind, &spec).unwrap();
    eventually("the port is attached", ATTACHED, || h2.attached("near").unwrap()).unwrap();
    assert!(ping(&h1.c(1).ns, container.ip, 1).unwrap().clean());
    let near = h2.ifindex("near").unwrap();
    let known = || h2.overlayd().endpoint(container.ip).unwrap().is_some_and(|e| e.ifindex == near);
    eventually("the endpoint is known", SOON, known).unwrap();
    let before = counters::packets(&h2.ns, BRIDGE).unwrap();
    let there = traffic::Endpoint { ns: &container.ns, ip: container.ip };
    let report = Probe::start(end(h1, 1), there, 1000, Duration::from_millis(500)).unwrap().join().unwrap();
    assert!(report.clean(), "{report}");
    let after = counters::packets(&h2.ns, BRIDGE).unwrap();
    assert!(after.tx < before.tx + 20, "{before:?} {after:?}: {report}");
    assert!(ping_from(&container.ns, container.ip, h1.c(1).ip, 2).unwrap().clean());
}
