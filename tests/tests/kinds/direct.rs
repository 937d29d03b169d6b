//! `--encap direct`: no tunnel between hosts on one link, a tunnel where a router stands in between.

use std::net::IpAddr;

use harness::{
    Topology, Versions, eventually,
    host::{BRIDGE, Host},
    traffic::{Endpoint, ping, ping_with, transfer},
    wire::WireKind,
};

use crate::bed::{self, SOON, inside, restart_with, ways};

const BYTES: usize = 4 << 20;

fn hosts(wire: WireKind) -> Topology {
    bed::builder(Versions::Both, "direct").wire(wire).up().unwrap()
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
    bed::settle(&topology, 1, 2);
    for (host, other) in [(h1, h2), (h2, h1)] {
        let ways = ways(host, other);
        assert!(ways.iter().all(|way| *way == ("direct".to_owned(), 1500)), "{ways:?}");
    }
    let probes = bed::probes(&topology, 1, 2);
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
    bed::settle(&topology, 1, 2);
    let (h1, h2) = (topology.h(1), topology.h(2));
    for (host, other) in [(h1, h2), (h2, h1)] {
        let ways = ways(host, other);
        assert!(ways.iter().all(|way| way.0 == "vxlan"), "{ways:?}");
    }
    let probes = bed::probes(&topology, 1, 2);
    let [here, there] = [h1, h2].map(|host| Endpoint { ns: &host.c(1).ns, ip: inside(host)[0] });
    transfer(here, there, BYTES).unwrap();
    for probe in probes {
        let report = probe.finish().unwrap();
        assert!(report.clean(), "{report}");
    }
}

/// Each host says how packets are to come to it, and takes the other kind until everybody has heard.
#[test]
fn hosts_change_one_by_one_and_lose_nothing() {
    let mut topology = bed::hosts(Versions::Both, "vxlan");
    let probes = bed::probes(&topology, 1, 2);
    let steps =
        [(1, "direct", ["vxlan", "direct"]), (2, "direct", ["direct"; 2]), (1, "vxlan", ["direct", "vxlan"])];
    for (number, encap, expected) in steps {
        restart_with(&mut topology, number, encap);
        let way = |from, to| ways(topology.h(from), topology.h(to)).map(|way| way.0);
        let as_expected = || [way(1, 2), way(2, 1)] == expected.map(|encap| [encap, encap]);
        eventually(&format!("h{number} is sent to by {encap}"), SOON, as_expected).unwrap();
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
