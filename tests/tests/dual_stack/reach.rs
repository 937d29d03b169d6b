//! Every mix of versions inside and outside.

use std::net::IpAddr;

use harness::{
    Topology,
    host::{Host, Plan},
    topology::StoreKind,
    traffic::{Endpoint, ping, ping_from, transfer},
    versions::Versions::{self, Both, V4, V6},
};

use crate::{await_path, hosts, inside, reached};

/// What the first host speaks outside, what the second, and over which version the subnets of either are reached: those
/// of IPv4, those of IPv6.
fn mix(first: Versions, second: Versions, [outer_v4, outer_v6]: [Versions; 2]) {
    let plan = move |index| Plan { underlay: if index == 0 { first } else { second }, bridge_v6: true };
    // etcd has one address: where not all have its version, a file does.
    let store = if first == second { StoreKind::Etcd } else { StoreKind::Peers };
    let topology = Topology::builder().plan(plan).store(store).up().unwrap();
    for (here, there) in [(1, 2), (2, 1)] {
        let (here, there) = (topology.h(here), topology.h(there));
        assert_eq!(reached(here), expected(there, outer_v4, outer_v6));
        talk(here, there);
    }
    for host in &topology.hosts {
        assert_eq!(host.overlayd().drops().unwrap(), [].into(), "{}", host.name);
        let status = host.overlayd().ctl_output(&["status"]).unwrap();
        assert_eq!(status.code, Some(0), "{}", status.text());
    }
}

#[test]
fn over_ipv4_alone() {
    mix(V4, V4, [V4, V4]);
}

#[test]
fn over_ipv6_alone() {
    mix(V6, V6, [V6, V6]);
}

#[test]
fn over_both_each_goes_over_its_own() {
    mix(Both, Both, [V4, V6]);
}

#[test]
fn over_the_one_that_both_hosts_have() {
    mix(Both, V4, [V4, V4]);
}

#[test]
fn over_the_other_one_that_both_hosts_have() {
    mix(V6, Both, [V6, V6]);
}

fn expected(peer: &Host, outer_v4: Versions, outer_v6: Versions) -> Vec<(String, String)> {
    let address = |outer: Versions| if outer.v4() { peer.ip.to_string() } else { peer.ip_v6.to_string() };
    let mut rows = vec![
        (peer.bridge.subnet(), address(outer_v4)),
        (peer.bridge.subnet_v6().unwrap(), address(outer_v6)),
    ];
    rows.sort();
    rows
}

fn talk(here: &Host, there: &Host) {
    let (from, to) = (inside(here), inside(there));
    let gateways: [IpAddr; 2] = [there.bridge.ip.into(), there.bridge.ip_v6.unwrap().into()];
    for version in [0, 1] {
        let what = format!("{} to {}", from[version], to[version]);
        let peer = reached(here)[version].1.parse::<IpAddr>().unwrap();
        let before = here.overlayd().traffic(peer).unwrap().to;
        let said = ping(&here.c(1).ns, to[version], 3).unwrap();
        assert!(said.clean(), "{what}: {}", said.text);
        let by_us = here.overlayd().traffic(peer).unwrap().to - before;
        assert!(by_us >= 3, "{what}: {by_us} packets by the fast path");
        let ends =
            [(here, from), (there, to)].map(|(host, ips)| Endpoint { ns: &host.c(1).ns, ip: ips[version] });
        transfer(ends[0], ends[1], 300_000).unwrap_or_else(|error| panic!("{what}: {error:#}"));
        for (name, said) in [
            ("the remote docker0", ping(&here.c(1).ns, gateways[version], 2)),
            ("from the host", ping(&here.ns, to[version], 2)),
            ("from host to host", ping(&here.ns, gateways[version], 2)),
            (
                "from the host's docker0",
                ping_from(
                    &here.ns,
                    [IpAddr::from(here.bridge.ip), here.bridge.ip_v6.unwrap().into()][version],
                    to[version],
                    2,
                ),
            ),
        ] {
            let said = said.unwrap();
            assert!(said.clean(), "{what}, {name}: {}", said.text);
        }
    }
}

/// Containers left at 1500: the kernel tells them, in either version.
#[test]
fn what_is_too_large_is_told_and_fits_then() {
    let topology = hosts(Both).up().unwrap();
    let (h1, h2) = (topology.h(1), topology.h(2));
    for version in [0, 1] {
        await_path([h1, h2].map(|host| Endpoint { ns: &host.c(1).ns, ip: inside(host)[version] }));
    }
    for (to, header, mtu) in [(inside(h2)[0], 28, 1450), (inside(h2)[1], 48, 1430)] {
        let sized = |bytes: u32| {
            let size = (bytes - header).to_string();
            harness::traffic::ping_with(&h1.c(1).ns, to, 1, &["-M", "do", "-s", &size, "-W", "1"]).unwrap()
        };
        assert!(sized(mtu).clean(), "{to}");
        let said = sized(mtu + 1);
        assert!(said.received == 0, "{to}: {}", said.text);
        let told = said.text.contains(&format!("mtu = {mtu}")) || said.text.contains(&format!("mtu={mtu}"));
        assert!(told, "{to}: {}", said.text);
        assert!(sized(mtu).clean(), "{to}");
    }
}
