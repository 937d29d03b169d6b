//! Routes and next hops.

use std::collections::BTreeSet;

use ipnet::IpNet;
use nix::errno::Errno;
use overlay_user::netlink::{MAIN_TABLE, Netlink, NextHop, OverlayRoute, RouteEntry};

use crate::namespace::{bridge_with_container, in_namespace, ip, json, link, run, wire};

/// A protocol number of nobody else's.
const OURS: u8 = 239;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn overlay_route(prefix: &str, ifindex: u32, mtu: u32) -> OverlayRoute {
    let prefix = net(prefix);
    let (table, gateway) = (MAIN_TABLE, prefix.network());
    OverlayRoute { table, prefix, gateway, ifindex, source: ip("10.1.0.1"), mtu }
}

async fn routes(netlink: &Netlink) -> BTreeSet<(IpNet, u32)> {
    netlink.routes(OURS).await.unwrap().iter().map(|route| (route.prefix, route.mtu)).collect()
}

#[test]
fn overlay_routes_are_set_replaced_and_deleted() {
    in_namespace(async |netlink, _| {
        assert_eq!(netlink.routes(OURS).await.unwrap(), []);
        let _container = bridge_with_container();
        let br0 = link(&netlink, "br0").await.index;
        let (big, small) =
            (overlay_route("172.27.0.0/16", br0, 1450), overlay_route("10.9.8.0/24", br0, 1450));
        for route in [big, small, big] {
            netlink.replace_route(&route, OURS).await.unwrap();
        }
        assert_eq!(netlink.routes(OURS).await.unwrap(), [small, big]);
        let told = &json(&format!("ip -j -d route show 172.27.0.0/16 proto {OURS}"))[0];
        assert_eq!((&told["gateway"], &told["dev"]), (&"172.27.0.0".into(), &"br0".into()), "{told}");
        assert_eq!(
            (&told["prefsrc"], &told["flags"]),
            (&"10.1.0.1".into(), &["onlink"][..].into()),
            "{told}"
        );
        assert_eq!((&told["metrics"][0]["mtu"], &told["type"]), (&1450.into(), &"unicast".into()), "{told}");

        let smaller = OverlayRoute { mtu: 1400, ..big };
        netlink.replace_route(&smaller, OURS).await.unwrap();
        assert_eq!(routes(&netlink).await, [(small.prefix, 1450), (big.prefix, 1400)].into());
        for _ in 0..2 {
            netlink.delete_route(&big, OURS).await.unwrap();
            assert_eq!(netlink.routes(OURS).await.unwrap(), [small]);
        }
        run("ip link delete br0");
        netlink.delete_route(&small, OURS).await.unwrap();
        assert_eq!(netlink.routes(OURS).await.unwrap(), []);
    });
}

#[test]
fn each_table_has_its_own_route_to_a_prefix() {
    in_namespace(async |netlink, _| {
        let _container = bridge_with_container();
        let main = overlay_route("172.27.0.0/16", link(&netlink, "br0").await.index, 1450);
        let (small, large) =
            (OverlayRoute { table: 100, ..main }, OverlayRoute { table: 790_000_004, ..main });
        for route in [main, small, large, OverlayRoute { mtu: 1400, ..large }] {
            netlink.replace_route(&route, OURS).await.unwrap();
        }
        let mut tables: Vec<_> =
            netlink.routes(OURS).await.unwrap().iter().map(|route| (route.table, route.mtu)).collect();
        tables.sort_unstable();
        assert_eq!(tables, [(100, 1450), (MAIN_TABLE, 1450), (790_000_004, 1400)]);
        netlink.delete_route(&large, OURS).await.unwrap();
        assert_eq!(run("ip route show table 790000004"), "");
        assert_eq!(netlink.routes(OURS).await.unwrap().len(), 2);
    });
}

#[test]
fn other_protocols_are_left_alone() {
    in_namespace(async |netlink, _| {
        let _container = bridge_with_container();
        let br0 = link(&netlink, "br0").await.index;
        run("ip route add 10.7.0.0/16 via 10.1.0.2 proto static");
        run(&format!("ip route add blackhole 10.6.0.0/16 proto {OURS}"));
        assert_eq!(netlink.routes(OURS).await.unwrap(), []);
        let theirs = OverlayRoute { gateway: ip("10.1.0.2"), ..overlay_route("10.7.0.0/16", br0, 0) };
        netlink.delete_route(&theirs, OURS).await.unwrap();
        let read = OverlayRoute { source: ip("0.0.0.0"), ..theirs };
        assert_eq!(netlink.routes(4).await.unwrap(), [read]);
    });
}

#[test]
fn a_route_of_ours_in_another_shape_is_seen_and_can_be_deleted() {
    in_namespace(async |netlink, _| {
        let _container = bridge_with_container();
        let br0 = link(&netlink, "br0").await.index;
        run(&format!("ip route add 10.5.0.0/16 dev br0 metric 7 proto {OURS}"));
        let none = ip("0.0.0.0");
        let (table, prefix) = (MAIN_TABLE, net("10.5.0.0/16"));
        let bare = OverlayRoute { table, prefix, gateway: none, ifindex: br0, source: none, mtu: 0 };
        assert_eq!(netlink.routes(OURS).await.unwrap(), [bare]);
        netlink.delete_route(&bare, OURS).await.unwrap();
        assert_eq!(netlink.routes(OURS).await.unwrap(), []);
    });
}

#[test]
fn a_refused_route_names_prefix_link_and_reason() {
    in_namespace(async |netlink, _| {
        let _container = bridge_with_container();
        let br0 = link(&netlink, "br0").await.index;
        let foreign = OverlayRoute { source: ip("192.0.2.1"), ..overlay_route("172.27.0.0/16", br0, 1450) };
        let error = netlink.replace_route(&foreign, OURS).await.unwrap_err();
        assert_eq!(error.errno(), Some(Errno::EINVAL));
        assert_eq!(
            error.to_string(),
            "cannot set route 172.27.0.0/16 dev br0: Invalid argument (os error 22): Invalid prefsrc address"
        );
        run("ip link set br0 down");
        let error = netlink.replace_route(&overlay_route("172.27.0.0/16", br0, 1450), OURS).await;
        assert_eq!(error.unwrap_err().errno(), Some(Errno::ENETDOWN));
    });
}

#[test]
fn the_next_hop_is_what_ip_route_get_says() {
    in_namespace(async |netlink, _| {
        let _wire = wire("v0", Some("192.0.2.1/24"), "192.0.2.2/24");
        let _other = wire("w0", Some("198.51.100.1/24"), "198.51.100.2/24");
        run("ip route add 203.0.113.0/24 via 192.0.2.2");
        run("ip route add 203.0.113.0/24 via 198.51.100.2 metric 5");
        let (v0, w0) = (link(&netlink, "v0").await.index, link(&netlink, "w0").await.index);
        let (from_v0, from_w0) = (Some(ip("192.0.2.1")), Some(ip("198.51.100.1")));
        let hop = |ifindex, gateway: Option<&str>, source| NextHop {
            ifindex,
            gateway: gateway.map(ip),
            weight: 1,
            source,
            local: false,
        };
        for (dst, oif, expected) in [
            ("192.0.2.2", None, hop(v0, None, from_v0)),
            ("203.0.113.9", None, hop(v0, Some("192.0.2.2"), from_v0)),
            ("203.0.113.9", Some(w0), hop(w0, Some("198.51.100.2"), from_w0)),
        ] {
            assert_eq!(netlink.next_hop(ip(dst), oif).await.unwrap(), expected, "{dst}");
            let out = oif.map_or("", |_| "oif w0");
            let told = &json(&format!("ip -j route get {dst} {out}"))[0];
            assert_eq!(
                told.get("gateway").and_then(|gateway| gateway.as_str()).map(ip),
                expected.gateway,
                "{told}"
            );
            assert_eq!(told["dev"], if expected.ifindex == v0 { "v0" } else { "w0" }, "{told}");
        }
        let own = netlink.next_hop(ip("192.0.2.1"), None).await.unwrap();
        assert!(own.local && own.ifindex == link(&netlink, "lo").await.index, "{own:?}");
    });
}

#[test]
fn no_way_is_an_error_that_names_the_destination() {
    in_namespace(async |netlink, _| {
        let error = netlink.next_hop(ip("192.0.2.9"), None).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot find the route to 192.0.2.9: Network is unreachable (os error 101)"
        );
        let error = netlink.next_hop(ip("192.0.2.9"), Some(4711)).await.unwrap_err().to_string();
        assert!(error.starts_with("cannot find the route to 192.0.2.9 dev (index 4711): "), "{error}");
    });
}

#[test]
fn overlapping_routes_are_found_both_ways() {
    in_namespace(async |netlink, _| {
        assert_eq!(netlink.covering_routes(net("10.1.0.0/16")).await.unwrap(), []);
        let _container = bridge_with_container();
        run("ip route add default via 10.1.0.2");
        run("ip route add 10.2.0.0/16 via 10.1.0.2 proto static");
        run("ip route add blackhole 10.3.0.0/16");
        run("ip route add 10.4.0.0/16 nexthop via 10.1.0.2 nexthop via 10.1.0.3");
        let br0 = Some(link(&netlink, "br0").await.index);
        let entry = |prefix, ifindex, protocol| RouteEntry { prefix: net(prefix), ifindex, protocol };
        let connected = entry("10.1.0.0/24", br0, 2);
        for (prefix, expected) in [
            ("10.1.0.0/16", vec![connected]),
            ("10.1.0.128/25", vec![connected]),
            ("10.1.0.0/24", vec![connected]),
            ("10.1.1.0/24", vec![]),
            ("10.2.9.0/24", vec![entry("10.2.0.0/16", br0, 4)]),
            ("10.3.0.0/16", vec![entry("10.3.0.0/16", None, 3)]),
            ("10.4.0.0/24", vec![entry("10.4.0.0/16", br0, 3)]),
            ("172.16.0.0/12", vec![]),
        ] {
            assert_eq!(netlink.covering_routes(net(prefix)).await.unwrap(), expected, "{prefix}");
        }
        assert_eq!(netlink.covering_routes(net("10.0.0.0/8")).await.unwrap().len(), 4);
    });
}
