//! The neighbour table and the FDB.

use std::collections::{BTreeMap, BTreeSet};

use overlay_common::Mac;
use overlay_user::{
    netlink::{FdbKind, Neighbour, Netlink, NudState},
    sysctl,
};

use crate::namespace::{bridge_with_container, eventually, in_namespace, ip, json, link, mac_in, run, wire};

async fn neighbour(netlink: &Netlink, ifindex: u32, address: &str) -> Option<Neighbour> {
    let neighbours = netlink.neighbours(ifindex).await.unwrap();
    neighbours.into_iter().find(|neighbour| neighbour.ip == ip(address))
}

async fn in_state(netlink: &Netlink, ifindex: u32, address: &str, state: NudState) -> Neighbour {
    eventually(&format!("{address} {state:?}"), async || {
        neighbour(netlink, ifindex, address).await.filter(|neighbour| neighbour.state == state)
    })
    .await
}

#[test]
fn neighbours_are_what_ip_says() {
    in_namespace(async |netlink, _| {
        let there = wire("v0", Some("10.1.0.1/24"), "10.1.0.2/24");
        run("ip link add other0 up type veth peer other1");
        run("ip neighbour add 10.1.0.77 lladdr 02:00:00:00:00:77 nud permanent dev other0");
        run("ping -c 1 -W 2 10.1.0.2");
        run("ip neighbour add 10.1.0.3 lladdr 02:00:00:00:00:03 nud permanent dev v0");
        run("ip neighbour add 10.1.0.4 lladdr 02:00:00:00:00:04 nud stale dev v0");
        run("ip neighbour add 10.1.0.5 lladdr 02:00:00:00:00:05 nud noarp dev v0");
        run("ip neighbour add proxy 10.1.0.6 dev v0");
        run("ip -6 address add fd00:1::1/64 dev v0 nodad");
        there.run("ip -6 address add fd00:1::2/64 dev eth0 nodad");
        run("ip -6 neighbour add fd00:1::2 lladdr 02:00:00:00:00:02 nud permanent dev v0");
        run("ip -6 neighbour add fd00:1::4 lladdr 02:00:00:00:00:04 nud stale dev v0");
        run("ip -6 neighbour add fd00:1::5 lladdr 02:00:00:00:00:05 nud noarp dev v0");
        run("ip -6 neighbour add proxy fd00:1::6 dev v0");
        let v0 = link(&netlink, "v0").await.index;
        let neighbours = netlink.neighbours(v0).await.unwrap();
        let ours: BTreeMap<String, (Option<String>, String)> = neighbours
            .iter()
            .map(|n| {
                (
                    n.ip.to_string(),
                    (n.mac.map(|mac| mac.to_string()), format!("{:?}", n.state).to_uppercase()),
                )
            })
            .collect();
        let told: BTreeMap<String, (Option<String>, String)> = json("ip -j neighbour show dev v0 nud all")
            .iter()
            // Multicast addresses are nobody's, and the kernel sends to them as it likes.
            .filter(|n| !ip(n["dst"].as_str().unwrap()).is_multicast())
            .map(|n| {
                let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
                (text(&n["dst"]), (n.get("lladdr").map(text), text(&n["state"][0])))
            })
            .collect();
        assert_eq!(ours, told);
        assert_eq!(ours.len(), 7, "{ours:?}");
        assert!(neighbours.iter().all(|neighbour| neighbour.is_valid() && neighbour.ifindex == v0));
        let reached = neighbour(&netlink, v0, "10.1.0.2").await.unwrap();
        assert_eq!(reached.mac, Some(mac_in(&there.run("ip -j link show eth0"))));
        assert_eq!(netlink.neighbours(4711).await.unwrap(), []);
    });
}

#[test]
fn probing_makes_the_kernel_ask() {
    in_namespace(async |netlink, _| {
        let there = wire("v0", Some("10.1.0.1/24"), "10.1.0.2/24");
        let real = mac_in(&there.run("ip -j link show eth0"));
        let v0 = link(&netlink, "v0").await.index;

        netlink.probe_neighbour(v0, ip("10.1.0.2"), None).await.unwrap();
        let found = in_state(&netlink, v0, "10.1.0.2", NudState::Reachable).await;
        assert_eq!(found.mac, Some(real));

        run("ip neighbour replace 10.1.0.2 lladdr 02:00:00:00:00:99 nud stale dev v0");
        run(&format!("ip neighbour replace 10.1.0.2 lladdr {real} nud stale dev v0"));
        netlink.probe_neighbour(v0, ip("10.1.0.2"), Some(real)).await.unwrap();
        in_state(&netlink, v0, "10.1.0.2", NudState::Reachable).await;
    });
}

#[test]
fn a_neighbour_that_does_not_answer_fails() {
    in_namespace(async |netlink, _| {
        let _there = wire("v0", Some("10.1.0.1/24"), "10.1.0.2/24");
        sysctl::set("/proc/sys/net/ipv4/neigh/v0/retrans_time_ms", "20").unwrap();
        let v0 = link(&netlink, "v0").await.index;
        for mac in [None, Some(Mac([2, 0, 0, 0, 0, 9]))] {
            netlink.probe_neighbour(v0, ip("10.1.0.9"), mac).await.unwrap();
            let probed = neighbour(&netlink, v0, "10.1.0.9").await.unwrap();
            assert_eq!((probed.is_valid(), probed.mac), (mac.is_some(), mac), "{probed:?}");
            let failed = in_state(&netlink, v0, "10.1.0.9", NudState::Failed).await;
            assert!(failed.is_failed() && !failed.is_valid());
            netlink.delete_neighbour(v0, ip("10.1.0.9")).await.unwrap();
        }
    });
}

#[test]
fn permanent_neighbours_are_set_replaced_and_deleted() {
    in_namespace(async |netlink, _| {
        let _there = wire("v0", Some("10.1.0.1/24"), "10.1.0.2/24");
        run("ping -c 1 -W 2 10.1.0.2");
        let v0 = link(&netlink, "v0").await.index;
        for mac in [Mac::OVERLAY_NEIGHBOUR, Mac::OVERLAY_NEIGHBOUR, Mac([2, 0, 0, 0, 0, 8])] {
            for address in ["10.1.0.2", "172.27.0.0"] {
                netlink.replace_permanent_neighbour(v0, ip(address), mac).await.unwrap();
                let told = json(&format!("ip -j neighbour show {address} dev v0"));
                assert_eq!(told[0]["lladdr"].as_str(), Some(mac.to_string().as_str()), "{told:?}");
                assert_eq!(told[0]["state"][0], "PERMANENT", "{told:?}");
            }
        }
        for _ in 0..2 {
            netlink.delete_neighbour(v0, ip("172.27.0.0")).await.unwrap();
            assert_eq!(neighbour(&netlink, v0, "172.27.0.0").await, None);
        }
        netlink.delete_neighbour(4711, ip("172.27.0.0")).await.unwrap();
    });
}

#[test]
fn a_refusal_names_neighbour_link_and_reason() {
    in_namespace(async |netlink, _| {
        let on_missing = netlink.replace_permanent_neighbour(4711, ip("10.1.0.9"), Mac([2; 6])).await;
        assert_eq!(
            on_missing.unwrap_err().to_string(),
            "cannot set neighbour 10.1.0.9 dev (index 4711): No such device (os error 19)"
        );
    });
}

#[test]
fn the_fdb_is_what_bridge_says() {
    in_namespace(async |netlink, _| {
        let container = bridge_with_container();
        run("bridge fdb add 02:00:00:00:00:33 dev port0 master static");
        run("ping -c 1 -W 2 10.1.0.2");
        let (br0, port0) = (link(&netlink, "br0").await, link(&netlink, "port0").await);
        let entries = netlink.fdb(br0.index).await.unwrap();

        let told: BTreeSet<_> = json("bridge -j fdb show br br0")
            .iter()
            .filter(|entry| entry.get("master").is_some_and(|master| master == "br0"))
            .map(|entry| {
                let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
                (text("mac"), text("ifname"), entry.get("vlan").and_then(|vlan| vlan.as_u64()), text("state"))
            })
            .collect();
        let ours: BTreeSet<_> = entries
            .iter()
            .map(|entry| {
                let name = if entry.ifindex == br0.index { "br0" } else { "port0" };
                let state = match entry.kind {
                    FdbKind::Local => "permanent",
                    FdbKind::Static => "static",
                    FdbKind::Learned => "",
                };
                (entry.mac.to_string(), name.to_owned(), entry.vlan.map(u64::from), state.to_owned())
            })
            .collect();
        assert_eq!(ours, told);

        let eth0 = mac_in(&container.run("ip -j link show eth0"));
        let of =
            |mac: Mac| entries.iter().find(|entry| entry.mac == mac).map(|e| (e.bridge, e.ifindex, e.kind));
        assert_eq!(of(eth0), Some((br0.index, port0.index, FdbKind::Learned)));
        assert_eq!(of(port0.mac.unwrap()), Some((br0.index, port0.index, FdbKind::Local)));
        assert_eq!(of(Mac([2, 0, 0, 0, 0, 0x33])), Some((br0.index, port0.index, FdbKind::Static)));
    });
}

#[test]
fn another_bridges_fdb_is_not_mixed_in() {
    in_namespace(async |netlink, _| {
        let _container = bridge_with_container();
        run("ip link add br1 up type bridge");
        let br1 = link(&netlink, "br1").await.index;
        let entries = netlink.fdb(br1).await.unwrap();
        assert!(!entries.is_empty() && entries.iter().all(|entry| entry.bridge == br1), "{entries:?}");
        assert_eq!(netlink.fdb(4711).await.unwrap(), []);
    });
}
