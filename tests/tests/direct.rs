//! `--encap direct`: no tunnel between hosts on one link, a tunnel where a router stands in between.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails, in its helpers too")]

use std::{net::IpAddr, time::Duration};

use harness::{
    Topology, Versions, eventually,
    host::{BRIDGE, Host},
    topology::StoreKind,
    traffic::{Endpoint, Probe, ping, ping_with, transfer},
    wire::WireKind,
};

const SOON: Duration = Duration::from_secs(10);
const BYTES: usize = 4 << 20;

fn hosts(wire: WireKind) -> Topology {
    let builder = Topology::builder().store(StoreKind::Etcd).versions(Versions::Both, true).wire(wire);
    builder.overlayd_args(&["--encap=direct"]).up().unwrap()
}

/// The addresses of a host's first container.
fn inside(host: &Host) -> [IpAddr; 2] {
    [host.c(1).ip.into(), host.c(1).ip_v6.unwrap().into()]
}

/// Both hosts' containers talk in both versions.
fn settle(topology: &Topology) {
    let (h1, h2) = (topology.h(1), topology.h(2));
    for to in inside(h2) {
        eventually("it answers", SOON, || ping(&h1.c(1).ns, to, 1).is_ok_and(|ping| ping.clean())).unwrap();
    }
    for host in [h1, h2] {
        eventually("it is known", SOON, || host.knows(1) && host.knows_v6(1)).unwrap();
    }
}

fn probes(topology: &Topology) -> [Probe; 2] {
    let (h1, h2) = (topology.h(1), topology.h(2));
    [0, 1].map(|version| {
        let end = |host| Endpoint { ns: &Host::c(host, 1).ns, ip: inside(host)[version] };
        Probe::start(end(h1), end(h2), 500, Duration::from_secs(60)).unwrap()
    })
}

/// How packets travel to each subnet of the other host, and their MTU.
fn ways(host: &Host) -> Vec<(String, u64)> {
    let peers = host.overlayd().ctl(&["peers", "-o", "json"]).unwrap();
    let of = |peer: &serde_json::Value| {
        (peer["encap"].as_str().unwrap().to_owned(), peer["mtu"].as_u64().unwrap())
    };
    peers.as_array().unwrap().iter().map(of).collect()
}

/// Docker's rules: FORWARD is open to what comes from its bridge and closed to all else, the containers' own addresses are
/// closed to other interfaces (28 and later), and what leaves by another one than the bridge gets the host's address.
fn close(host: &Host) {
    let subnet = host.bridge.subnet();
    for rule in [
        "-P FORWARD DROP".to_owned(),
        format!("-A FORWARD -o {BRIDGE} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"),
        format!("-A FORWARD -i {BRIDGE} ! -o {BRIDGE} -j ACCEPT"),
        format!("-A FORWARD -i {BRIDGE} -o {BRIDGE} -j ACCEPT"),
        format!("-t raw -A PREROUTING -d {} ! -i {BRIDGE} -j DROP", host.c(1).ip),
        format!("-t nat -A POSTROUTING -s {subnet} ! -o {BRIDGE} -j MASQUERADE"),
    ] {
        let mut command = vec!["iptables", "-w"];
        command.extend(rule.split(' '));
        host.ns.exec(&command).unwrap();
    }
}

#[test]
fn neighbours_have_no_tunnel_and_no_firewall_in_between() {
    let topology = hosts(WireKind::Bridge);
    let (h1, h2) = (topology.h(1), topology.h(2));
    for host in [h1, h2] {
        close(host);
    }
    settle(&topology);
    for host in [h1, h2] {
        let ways = ways(host);
        assert!(!ways.is_empty() && ways.iter().all(|way| *way == ("direct".to_owned(), 1500)), "{ways:?}");
    }
    let probes = probes(&topology);
    for version in [0, 1] {
        let [here, there] = [h1, h2].map(|host| Endpoint { ns: &host.c(1).ns, ip: inside(host)[version] });
        transfer(here, there, BYTES).unwrap();
        transfer(there, here, BYTES).unwrap();
        // Whole, and cut by the sender.
        let largest = if version == 0 { "1472" } else { "1452" };
        for size in [largest, "20000"] {
            let dont = if size == largest { "do" } else { "dont" };
            let ping = ping_with(here.ns, there.ip, 3, &["-M", dont, "-s", size]).unwrap();
            assert!(ping.clean(), "{size} bytes: {}", ping.text);
        }
        // The host itself, and to it.
        assert!(ping(&h1.ns, there.ip, 2).unwrap().clean());
        let bridge: IpAddr = [h2.bridge.ip.into(), h2.bridge.ip_v6.unwrap().into()][version];
        assert!(ping(here.ns, bridge, 2).unwrap().clean());
    }
    for probe in probes {
        let report = probe.finish().unwrap();
        assert!(report.clean(), "{report}");
    }
    for (host, peer) in [(h1, h2), (h2, h1)] {
        assert_eq!(host.overlayd().drops().unwrap().len(), 0, "on {}", host.name);
        let traffic = host.overlayd().traffic(peer.ip).unwrap();
        assert!(traffic.to > 1000 && traffic.from > 1000, "{traffic:?}");
    }
}

#[test]
fn across_a_router_there_is_a_tunnel() {
    let topology = hosts(WireKind::Routed { narrow: 1500 });
    settle(&topology);
    let (h1, h2) = (topology.h(1), topology.h(2));
    for host in [h1, h2] {
        let ways = ways(host);
        assert!(!ways.is_empty() && ways.iter().all(|way| way.0 == "vxlan"), "{ways:?}");
    }
    let probes = probes(&topology);
    let [here, there] = [h1, h2].map(|host| Endpoint { ns: &host.c(1).ns, ip: inside(host)[0] });
    transfer(here, there, BYTES).unwrap();
    for probe in probes {
        let report = probe.finish().unwrap();
        assert!(report.clean(), "{report}");
    }
}

fn restart_with(topology: &mut Topology, number: usize, encap: &str) {
    let overlayd = topology.h_mut(number).overlayd_mut();
    overlayd.stop().unwrap();
    overlayd.config.args = vec![format!("--encap={encap}")];
    overlayd.start_again().unwrap();
}

fn way(host: &Host) -> String {
    ways(host).first().map(|way| way.0.clone()).unwrap_or_default()
}

/// Each host says how packets are to come to it, and takes the other kind until everybody has heard.
#[test]
fn hosts_change_one_by_one_and_lose_nothing() {
    let builder = Topology::builder().store(StoreKind::Etcd).versions(Versions::Both, true);
    let mut topology = builder.overlayd_args(&["--encap=vxlan"]).up().unwrap();
    settle(&topology);
    let probes = probes(&topology);
    let steps =
        [(1, "direct", ["vxlan", "direct"]), (2, "direct", ["direct"; 2]), (1, "vxlan", ["direct", "vxlan"])];
    for (number, encap, expected) in steps {
        restart_with(&mut topology, number, encap);
        let ways = || [1, 2].map(|n| way(topology.h(n)));
        eventually(&format!("h{number} is sent to by {encap}"), SOON, || ways() == expected).unwrap();
        let [here, there] =
            [1, 2].map(|n| Endpoint { ns: &topology.h(n).c(1).ns, ip: inside(topology.h(n))[0] });
        transfer(here, there, BYTES).unwrap();
        transfer(there, here, BYTES).unwrap();
    }
    for probe in probes {
        let report = probe.finish().unwrap();
        assert!(report.clean(), "{report}");
    }
    for host in [topology.h(1), topology.h(2)] {
        assert_eq!(host.overlayd().drops().unwrap().len(), 0, "on {}", host.name);
    }
}
