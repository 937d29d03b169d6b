//! What the monitor reports while links, neighbours, addresses and routes change.

use std::{collections::BTreeSet, fs, net::Ipv4Addr, time::Duration};

use overlay_common::Mac;
use overlay_user::netlink::{Event, FdbEntry, FdbKind, Link, Monitor, Neighbour, NudState};

use crate::namespace::{
    Elsewhere, PATIENCE, bridge_with_container, in_namespace, ip, link, mac_in, run, wire,
};

/// Waits for an event that `wanted` makes something of; the failure lists those that came instead.
pub(crate) async fn expect<T>(monitor: &mut Monitor, what: &str, wanted: impl Fn(&Event) -> Option<T>) -> T {
    let mut seen = Vec::new();
    let found = tokio::time::timeout(PATIENCE, async {
        loop {
            let event = monitor.next().await.expect("the monitor has ended");
            if let Some(found) = wanted(&event) {
                return found;
            }
            seen.push(event);
        }
    });
    match found.await {
        Ok(found) => found,
        Err(_) => panic!("{what}: not within {PATIENCE:?}, but: {seen:#?}"),
    }
}

async fn expect_link(monitor: &mut Monitor, what: &str, wanted: impl Fn(&Link) -> bool) -> Link {
    expect(monitor, what, |event| match event {
        Event::Link(link) if wanted(link) => Some(link.clone()),
        _ => None,
    })
    .await
}

/// Everything that comes until nothing more comes.
pub(crate) async fn settle(monitor: &mut Monitor) -> Vec<Event> {
    let mut seen = Vec::new();
    while let Ok(event) = tokio::time::timeout(Duration::from_millis(300), monitor.next()).await {
        seen.push(event.expect("the monitor has ended"));
    }
    seen
}

fn expect_gone(events: &[Event], expected: &Event) {
    let gone: Vec<_> = events.iter().filter(|event| matches!(event, Event::LinkGone { .. })).collect();
    assert_eq!(gone, [expected], "{events:#?}");
}

#[test]
fn a_port_is_followed_from_birth_to_death() {
    in_namespace(async |netlink, mut monitor| {
        run("ip link add br0 up type bridge");
        run("ip link add v0 type veth peer v1");
        let born = expect_link(&mut monitor, "v0 appears", |link| link.name == "v0").await;
        let br0 = link(&netlink, "br0").await.index;
        assert_eq!((born.kind.as_deref(), born.master, born.up), (Some("veth"), None, false));
        let v0 = born.index;

        run("ip link set v0 master br0");
        let port =
            expect_link(&mut monitor, "a master", |link| link.index == v0 && link.master.is_some()).await;
        assert_eq!((port.master, port.kind.as_deref()), (Some(br0), Some("veth")));
        run("ip link set v0 up");
        expect_link(&mut monitor, "up", |link| link.index == v0 && link.up && link.master == Some(br0)).await;
        run("ip link set v0 mtu 1400");
        expect_link(&mut monitor, "an MTU", |link| link.index == v0 && link.mtu == 1400).await;
        settle(&mut monitor).await;
        run("bridge link set dev v0 hairpin on");
        let events = settle(&mut monitor).await;
        assert!(
            !events.iter().any(|event| matches!(event, Event::Link(Link { kind: None, .. }))),
            "{events:#?}"
        );
        run("ip link set v0 down");
        run("ip link set v0 name renamed");
        expect_link(&mut monitor, "a name", |link| link.index == v0 && link.name == "renamed").await;

        settle(&mut monitor).await;
        run("ip link set renamed nomaster");
        let events = settle(&mut monitor).await;
        assert!(
            events
                .iter()
                .any(|event| matches!(event, Event::Link(link) if link.index == v0 && link.master.is_none()))
        );
        assert!(!events.iter().any(|event| matches!(event, Event::LinkGone { .. })), "{events:#?}");

        run("ip link set renamed master br0");
        expect_link(&mut monitor, "a port again", |link| link.index == v0 && link.master == Some(br0)).await;
        run("ip link delete v1");
        let gone = Event::LinkGone { index: v0, name: "renamed".to_owned(), was_port_of: Some(br0) };
        expect(&mut monitor, "its end", |event| (*event == gone).then_some(())).await;
    });
}

#[test]
fn a_deleted_port_names_its_bridge() {
    in_namespace(async |netlink, mut monitor| {
        let _container = bridge_with_container();
        let (br0, port0) = (link(&netlink, "br0").await.index, link(&netlink, "port0").await.index);
        settle(&mut monitor).await;
        run("ip link delete port0");
        let gone = Event::LinkGone { index: port0, name: "port0".to_owned(), was_port_of: Some(br0) };
        expect_gone(&settle(&mut monitor).await, &gone);
        run("ip link delete br0");
        let gone = Event::LinkGone { index: br0, name: "br0".to_owned(), was_port_of: None };
        expect_gone(&settle(&mut monitor).await, &gone);
    });
}

#[test]
fn the_ports_of_a_deleted_bridge_live_on() {
    in_namespace(async |netlink, mut monitor| {
        let _container = bridge_with_container();
        let (br0, port0) = (link(&netlink, "br0").await.index, link(&netlink, "port0").await.index);
        settle(&mut monitor).await;
        run("ip link delete br0");
        let events = settle(&mut monitor).await;
        expect_gone(&events, &Event::LinkGone { index: br0, name: "br0".to_owned(), was_port_of: None });
        let last = events.iter().rev().find_map(|event| match event {
            Event::Link(link) if link.index == port0 => Some(link.master),
            _ => None,
        });
        assert_eq!(last, Some(None), "{events:#?}");
    });
}

#[test]
fn a_link_that_moves_away_is_gone_and_its_peer_says_so() {
    in_namespace(async |netlink, mut monitor| {
        let elsewhere = Elsewhere::new();
        run("ip link add v0 up type veth peer v1");
        run("ip link set v1 up");
        let (v0, v1) = (link(&netlink, "v0").await, link(&netlink, "v1").await);
        assert!(!v0.peer_elsewhere);
        settle(&mut monitor).await;
        run(&format!("ip link set v1 netns {}", elsewhere.path()));
        let events = settle(&mut monitor).await;
        expect_gone(&events, &Event::LinkGone { index: v1.index, name: "v1".to_owned(), was_port_of: None });
        let told = events
            .iter()
            .any(|event| matches!(event, Event::Link(link) if link.index == v0.index && link.peer_elsewhere));
        assert!(told, "{events:#?}");
    });
}

#[test]
fn a_ping_brings_a_neighbour_and_an_fdb_entry() {
    in_namespace(async |netlink, mut monitor| {
        let container = bridge_with_container();
        let mac = mac_in(&container.run("ip -j link show eth0"));
        let (br0, port0) = (link(&netlink, "br0").await.index, link(&netlink, "port0").await.index);
        container.run("ping -c 1 -W 2 10.1.0.1");
        let learned = FdbEntry { bridge: br0, ifindex: port0, mac, vlan: None, kind: FdbKind::Learned };
        expect(&mut monitor, "an FDB entry", |event| {
            matches!(event, Event::Fdb(entry) if FdbEntry { vlan: None, ..*entry } == learned).then_some(())
        })
        .await;
        run("ping -c 1 -W 2 10.1.0.2");
        let reachable =
            Neighbour { ifindex: br0, ip: ip("10.1.0.2"), mac: Some(mac), state: NudState::Reachable };
        expect(&mut monitor, "a neighbour", |event| (*event == Event::Neighbour(reachable)).then_some(()))
            .await;

        run(&format!("bridge fdb del {mac} dev port0 master"));
        expect(&mut monitor, "a forgotten address", |event| {
            matches!(event, Event::FdbGone(entry) if entry.mac == mac && entry.ifindex == port0).then_some(())
        })
        .await;
        run("ip neighbour delete 10.1.0.2 dev br0");
        expect(&mut monitor, "a neighbour's end", |event| {
            matches!(event, Event::NeighbourGone(gone) if gone.ip == ip("10.1.0.2")).then_some(())
        })
        .await;
    });
}

#[test]
fn an_address_that_moves_to_another_port_is_reported() {
    in_namespace(async |netlink, mut monitor| {
        let first = bridge_with_container();
        let second = wire("port1", None, "10.1.0.3/24");
        run("ip link set port1 master br0");
        let port1 = link(&netlink, "port1").await.index;
        let mac = mac_in(&first.run("ip -j link show eth0"));
        first.run("ping -c 1 -W 2 10.1.0.1");
        settle(&mut monitor).await;
        first.run("ip link set eth0 down");
        second.run(&format!("ip link set eth0 address {mac}"));
        second.run("ping -c 1 -W 2 10.1.0.1");
        expect(&mut monitor, "the move", |event| {
            matches!(event, Event::Fdb(entry) if entry.mac == mac && entry.ifindex == port1).then_some(())
        })
        .await;
    });
}

#[test]
fn addresses_and_routes_are_reported() {
    in_namespace(async |netlink, mut monitor| {
        run("ip link add v0 up type veth peer v1");
        let ifindex = link(&netlink, "v0").await.index;
        for verb in ["add", "delete"] {
            settle(&mut monitor).await;
            run(&format!("ip address {verb} 10.1.0.1/24 dev v0"));
            let changed = Event::Address { ifindex, ip: ip("10.1.0.1") };
            expect(&mut monitor, verb, |event| (*event == changed).then_some(())).await;
        }
        for verb in ["add", "delete"] {
            settle(&mut monitor).await;
            run(&format!("ip route {verb} blackhole 10.9.0.0/16"));
            expect(&mut monitor, verb, |event| matches!(event, Event::Route(_)).then_some(())).await;
        }
    });
}

#[test]
fn requests_and_the_monitor_work_from_tasks_side_by_side() {
    in_namespace(async |netlink, mut monitor| {
        run("ip link add v0 up type veth peer v1");
        let v0 = link(&netlink, "v0").await.index;
        let watcher = tokio::spawn(async move {
            let mut seen = BTreeSet::new();
            while seen.len() < 50 {
                if let Some(Event::Neighbour(neighbour)) = monitor.next().await {
                    seen.insert(neighbour.ip);
                }
            }
            seen
        });
        let addresses: BTreeSet<_> = (1..=50).map(|n| Ipv4Addr::new(10, 1, 0, n).into()).collect();
        let requests = addresses.iter().map(|&address| {
            let netlink = netlink.clone();
            tokio::spawn(async move {
                netlink.replace_permanent_neighbour(v0, address, Mac([2; 6])).await.unwrap();
                // A dump that nobody waits for any more must not stand in the next one's way.
                let _ = tokio::time::timeout(Duration::ZERO, netlink.links()).await;
                (netlink.links().await.unwrap().len(), netlink.neighbours(v0).await.unwrap().len())
            })
        });
        for request in requests.collect::<Vec<_>>() {
            let (links, neighbours) = request.await.unwrap();
            assert!(links == 3 && (1..=50).contains(&neighbours), "{links} {neighbours}");
        }
        let seen = tokio::time::timeout(PATIENCE, watcher).await.expect("50 neighbours").unwrap();
        assert_eq!(seen, addresses);
    });
}

/// More changes than the socket's buffer holds, none of them read: the oldest are kept by the kernel, the
/// rest is lost. None of the stale ones may come after the overrun.
#[test]
fn an_overrun_surfaces_and_nothing_stale_follows() {
    in_namespace(async |netlink, mut monitor| {
        run("ip link add v0 up type veth peer v1");
        let v0 = link(&netlink, "v0").await.index;
        settle(&mut monitor).await;
        let directory = tempfile::tempdir().unwrap();
        let batch = directory.path().join("batch");
        let line = |n: u32| {
            let verb = if n.is_multiple_of(2) { "replace" } else { "delete" };
            format!("neigh {verb} 10.1.0.9 lladdr 02:00:00:00:00:09 nud permanent dev v0\n")
        };
        fs::write(&batch, (0..40_000).map(line).collect::<String>()).unwrap();
        run(&format!("ip -batch {}", batch.display()));
        assert_eq!(monitor.next().await, Some(Event::Overrun));
        let events = settle(&mut monitor).await;
        let stale = |event: &Event| matches!(event, Event::Neighbour(_) | Event::NeighbourGone(_));
        assert!(!events.iter().any(stale), "{} events", events.len());

        netlink.replace_permanent_neighbour(v0, ip("10.1.0.8"), Mac([2; 6])).await.unwrap();
        expect(&mut monitor, "life goes on", |event| {
            matches!(event, Event::Neighbour(neighbour) if neighbour.ip == ip("10.1.0.8")).then_some(())
        })
        .await;
    });
}
