//! Somebody takes away, by hand, what overlayd has made: it is there again within half a minute, counted, and said once.
//! What it does not touch loses nothing meanwhile.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails, in its helpers too")]

use std::{fs, time::Duration};

use harness::{
    Topology, eventually,
    host::Host,
    process::Cmd,
    tcx,
    topology::ETCD_PREFIX,
    traffic::{Endpoint, Probe, ping},
};
use overlay_common::{Vni, addr::MapIp, map::PeerKey, vni::VniKey};
use overlay_user::datapath::{
    map::{Maps, RouteKey},
    pin::Pins,
};

/// What is promised.
const REPAIRED: Duration = Duration::from_secs(30);
const SOON: Duration = Duration::from_secs(5);

/// A peer nobody is behind.
const SUBNET: &str = "10.9.0.0/24";
const PEER: &str = "172.16.199.200";

fn maps(host: &Host) -> Maps {
    Maps::open(&Pins::new(&host.overlayd().config.pin_dir)).unwrap()
}

fn repaired(host: &Host) -> u64 {
    let status = host.overlayd().ctl(&["status", "-o", "json"]).unwrap();
    status["repaired"].as_u64().unwrap()
}

fn log(host: &Host) -> String {
    fs::read_to_string(&host.overlayd().config.log).unwrap()
}

/// Two containers on host 1, of which the first has a probe under way, and a peer besides host 2.
fn bed() -> Topology {
    let topology = Topology::builder().containers(2).up().unwrap();
    let value = format!(r#"{{"PublicIP":"{PEER}","BackendType":"vxlan"}}"#);
    let key = format!("{ETCD_PREFIX}/subnets/{}", SUBNET.replace('/', "-"));
    topology.etcd().put(&key, &value).unwrap();
    let known = || topology.h(1).overlayd().routes().is_ok_and(|routes| routes.iter().any(|r| r == SUBNET));
    eventually("the peer is known", SOON, known).unwrap();
    assert!(ping(&topology.h(1).c(1).ns, topology.h(2).c(1).ip, 2).unwrap().clean());
    assert!(ping(&topology.h(1).c(2).ns, topology.h(2).c(1).ip, 2).unwrap().clean());
    topology
}

fn probe(topology: &Topology) -> Probe {
    let ends = [1, 2].map(|n| {
        let container = topology.h(n).c(1);
        Endpoint { ns: &container.ns, ip: container.ip }
    });
    Probe::start(ends[0], ends[1], 1000, Duration::from_secs(240)).unwrap()
}

/// One thing that is taken away.
struct Hand<'a> {
    what: &'static str,
    /// The words of the log.
    said: &'a str,
    takes: &'a dyn Fn(&Host),
    is_there: &'a dyn Fn(&Host) -> bool,
}

#[test]
fn what_is_taken_away_by_hand_comes_back() {
    let topology = bed();
    let host = topology.h(1);
    let key = RouteKey::new(Vni::new(1).unwrap(), SUBNET.parse().unwrap());
    let peer = PeerKey { vni: VniKey::NONE, ip: MapIp::from(PEER.parse::<std::net::IpAddr>().unwrap()) };
    let (port, port_name) = (host.port_index(2).unwrap(), host.c(2).port.clone());
    let ip = |words: &str| host.ns.ip(words).unwrap().stdout;
    let (route, neighbour, device) = (
        format!("route {SUBNET} in the map was gone"),
        "neighbour 10.9.0.0 on interface".to_owned(),
        format!("program workload_egress was detached from {port_name}"),
    );
    let (kernel_route, peer_said) =
        (format!("route {SUBNET} in the kernel's table"), format!("peer {PEER} in the map was gone"));
    let port_said = format!("port {port} in the map was gone");
    let hands = [
        Hand {
            what: "a route in the map",
            said: &route,
            takes: &|host| maps(host).delete_route(key).unwrap(),
            is_there: &|host| maps(host).route(key).unwrap().is_some(),
        },
        Hand {
            what: "a peer in the map",
            said: &peer_said,
            takes: &|host| maps(host).delete_peer(peer).unwrap(),
            is_there: &|host| maps(host).peer(peer).unwrap().is_some(),
        },
        Hand {
            what: "a port in the map",
            said: &port_said,
            takes: &|host| maps(host).delete_port(port).unwrap(),
            is_there: &|host| maps(host).port(port).unwrap().is_some(),
        },
        Hand {
            what: "a route of the kernel's",
            said: &kernel_route,
            takes: &|_| drop(ip(&format!("route del {SUBNET} proto 79"))),
            is_there: &|_| ip("route show proto 79").contains("10.9.0.0/24"),
        },
        Hand {
            what: "a neighbour",
            said: &neighbour,
            takes: &|_| drop(ip("neigh del 10.9.0.0 dev docker0")),
            is_there: &|_| ip("neigh show dev docker0 nud permanent").contains("10.9.0.0 "),
        },
        Hand {
            what: "the tunnel device",
            said: "tunnel device",
            takes: &|_| drop(ip("link del ovl0")),
            is_there: &|host| host.attached("ovl0").is_ok_and(|attached| attached),
        },
        Hand {
            what: "a program's link",
            said: &device,
            takes: &|host| {
                let attachments = tcx::attachments_in(&host.ns).unwrap();
                let link = attachments.iter().find(|attachment| attachment.ifname == port_name).unwrap().link;
                Cmd::new("bpftool").args(["link", "detach", "id", &link.to_string()]).check().unwrap();
                assert!(!host.attached(&port_name).unwrap());
            },
            is_there: &|host| host.attached(&port_name).unwrap(),
        },
    ];
    let probe = probe(&topology);
    for Hand { what, said, takes, is_there } in hands {
        let before = repaired(host);
        assert!(is_there(host), "{what} is there");
        takes(host);
        let whole = || is_there(host) && repaired(host) > before;
        eventually(&format!("{what} is there again, and counted"), REPAIRED, whole)
            .unwrap_or_else(|error| panic!("{error}\n{}", host.overlayd().log_tail(20)));
        let lines =
            log(host).lines().filter(|line| line.contains("is repaired: ") && line.contains(said)).count();
        assert_eq!(lines, 1, "{what} is said once: {}", host.overlayd().log_tail(20));
    }
    let report = probe.finish().unwrap();
    assert!(report.clean(), "{report}");
    assert!(ping(&host.c(2).ns, topology.h(2).c(1).ip, 3).unwrap().clean());
    let status = host.overlayd().ctl_output(&["status"]).unwrap();
    assert!(status.stdout.contains("Repaired"), "{}", status.text());
}

/// Nothing that overlayd does itself counts, whatever happens around it.
#[test]
fn nobody_is_blamed_for_what_nobody_did() {
    let mut topology = bed();
    for n in 0..20 {
        let key = format!("{ETCD_PREFIX}/subnets/10.20.{}.0-24", n % 5);
        let value = format!(r#"{{"PublicIP":"172.16.199.{}","BackendType":"vxlan"}}"#, 150 + n);
        topology.etcd().put(&key, &value).unwrap();
        if n % 3 == 0 {
            topology.etcd().del(&key).unwrap();
        }
    }
    topology.restart_container(1, 2).unwrap();
    topology.start_container(1, 3).unwrap();
    topology.h_mut(1).remove_container("c3").unwrap();
    // Everything is looked at once in ten seconds.
    std::thread::sleep(Duration::from_secs(22));
    assert_eq!(repaired(topology.h(1)), 0, "{}", topology.h(1).overlayd().log_tail(20));
}
