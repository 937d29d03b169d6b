//! What the monitor reports of IPv6.

use overlay_user::netlink::{Event, Neighbour, NudState};

use crate::{
    monitor::{expect, settle},
    namespace::{bridge_with_container, in_namespace, ip, link, mac_in, run, wire},
};

#[test]
fn addresses_routes_and_rules_are_reported() {
    in_namespace(async |netlink, mut monitor| {
        let _there = wire("v0", None, "10.1.0.2/24");
        let ifindex = link(&netlink, "v0").await.index;
        let changed = Event::Address { ifindex, ip: ip("fd00:1::1") };
        let mut reported = async |command: &str, event: &Event| {
            settle(&mut monitor).await;
            run(command);
            expect(&mut monitor, command, |told| (told == event).then_some(())).await;
        };
        reported("ip -6 address add fd00:1::1/64 dev v0 nodad", &changed).await;
        reported("ip -6 address change fd00:1::1/64 dev v0 preferred_lft 0", &changed).await;
        reported("ip -6 address delete fd00:1::1/64 dev v0", &changed).await;
        for verb in ["add", "delete"] {
            let command = format!("ip -6 route {verb} blackhole fd00:9::/64");
            settle(&mut monitor).await;
            run(&command);
            let told = |told: &Event| match told {
                Event::Route(change) => Some((change.entry.prefix.to_string(), change.gone)),
                _ => None,
            };
            let change = expect(&mut monitor, &command, told).await;
            assert_eq!(change, ("fd00:9::/64".to_owned(), verb == "delete"));
            let command = format!("ip -6 rule {verb} pref 7900 lookup 7900");
            settle(&mut monitor).await;
            run(&command);
            expect(&mut monitor, &command, |told| (*told == Event::Routing).then_some(())).await;
        }
    });
}

/// Until then the address is nobody's, and nothing can be built on it.
#[test]
fn the_end_of_duplicate_address_detection_is_reported() {
    in_namespace(async |netlink, mut monitor| {
        let _there = wire("v0", None, "10.1.0.2/24");
        let ifindex = link(&netlink, "v0").await.index;
        run("ip -6 address add fd00:1::1/64 dev v0");
        assert_eq!(netlink.link_with_address(ip("fd00:1::1")).await.unwrap(), None);
        let changed = Event::Address { ifindex, ip: ip("fd00:1::1") };
        loop {
            expect(&mut monitor, "it is settled", |told| (*told == changed).then_some(())).await;
            if netlink.link_with_address(ip("fd00:1::1")).await.unwrap() == Some(ifindex) {
                break;
            }
        }
    });
}

#[test]
fn a_ping_brings_a_neighbour() {
    in_namespace(async |netlink, mut monitor| {
        let container = bridge_with_container();
        run("ip -6 address add fd00:1::1/64 dev br0 nodad");
        container.run("ip -6 address add fd00:1::2/64 dev eth0 nodad");
        let mac = Some(mac_in(&container.run("ip -j link show eth0")));
        let ifindex = link(&netlink, "br0").await.index;
        run("ping -n -c 1 -W 2 fd00:1::2");
        let reachable = Neighbour { ifindex, ip: ip("fd00:1::2"), mac, state: NudState::Reachable };
        expect(&mut monitor, "a neighbour", |told| (*told == Event::Neighbour(reachable)).then_some(()))
            .await;
        run("ip -6 neighbour delete fd00:1::2 dev br0");
        expect(&mut monitor, "its end", |told| {
            matches!(told, Event::NeighbourGone(gone) if gone.ip == ip("fd00:1::2")).then_some(())
        })
        .await;
    });
}
