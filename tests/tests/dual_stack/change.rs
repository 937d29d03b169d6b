//! Addresses and subnets that come and go while it runs.

use harness::{
    Topology, eventually,
    host::{BRIDGE, Host},
    overlayd::{Config, Overlayd},
    traffic::{Endpoint, Probe, ping},
    versions::Versions::{Both, V4},
};

use crate::{SOON, hosts, inside, reached};

fn probe(a: &Host, b: &Host, version: usize) -> Probe {
    let ends = [a, b].map(|host| Endpoint { ns: &host.c(1).ns, ip: inside(host)[version] });
    let probe = Probe::start(ends[0], ends[1], 1000, SOON * 12).unwrap();
    eventually("traffic flows", SOON, || probe.arrived() > 100).unwrap();
    probe
}

/// Hosts that announce whatever addresses their uplinks have.
fn unnamed(builder: harness::topology::Builder) -> Topology {
    let mut topology = builder.without_overlayd().up().unwrap();
    for index in 0..topology.hosts.len() {
        let config = Config { public_ips: Vec::new(), ..topology.overlayd_config(index) };
        let host = &mut topology.hosts[index];
        host.overlayd = Some(Overlayd::start(&host.ns, config).unwrap());
    }
    topology.await_routes().unwrap();
    topology
}

fn await_outer(host: &Host, subnet: &str, address: &str) {
    let row = (subnet.to_owned(), address.to_owned());
    eventually(&format!("{subnet} over {address}"), SOON, || reached(host).contains(&row))
        .unwrap_or_else(|error| panic!("{error}: {:?}\n{}", reached(host), host.overlayd().log_tail(20)));
}

/// A host that gets an IPv6 address is reached by it, and by the other one once it is gone: nothing is lost, since both
/// ways are believed as long as either may be taken.
#[test]
fn an_ipv6_address_that_comes_and_goes_is_followed() {
    let topology = unnamed(hosts(Both));
    let (h1, h2) = (topology.h(1), topology.h(2));
    let (subnet, v6) = (h1.bridge.subnet_v6().unwrap(), h1.ip_v6.to_string());
    await_outer(h2, &subnet, &v6);
    for _ in 0..2 {
        h1.ns.ip(&format!("addr del {v6}/64 dev eth0")).unwrap();
        await_outer(h2, &subnet, &h1.ip.to_string());
        for to in inside(h1) {
            assert!(ping(&h2.c(1).ns, to, 3).unwrap().clean());
        }
        // With a search for duplicates, as usual: it counts once it is over.
        h1.ns.ip(&format!("addr add {v6}/64 dev eth0")).unwrap();
        await_outer(h2, &subnet, &v6);
        let probe = probe(h2, h1, 1);
        // Another one beside it changes nothing.
        h1.ns.ip("addr add fd00:199::abcd/64 dev eth0 nodad").unwrap();
        assert!(ping(&h2.c(1).ns, inside(h1)[1], 10).unwrap().clean());
        h1.ns.ip("addr del fd00:199::abcd/64 dev eth0").unwrap();
        await_outer(h2, &subnet, &v6);
        let report = probe.finish().unwrap();
        assert!(report.clean(), "{report}");
    }
}

/// docker0 gets an IPv6 subnet, and loses it: IPv4 is not disturbed, and peers follow.
#[test]
fn a_bridges_ipv6_subnet_that_comes_and_goes_is_followed() {
    let topology = hosts(V4).up().unwrap();
    let (h1, h2) = (topology.h(1), topology.h(2));
    let (gateway, subnet) = (h1.bridge.ip_v6.unwrap(), h1.bridge.subnet_v6().unwrap());
    let undisturbed = probe(h1, h2, 0);
    let knows = |host: &Host| host.overlayd().routes().unwrap().contains(&subnet);
    for _ in 0..2 {
        h1.ns.ip(&format!("addr del {gateway}/64 dev {BRIDGE}")).unwrap();
        eventually("peers forget it", SOON, || !knows(h2)).unwrap();
        h1.ns.ip(&format!("addr add {gateway}/64 dev {BRIDGE} nodad")).unwrap();
        eventually("peers know it", SOON, || knows(h2)).unwrap();
        let reached = || ping(&h2.c(1).ns, inside(h1)[1], 1).unwrap().clean();
        eventually("it is reached", SOON, reached).unwrap();
    }
    let keys = topology.etcd().get_prefix(&format!("{}/subnets/", harness::topology::ETCD_PREFIX)).unwrap();
    assert_eq!(keys.len(), 2, "{keys:?}");
    let report = undisturbed.finish().unwrap();
    assert!(report.clean(), "{report}");
}
