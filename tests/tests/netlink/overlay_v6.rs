//! IPv6 routes into the overlay: what is set is there, and the kernel sends by it as the programs expect.

use std::{fs, process::Command, time::Duration};

use harness::{Netns, traffic::Sniffer};
use ipnet::IpNet;
use nix::errno::Errno;
use overlay_common::Mac;
use overlay_user::{
    netlink::{MAIN_TABLE, Netlink, OverlayRoute, RouteEntry},
    sysctl,
};

use crate::namespace::{Elsewhere, bridge_with_container, in_namespace, ip, json, link, run};

/// A protocol number of nobody else's.
const OURS: u8 = 239;

/// `ETHERTYPE` and `next header` of a packet's first bytes: IPv6 and ICMPv6.
const ICMPV6: ([u8; 2], u8) = ([0x86, 0xdd], 58);

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn overlay_route(prefix: &str, ifindex: u32, mtu: u32) -> OverlayRoute {
    let prefix = net(prefix);
    let (table, gateway) = (MAIN_TABLE, prefix.network());
    OverlayRoute { table, prefix, gateway, ifindex, source: ip("fd00:17::1"), mtu }
}

/// The bridge and its container with IPv6 subnets, as Docker makes them, on a host that forwards.
async fn bridge(netlink: &Netlink) -> (u32, Elsewhere) {
    let container = bridge_with_container();
    run("ip -6 address add fd00:17::1/64 dev br0 nodad");
    container.run("ip -6 address add fd00:17::2/64 dev eth0 nodad");
    container.run("ip -6 route add default via fd00:17::1");
    sysctl::set(&sysctl::ipv6_conf("all", "forwarding"), "1").unwrap();
    (link(netlink, "br0").await.index, container)
}

#[test]
fn routes_are_set_replaced_and_deleted_in_each_table() {
    in_namespace(async |netlink, _| {
        let (br0, _container) = bridge(&netlink).await;
        assert_eq!(netlink.routes(OURS).await.unwrap(), []);
        let (big, small) =
            (overlay_route("fd00:27::/48", br0, 1430), overlay_route("fd00:9:8::/64", br0, 1430));
        let elsewhere = OverlayRoute { table: 790_000_004, ..big };
        for route in [big, small, elsewhere, big] {
            netlink.replace_route(&route, OURS).await.unwrap();
        }
        let mut routes = netlink.routes(OURS).await.unwrap();
        routes.sort_by_key(|route| (route.table, route.prefix));
        assert_eq!(routes, [small, big, elsewhere]);
        let told = &json(&format!("ip -6 -j -d route show fd00:27::/48 proto {OURS}"))[0];
        assert_eq!((&told["gateway"], &told["dev"]), (&"fd00:27::".into(), &"br0".into()), "{told}");
        assert_eq!(told["prefsrc"], "fd00:17::1", "{told}");
        assert!(told["flags"].as_array().unwrap().contains(&"onlink".into()), "{told}");
        assert!(told["metrics"].to_string().contains("1430"), "{told}");

        let smaller = OverlayRoute { mtu: 1280, ..big };
        netlink.replace_route(&smaller, OURS).await.unwrap();
        let main = |routes: Vec<OverlayRoute>| -> Vec<_> {
            routes
                .into_iter()
                .filter(|route| route.table == MAIN_TABLE && route.prefix == big.prefix)
                .collect()
        };
        assert_eq!(main(netlink.routes(OURS).await.unwrap()), [smaller], "one, and no multipath of both");
        for route in [smaller, smaller, small, elsewhere] {
            netlink.delete_route(&route, OURS).await.unwrap();
        }
        assert_eq!(netlink.routes(OURS).await.unwrap(), []);
        run("ip link delete br0");
        netlink.delete_route(&small, OURS).await.unwrap();
    });
}

#[test]
fn a_route_in_another_shape_differs_from_the_wanted_one() {
    in_namespace(async |netlink, _| {
        let (br0, _container) = bridge(&netlink).await;
        let wanted = overlay_route("fd00:27::/64", br0, 1400);
        netlink.replace_route(&wanted, OURS).await.unwrap();
        run(&format!("ip -6 route add fd00:28::/64 dev br0 metric 7 proto {OURS}"));
        let none = ip("::");
        let bare =
            OverlayRoute { prefix: net("fd00:28::/64"), gateway: none, source: none, mtu: 0, ..wanted };
        let routes = netlink.routes(OURS).await.unwrap();
        assert!(routes.len() == 2 && routes.contains(&bare), "{routes:?}");
        netlink.delete_route(&bare, OURS).await.unwrap();
        assert_eq!(netlink.routes(OURS).await.unwrap(), [wanted]);
    });
}

#[test]
fn others_routes_are_seen_and_left_alone() {
    in_namespace(async |netlink, _| {
        let (br0, _container) = bridge(&netlink).await;
        run("ip -6 route add fd00:7::/64 via fd00:17::2 proto static");
        run("ip -6 route add blackhole fd00:6::/64");
        run("ip -6 route add default via fd00:17::2");
        assert_eq!(netlink.routes(OURS).await.unwrap(), []);
        netlink.delete_route(&overlay_route("fd00:7::/64", br0, 0), OURS).await.unwrap();
        let entry = |prefix, protocol| RouteEntry { prefix: net(prefix), ifindex: Some(br0), protocol };
        let covering = async |prefix| netlink.covering_routes(net(prefix)).await.unwrap();
        assert_eq!(covering("fd00:7::/48").await, [entry("fd00:7::/64", 4)]);
        assert_eq!(covering("fd00:17::8/128").await, [entry("fd00:17::/64", 2)]);
        assert_eq!(covering("fd00:8::/64").await, []);
        let blackhole = covering("fd00:6::/64").await;
        assert!(blackhole.len() == 1 && blackhole[0].prefix == net("fd00:6::/64"), "{blackhole:?}");
        assert!(covering("::/0").await.contains(&entry("fd00:7::/64", 4)));
        assert!(covering("0.0.0.0/0").await.iter().all(|entry| entry.prefix.addr().is_ipv4()));
    });
}

#[test]
fn a_refused_route_names_prefix_link_and_reason() {
    in_namespace(async |netlink, _| {
        let (br0, _container) = bridge(&netlink).await;
        let foreign = OverlayRoute { source: ip("2001:db8::1"), ..overlay_route("fd00:27::/64", br0, 1400) };
        let error = netlink.replace_route(&foreign, OURS).await.unwrap_err();
        assert_eq!(error.errno(), Some(Errno::EINVAL));
        let text = error.to_string();
        assert!(text.starts_with("cannot set route fd00:27::/64 dev br0: Invalid argument"), "{text}");
    });
}

/// This thread's namespace, for those who work on threads of their own.
fn here() -> Netns {
    Netns::borrow(format!("/proc/{}/task/{}/ns/net", std::process::id(), nix::unistd::gettid()))
}

/// A counter of ICMPv6 in this namespace.
fn snmp6(text: &str, name: &str) -> u64 {
    let line = text.lines().find(|line| line.split_whitespace().next() == Some(name));
    line.and_then(|line| line.split_whitespace().nth(1)).unwrap().parse().unwrap()
}

fn redirects() -> u64 {
    snmp6(&fs::read_to_string("/proc/thread-self/net/snmp6").unwrap(), "Icmp6OutRedirects")
}

/// Pings that nobody answers; what ping says of them.
fn ping(container: &Elsewhere, options: &str, to: &str) -> String {
    let line = format!("ping -6 -n -W 1 {options} {to}");
    container.with(|| {
        let output = Command::new("ping").args(line.split_whitespace().skip(1)).output().unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    })
}

/// Sets what a peer's subnet needs, through a gateway.
async fn lead(netlink: &Netlink, route: &OverlayRoute) {
    let (ifindex, gateway) = (route.ifindex, route.gateway);
    netlink.replace_permanent_neighbour(ifindex, gateway, Mac::OVERLAY_NEIGHBOUR).await.unwrap();
    netlink.replace_route(route, OURS).await.unwrap();
}

#[test]
fn what_is_routed_leaves_for_the_overlay_neighbour_and_nobody_is_redirected() {
    in_namespace(async |netlink, _| {
        let (br0, container) = bridge(&netlink).await;
        lead(&netlink, &overlay_route("fd00:27::/64", br0, 1400)).await;
        let sniffer = Sniffer::on(&here(), "br0").unwrap();
        let for_overlay = |frame: &harness::traffic::Frame| {
            frame.outgoing
                && frame.bytes[..6] == Mac::OVERLAY_NEIGHBOUR.0
                && (&frame.bytes[12..14], frame.bytes[20]) == (&ICMPV6.0[..], ICMPV6.1)
        };
        ping(&container, "-c 5 -i 0.3", "fd00:27::5");
        ping(&container, "-c 1 -s 1352 -M do", "fd00:27::5");
        // The host's own, from its address on the bridge.
        let _ = Command::new("ping").args("-6 -n -c 1 -W 1 fd00:27::5".split(' ')).output().unwrap();
        sniffer.await_count("they leave", 7, Duration::from_secs(5), for_overlay).unwrap();
        assert_eq!(redirects(), 0);

        // The same through a link-local gateway, which the kernel does tell of: the counter counts.
        let gateway = ip("fe80::6f76:6c00:fe");
        lead(&netlink, &OverlayRoute { gateway, ..overlay_route("fd00:28::/64", br0, 1400) }).await;
        ping(&container, "-c 2 -i 0.3", "fd00:28::5");
        assert!(redirects() > 0);
        let frames = sniffer.finish().unwrap();
        let last = frames.iter().rfind(|frame| for_overlay(frame)).unwrap();
        assert_eq!(last.bytes[8 + 14..24 + 14], "fd00:17::2".parse::<std::net::Ipv6Addr>().unwrap().octets());
    });
}

#[test]
fn what_is_larger_than_the_routes_mtu_is_answered_with_packet_too_big() {
    in_namespace(async |netlink, _| {
        let (br0, container) = bridge(&netlink).await;
        for (mtu, subnet) in [(1400, "fd00:27::/64"), (1280, "fd00:28::/64")] {
            let route = overlay_route(subnet, br0, mtu);
            lead(&netlink, &route).await;
            let to = format!("{}5", route.gateway);
            let fits = ping(&container, &format!("-c 1 -M do -s {}", mtu - 48), &to);
            assert!(!fits.contains("too big"), "{fits}");
            let large = ping(&container, &format!("-c 1 -M do -s {}", mtu - 47), &to);
            let told = format!("From fd00:17::1 icmp_seq=1 Packet too big: mtu={mtu}");
            assert!(large.contains(&told), "{large}");
            // A smaller one later is taken over at once: a path may shrink.
            if mtu > 1280 {
                netlink.replace_route(&OverlayRoute { mtu: 1300, ..route }, OURS).await.unwrap();
                let other = ping(&container, "-c 1 -M do -s 1300", &format!("{}6", route.gateway));
                assert!(other.contains("Packet too big: mtu=1300"), "{other}");
            }
        }
    });
}
