//! All hops of a route, against what `ip` says and where packets really go.

use std::{net::IpAddr, process::Command};

use overlay_user::{
    netlink::{Event, Netlink, NextHop},
    sysctl,
};

use crate::{
    monitor::{expect, settle},
    namespace::{Elsewhere, eventually, in_namespace, ip, link, run, wire},
};

/// Behind the routers, on the loopback device of each.
const FAR: [&str; 2] = ["203.0.113.9", "2001:db8:9::9"];

const PING: [&str; 4] = ["-n", "-c1", "-W1", FAR[0]];

/// A router on a wire of its own: `N` has 192.0.2.1 and 2001:db8:N::1, this host the addresses ending in 2.
fn router(n: u8) -> Elsewhere {
    let router = wire(&format!("v{n}"), Some(&format!("192.0.{n}.2/24")), &format!("192.0.{n}.1/24"));
    run(&format!("ip -6 address add 2001:db8:{n}::2/64 dev v{n} nodad"));
    router.run(&format!("ip -6 address add 2001:db8:{n}::1/64 dev eth0 nodad"));
    for far in FAR {
        router.run(&format!("ip address add {far} dev lo"));
    }
    router
}

/// Of a family: the router's address.
fn gateway(n: u8, v6: bool) -> String {
    if v6 { format!("2001:db8:{n}::1") } else { format!("192.0.{n}.1") }
}

async fn hop(netlink: &Netlink, n: u8, gateway: Option<&str>, weight: u32) -> NextHop {
    let ifindex = link(netlink, &format!("v{n}")).await.index;
    NextHop { ifindex, gateway: gateway.map(ip), weight, source: None, local: false }
}

async fn hops(netlink: &Netlink, to: &str) -> Vec<NextHop> {
    netlink.next_hops(ip(to)).await.unwrap()
}

#[test]
fn every_hop_of_a_multipath_route_is_told_with_its_weight() {
    in_namespace(async |netlink, _| {
        let routers = [router(1), router(2), router(3)];
        for (v6, far, prefix) in [(false, FAR[0], "203.0.113.0/24"), (true, FAR[1], "2001:db8:9::/64")] {
            let via = |n: u8, weight: u8| format!("nexthop via {} dev v{n} weight {weight}", gateway(n, v6));
            run(&format!("ip route add {prefix} {} {} {}", via(1, 1), via(2, 3), via(3, 1)));
            let mut expected = Vec::new();
            for (n, weight) in [(1, 1), (2, 3), (3, 1)] {
                expected.push(hop(&netlink, n, Some(&gateway(n, v6)), weight).await);
            }
            assert_eq!(hops(&netlink, far).await, expected);
            // They lead there.
            for (n, router) in (1..).zip(&routers) {
                run(&format!("ping -n -c 1 -W 2 -I v{n} {far}"));
                assert!(router.run("ip -o address show dev lo").contains(far));
            }
            let picked = netlink.next_hop(ip(far), None).await.unwrap();
            assert!(
                expected.iter().any(|hop| (hop.ifindex, hop.gateway) == (picked.ifindex, picked.gateway))
            );
            assert!(picked.source.is_some_and(|source| source.is_ipv6() == v6), "{picked:?}");
        }
    });
}

#[test]
fn a_hop_without_carrier_or_on_a_link_that_is_down_is_none() {
    in_namespace(async |netlink, _| {
        let routers = [router(1), router(2)];
        for (v6, prefix) in [(false, "203.0.113.0/24"), (true, "2001:db8:9::/64")] {
            let via = |n: u8| format!("nexthop via {} dev v{n}", gateway(n, v6));
            run(&format!("ip route add {prefix} {} {}", via(1), via(2)));
        }
        let gateways = async |to: &str| -> Vec<Option<IpAddr>> {
            hops(&netlink, to).await.into_iter().map(|hop| hop.gateway).collect()
        };
        let expect = async |what: &str, alive: &[u8]| {
            for (v6, far) in [(false, FAR[0]), (true, FAR[1])] {
                let expected: Vec<_> = alive.iter().map(|n| Some(ip(&gateway(*n, v6)))).collect();
                let told = async || (gateways(far).await == expected).then_some(());
                eventually(&format!("{what}: {far}"), told).await;
            }
        };
        expect("both", &[1, 2]).await;
        routers[1].run("ip link set eth0 down");
        expect("the second has lost its carrier", &[1]).await;
        routers[1].run("ip link set eth0 up");
        expect("both again", &[1, 2]).await;
        routers[0].run("ip link set eth0 down");
        routers[1].run("ip link set eth0 down");
        expect("neither", &[]).await;
        routers[0].run("ip link set eth0 up");
        routers[1].run("ip link set eth0 up");
        expect("both once more", &[1, 2]).await;
        // IPv4 keeps the dead hop in the route.
        run("ip link set v1 down");
        assert_eq!(gateways(FAR[0]).await, [Some(ip("192.0.2.1"))]);
    });
}

#[test]
fn a_route_with_one_hop_has_one() {
    in_namespace(async |netlink, _| {
        let router = router(1);
        run("ip route add 203.0.113.0/24 via 192.0.1.1 src 192.0.1.2");
        run("ip -6 route add 2001:db8:9::/64 via 2001:db8:1::1 src 2001:db8:1::2");
        let sourced = async |v6: bool, source: &str| {
            let hop = hop(&netlink, 1, Some(&gateway(1, v6)), 1).await;
            [NextHop { source: Some(ip(source)), ..hop }]
        };
        assert_eq!(hops(&netlink, FAR[0]).await, sourced(false, "192.0.1.2").await);
        assert_eq!(hops(&netlink, FAR[1]).await, sourced(true, "2001:db8:1::2").await);
        for on_link in ["192.0.1.1", "2001:db8:1::1"] {
            let told = hops(&netlink, on_link).await;
            assert_eq!((told.len(), told[0].gateway, told[0].local), (1, None, false), "{told:?}");
        }
        for own in ["192.0.1.2", "2001:db8:1::2", "127.0.0.1", "::1"] {
            assert!(hops(&netlink, own).await.iter().all(|hop| hop.local), "{own}");
        }
        // Carrier lost.
        router.run("ip link set eth0 down");
        for far in FAR {
            eventually(far, async || hops(&netlink, far).await.is_empty().then_some(())).await;
        }
        for nowhere in ["198.51.100.1", "2001:db8:ffff::1"] {
            let error = netlink.next_hops(ip(nowhere)).await.unwrap_err().to_string();
            let expected = format!("cannot find the route to {nowhere}: Network is unreachable");
            assert!(error.starts_with(&expected), "{error}");
        }
        run("ip route add blackhole 198.51.100.0/24");
        assert!(netlink.next_hops(ip("198.51.100.1")).await.is_err());
    });
}

#[test]
fn an_ipv4_route_may_lead_through_ipv6_routers() {
    in_namespace(async |netlink, _| {
        let routers = [router(1), router(2)];
        for (n, router) in (1..).zip(&routers) {
            router.run(&format!("ip route add 10.77.0.1 via inet6 2001:db8:{n}::2 dev eth0"));
        }
        run("ip address add 10.77.0.1/32 dev lo");
        run("ip route add 203.0.113.9 via inet6 2001:db8:1::1 dev v1 src 10.77.0.1");
        let one =
            NextHop { source: Some(ip("10.77.0.1")), ..hop(&netlink, 1, Some("2001:db8:1::1"), 1).await };
        assert_eq!(hops(&netlink, FAR[0]).await, [one]);
        assert_eq!(netlink.next_hop(ip(FAR[0]), None).await.unwrap(), one);
        // Solicitations for an IPv4 packet come from the link-local address, which takes a while to be settled.
        let answered =
            async || Command::new("ping").args(PING).output().unwrap().status.success().then_some(());
        eventually("an answer", answered).await;
        run(
            "ip route replace 203.0.113.9 nexthop via inet6 2001:db8:1::1 dev v1 nexthop via 192.0.2.1 dev v2 weight 2",
        );
        let both =
            [hop(&netlink, 1, Some("2001:db8:1::1"), 1).await, hop(&netlink, 2, Some("192.0.2.1"), 2).await];
        assert_eq!(hops(&netlink, FAR[0]).await, both);
    });
}

/// Routing daemons make nexthop objects. Where the kernel is told that nobody needs it (`nexthop_compat_mode`), it
/// names the object alone in a route.
#[test]
fn nexthop_objects_are_looked_into() {
    in_namespace(async |netlink, mut monitor| {
        let routers = [router(1), router(2)];
        for (id, v6) in [(10, false), (20, true)] {
            for n in [1, 2] {
                run(&format!("ip nexthop add id {} via {} dev v{n}", id + n, gateway(n, v6)));
            }
            run(&format!("ip nexthop add id {id} group {},3/{}", id + 1, id + 2));
        }
        run("ip nexthop add id 30 blackhole");
        run("ip route add 203.0.113.0/24 nhid 10");
        run("ip -6 route add 2001:db8:9::/64 nhid 20");
        run("ip route add 203.0.114.0/24 nhid 11");
        run("ip route add 203.0.115.0/24 nhid 22");
        run("ip -6 route add 2001:db8:a::/64 nhid 22");
        for compat in ["1", "0"] {
            sysctl::set("/proc/sys/net/ipv4/nexthop_compat_mode", compat).unwrap();
            for (v6, far) in [(false, FAR[0]), (true, FAR[1])] {
                let both = [
                    hop(&netlink, 1, Some(&gateway(1, v6)), 3).await,
                    hop(&netlink, 2, Some(&gateway(2, v6)), 1).await,
                ];
                assert_eq!(hops(&netlink, far).await, both, "compat {compat}");
            }
            for (to, n, v6) in
                [("203.0.114.1", 1, false), ("203.0.115.1", 2, true), ("2001:db8:a::1", 2, true)]
            {
                let one = [hop(&netlink, n, Some(&gateway(n, v6)), 1).await];
                assert_eq!(hops(&netlink, to).await, one, "{to}, compat {compat}");
            }
        }
        // Objects go with their link's carrier, out of their groups too.
        settle(&mut monitor).await;
        routers[0].run("ip link set eth0 down");
        let second = [hop(&netlink, 2, Some(&gateway(2, false)), 1).await];
        eventually("without carrier", async || (hops(&netlink, FAR[0]).await == second).then_some(())).await;
        let told =
            |event: &Event| matches!(event, Event::Route(_) | Event::Routing | Event::Link(_)).then_some(());
        expect(&mut monitor, "the carrier's end", told).await;
        settle(&mut monitor).await;
        run("ip nexthop replace id 12 via 192.0.2.9 dev v2");
        expect(&mut monitor, "an object's change", |event| (*event == Event::Routing).then_some(())).await;
        assert_eq!(hops(&netlink, FAR[0]).await, [hop(&netlink, 2, Some("192.0.2.9"), 1).await]);
    });
}
