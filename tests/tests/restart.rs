//! The daemon dies and comes back: forwarding goes on, pins are adopted, and what changed meanwhile is repaired.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails, in its helpers too")]

use std::{collections::BTreeMap, fs, time::Duration};

use harness::{
    Netns, Topology, eventually,
    host::Host,
    process::Cmd,
    tcx::{self, Attachment},
    topology::ETCD_PREFIX,
    traffic::{Endpoint, Probe, ping},
    two_hosts,
};
use overlay_user::datapath::{map::Maps, pin::Pins};

const SOON: Duration = Duration::from_secs(5);

fn probe(topology: &Topology, duration: Duration) -> Probe {
    let ends = [topology.h(1), topology.h(2)].map(|host| Endpoint { ns: &host.c(1).ns, ip: host.c(1).ip });
    Probe::start(ends[0], ends[1], 1000, duration).unwrap()
}

/// Lets traffic flow for a while, as the packets themselves tell it.
fn flow(probe: &Probe, packets: u64) {
    let until = probe.arrived() + packets;
    eventually("traffic flows", SOON, || probe.arrived() >= until || !probe.sending()).unwrap();
}

fn attachments(host: &Host) -> Vec<Attachment> {
    tcx::attachments_in(&host.ns).unwrap()
}

/// Links by device and hook.
fn links(host: &Host) -> BTreeMap<(String, tcx::Direction), u32> {
    attachments(host).into_iter().map(|a| ((a.ifname, a.direction), a.link)).collect()
}

fn pins(host: &Host) -> Pins {
    Pins::new(&host.overlayd().config.pin_dir)
}

fn maps(host: &Host) -> Maps {
    Maps::open(&pins(host)).unwrap()
}

/// Everything that names a peer's place in the maps.
fn places(host: &Host) -> String {
    let maps = maps(host);
    let (mut routes, mut peers) = (maps.routes().unwrap(), maps.peers().unwrap());
    routes.sort_by_key(|(key, _)| *key);
    peers.sort_by_key(|(key, _)| *key);
    format!("{routes:?}\n{peers:?}\n{:?}", maps.tunnels().unwrap())
}

fn program_exists(id: u32) -> bool {
    Cmd::new("bpftool").args(["prog", "show", "id", &id.to_string()]).run().unwrap().code == Some(0)
}

/// Every pinned link is one that the kernel has on a device of this host, and the other way round.
fn assert_no_orphans(host: &Host) {
    let mut pinned = pins(host).pinned_links().unwrap();
    let devices = host.ns.run(tcx::devices).unwrap().unwrap();
    let attached = attachments(host);
    assert_eq!(pinned.len(), attached.len(), "{pinned:?} {attached:?}");
    pinned.retain(|(ifindex, _)| !devices.contains_key(ifindex));
    assert_eq!(pinned, [], "pins of devices that are gone");
}

fn restart(host: &mut Host) {
    host.overlayd_mut().kill9().unwrap();
    host.overlayd_mut().start_again().unwrap();
}

#[test]
fn kill_9_loses_and_repeats_nothing() {
    let mut topology = two_hosts().unwrap();
    assert!(ping(&topology.h(1).c(1).ns, topology.h(2).c(1).ip, 2).unwrap().clean());
    let before = [1, 2].map(|n| (links(topology.h(n)), places(topology.h(n))));
    let probe = probe(&topology, Duration::from_secs(30));
    let mut kills = 0;
    while probe.sending() {
        for number in [1, 2] {
            flow(&probe, 1500);
            topology.h_mut(number).overlayd_mut().kill9().unwrap();
            flow(&probe, 1500);
            topology.h_mut(number).overlayd_mut().start_again().unwrap();
            kills += 1;
        }
    }
    let report = probe.join().unwrap();
    assert!(report.clean(), "after {kills} kills: {report}");
    assert!(report.forth.sent > 29_000 && report.back.sent > 29_000, "{report}");
    assert!(kills >= 6, "{kills} kills only");
    for (number, before) in [1, 2].into_iter().zip(before) {
        let host = topology.h(number);
        assert_eq!((links(host), places(host)), before, "{} after {kills} kills", host.name);
        assert_no_orphans(host);
        assert_eq!(host.overlayd().drops().unwrap().len(), 0, "on {}", host.name);
    }
}

#[test]
fn a_restart_adopts_the_links_and_replaces_the_programs() {
    let mut topology = two_hosts().unwrap();
    let (before, placed) = (attachments(topology.h(1)), places(topology.h(1)));
    // The uplink thrice, docker0 both ways, the container's port, and the tunnel device.
    assert_eq!(before.len(), 7, "{before:?}");
    restart(topology.h_mut(1));
    let after = attachments(topology.h(1));
    assert_eq!(places(topology.h(1)), placed);
    for (old, new) in before.iter().zip(&after) {
        assert_eq!((&old.ifname, old.direction, old.link), (&new.ifname, new.direction, new.link));
        assert_ne!(old.program, new.program, "{new:?} still runs the old program");
        let gone = || !program_exists(old.program);
        eventually(&format!("program {} is gone", old.program), SOON, gone).unwrap();
    }
    assert_no_orphans(topology.h(1));
    let links: Vec<u32> = after.iter().map(|attachment| attachment.link).collect();
    topology.h_mut(1).overlayd_mut().stop().unwrap();
    assert_eq!(topology.h_mut(1).overlayd_mut().detach().unwrap().code, Some(0));
    for link in links {
        eventually("the link is gone", SOON, || !tcx::link_exists(link).unwrap()).unwrap();
    }
    for attachment in &after {
        eventually("the program is gone", SOON, || !program_exists(attachment.program)).unwrap();
    }
}

#[test]
fn peers_that_came_and_went_meanwhile_are_repaired() {
    let mut topology = two_hosts().unwrap();
    let key = |subnet: &str| format!("{ETCD_PREFIX}/subnets/{subnet}");
    let record = |host: u8| format!("{{\"PublicIP\":\"172.16.199.{host}\",\"BackendType\":\"vxlan\"}}");
    let has = |topology: &Topology, prefixes: &[&str]| {
        let kernel = topology.h(1).ns.ip("route show proto 79").unwrap().stdout;
        let led: Vec<&str> = kernel.lines().filter_map(|line| line.split(' ').next()).collect();
        let mut routes = topology.h(1).overlayd().routes().unwrap();
        routes.sort();
        routes == prefixes && led == prefixes
    };
    topology.etcd().put(&key("10.9.0.0-24"), &record(200)).unwrap();
    eventually("both peers are there", SOON, || has(&topology, &["10.9.0.0/24", "172.27.0.0/16"])).unwrap();
    let to_h2 = |topology: &Topology| {
        let routes = maps(topology.h(1)).routes().unwrap();
        routes.into_iter().find(|(key, _)| key.prefix.to_string() == "172.27.0.0/16").unwrap().1
    };
    let before = to_h2(&topology);

    let probe = probe(&topology, Duration::from_secs(20));
    topology.h_mut(1).overlayd_mut().kill9().unwrap();
    topology.etcd().del(&key("10.9.0.0-24")).unwrap();
    topology.etcd().put(&key("10.8.0.0-24"), &record(201)).unwrap();
    topology.h_mut(1).overlayd_mut().start_again().unwrap();
    // Ready means in step.
    assert!(has(&topology, &["10.8.0.0/24", "172.27.0.0/16"]), "{:?}", topology.h(1).overlayd().routes());
    let neighbours = topology.h(1).ns.ip("neigh show dev docker0 nud permanent").unwrap().stdout;
    assert!(neighbours.contains("10.8.0.0 ") && !neighbours.contains("10.9.0.0 "), "{neighbours}");
    assert_eq!(to_h2(&topology), before, "the peer that stayed keeps its ids");
    let report = probe.finish().unwrap();
    assert!(report.clean(), "{report}");
}

#[test]
fn ports_that_came_and_went_meanwhile_are_attached_and_detached() {
    let mut topology = Topology::builder().containers(2).up().unwrap();
    assert!(ping(&topology.h(2).c(1).ns, topology.h(1).c(2).ip, 2).unwrap().clean());
    let (gone, ip) = (topology.h(1).port_index(2).unwrap(), topology.h(1).c(2).ip);
    eventually("the endpoint is known", SOON, || topology.h(1).knows(2)).unwrap();
    topology.h_mut(1).overlayd_mut().kill9().unwrap();
    topology.h_mut(1).remove_container("c2").unwrap();
    topology.start_container(1, 3).unwrap();
    let port = topology.h(1).c(3).port.clone();
    assert!(!topology.h(1).attached(&port).unwrap());
    topology.h_mut(1).overlayd_mut().start_again().unwrap();
    let h1 = topology.h(1);
    assert!(h1.attached(&port).unwrap());
    assert_no_orphans(h1);
    assert_eq!(h1.overlayd().endpoint(ip).unwrap(), None);
    assert!(maps(h1).ports().unwrap().iter().all(|(ifindex, _)| *ifindex != gone));
    assert!(ping(&h1.c(3).ns, topology.h(2).c(1).ip, 3).unwrap().clean());
}

/// The kernel gives an index out again only when asked to, but then the pin of a dead link stands in the way.
#[test]
fn a_dead_links_pin_is_replaced() {
    let mut topology = two_hosts().unwrap();
    let (index, old) = (topology.h(1).port_index(1).unwrap(), links(topology.h(1)));
    topology.h_mut(1).overlayd_mut().kill9().unwrap();
    topology.h_mut(1).remove_container("c1").unwrap();
    let h1 = topology.h(1);
    let inside = Netns::create(&topology.scope.netns_name("h1.again")).unwrap();
    let ip = h1.bridge.container_ip(5);
    h1.ns
        .ip_batch(&[
            format!(
                "link add name again index {index} type veth peer name eth0 netns {}",
                inside.path().display()
            ),
            "link set again master docker0 up".to_owned(),
        ])
        .unwrap();
    inside
        .ip_batch(&[
            format!("addr add {ip}/16 dev eth0"),
            "link set eth0 up".to_owned(),
            format!("route add default via {}", h1.bridge.ip),
        ])
        .unwrap();
    assert!(fs::exists(pins(h1).link(index, "workload_egress")).unwrap());
    topology.h_mut(1).overlayd_mut().start_again().unwrap();
    let h1 = topology.h(1);
    let new = links(h1).remove(&("again".to_owned(), tcx::Direction::Ingress)).unwrap();
    assert_ne!(Some(&new), old.get(&("vethc1".to_owned(), tcx::Direction::Ingress)));
    assert_no_orphans(h1);
    assert!(ping(&inside, topology.h(2).c(1).ip, 3).unwrap().clean());
}

#[test]
fn a_container_restarted_meanwhile_is_reached_before_the_daemon_is_back() {
    let mut topology = two_hosts().unwrap();
    assert!(ping(&topology.h(2).c(1).ns, topology.h(1).c(1).ip, 2).unwrap().clean());
    eventually("the endpoint is known", SOON, || topology.h(1).knows(1)).unwrap();
    topology.h_mut(1).overlayd_mut().kill9().unwrap();
    topology.restart_container(1, 1).unwrap();
    let (h1, h2) = (topology.h(1), topology.h(2));
    assert!(!h1.knows(1), "the endpoint is the old one");
    let before = ping(&h2.c(1).ns, h1.c(1).ip, 3).unwrap();
    assert!(before.clean(), "{}", before.text);
    assert!(ping(&h1.c(1).ns, h2.c(1).ip, 3).unwrap().clean());
    let probe = probe(&topology, Duration::from_secs(20));
    flow(&probe, 200);
    topology.h_mut(1).overlayd_mut().start_again().unwrap();
    eventually("the endpoint has moved", SOON, || topology.h(1).knows(1)).unwrap();
    flow(&probe, 200);
    let report = probe.finish().unwrap();
    assert!(report.clean(), "{report}");
}
