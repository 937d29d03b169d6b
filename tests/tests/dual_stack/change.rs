//! Addresses and subnets that come and go while it runs.

use harness::{
    Topology,
    container::{Bridge, Engine, Namespaces, Spec},
    eventually,
    host::{BRIDGE, Host},
    overlayd::{Config, Overlayd},
    topology::StoreKind,
    traffic::{Endpoint, Probe, ping},
    versions::Versions::{Both, V4},
    wire::WireKind,
};

use crate::{SOON, await_path, hosts, inside, reached};

fn probe(a: &Host, b: &Host, version: usize) -> Probe {
    let ends = [a, b].map(|host| Endpoint { ns: &host.c(1).ns, ip: inside(host)[version] });
    await_path(ends);
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

/// As routers advertise themselves (RFC 4861), and IPv4 through such a router, too (RFC 8950).
#[test]
fn a_router_known_by_its_link_local_address_is_a_next_hop() {
    let topology = hosts(Both).wire(WireKind::Routed { narrow: 1500 }).store(StoreKind::Peers).up().unwrap();
    let (h1, h2) = (topology.h(1), topology.h(2));
    let said = topology.wire.ns().unwrap().ip("-6 -brief addr show dev h1 scope link").unwrap().stdout;
    let router = said.split_whitespace().find_map(|word| word.strip_suffix("/64")).unwrap();
    let probes = [0, 1].map(|version| probe(h1, h2, version));
    for route in [
        format!("-6 route replace default via {router} dev eth0"),
        format!("-4 route replace default via inet6 {router} dev eth0"),
    ] {
        h1.ns.ip(&route).unwrap();
    }
    let through = || {
        let peers = h1.overlayd().ctl(&["peers", "-o", "json"]).unwrap();
        peers.as_array().unwrap().iter().all(|peer| peer["hops"][0]["next_hop"] == router)
    };
    eventually("it is the next hop", SOON, through).unwrap();
    for to in inside(h2) {
        assert!(ping(&h1.c(1).ns, to, 5).unwrap().clean(), "{to}");
    }
    for probe in probes {
        let report = probe.finish().unwrap();
        assert!(report.clean(), "{report}");
    }
}

/// Each bridge's IPv6 leaves by the bridge that it came from, as its IPv4 does.
#[test]
fn a_second_bridge_has_an_ipv6_subnet_of_its_own() {
    let mut topology = hosts(Both).without_overlayd().up().unwrap();
    let bridge = Bridge {
        name: "br1".into(),
        ip: [172, 18, 0, 1].into(),
        prefix_len: 24,
        ip_v6: "fd00:18::1".parse().ok(),
    };
    let spec = Spec {
        name: "b1".into(),
        netns_name: topology.scope.netns_name("h1.b1"),
        ip: bridge.container_ip(0),
        ip_v6: bridge.container_ip_v6(0),
        mtu: 1500,
    };
    Namespaces.start(&topology.h(1).ns, &bridge).unwrap();
    let b1 = Namespaces.run(&topology.h(1).ns, &bridge, &spec).unwrap();
    let mut config = topology.overlayd_config(0);
    config.bridges.push(bridge.name.clone());
    topology.hosts[0].overlayd = Some(Overlayd::start(&topology.h(1).ns, config).unwrap());
    topology.start_overlayd(1).unwrap();
    topology.await_routes().unwrap();
    let (h1, h2) = (topology.h(1), topology.h(2));
    let knows = || h2.overlayd().routes().unwrap().contains(&"fd00:18::/64".to_owned());
    eventually("both subnets are known", SOON, knows).unwrap();
    let (far, own) = (inside(h2)[1], b1.ip_v6.unwrap());
    assert!(ping(&b1.ns, far, 3).unwrap().clean());
    assert!(ping(&h2.c(1).ns, own, 3).unwrap().clean());
    // By way of the kernel, which needs the route of that bridge.
    let size = ["-M", "do", "-s", "1400", "-W", "1"];
    let said = harness::traffic::ping_with(&b1.ns, far, 1, &size).unwrap();
    assert!(said.text.contains("fd00:18::1") && said.text.contains("mtu=1430"), "{}", said.text);
    let rules = h1.ns.ip("-6 rule").unwrap().stdout;
    assert!(rules.contains("iif br1 lookup 79000000"), "{rules}");
}
