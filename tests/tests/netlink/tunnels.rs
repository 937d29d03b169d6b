//! VXLAN devices and their VNI filters.

use std::collections::BTreeSet;

use nix::errno::Errno;
use overlay_common::Encap;
use overlay_user::netlink::{Netlink, TunnelSettings, UdpTunnel};
use serde_json::{Value, json as value};

use crate::namespace::{in_namespace, json, link, run};

fn settings(name: &str, port: u16) -> TunnelSettings {
    TunnelSettings {
        encap: Encap::Vxlan,
        name: name.to_owned(),
        alias: "ours",
        mac: "02:00:00:00:00:09".parse().unwrap(),
        port,
        mtu: 65_000,
        gso_max_size: 60_000,
        source_ports: (49_152, 65_535),
    }
}

async fn create(netlink: &Netlink, settings: &TunnelSettings) -> u32 {
    netlink.create_tunnel(settings).await.unwrap();
    link(netlink, &settings.name).await.index
}

async fn vxlan(netlink: &Netlink, name: &str) -> UdpTunnel {
    let all = netlink.udp_tunnels().await.unwrap();
    all.into_iter().find(|vxlan| vxlan.link.name == name).unwrap()
}

/// As `bridge vni` tells it: single ones and ranges.
fn told_vnis(name: &str) -> Vec<(u64, u64)> {
    let told = json("bridge -j vni show");
    let device = told.iter().find(|device| device["ifname"] == name);
    let entries = device.and_then(|device| device["vnis"].as_array()).into_iter().flatten();
    let number = |entry: &Value, key: &str| entry[key].as_u64();
    entries
        .map(|entry| {
            let start = number(entry, "vni").unwrap();
            (start, number(entry, "vniEnd").unwrap_or(start))
        })
        .collect()
}

#[test]
fn a_tunnel_device_is_what_was_asked_for_and_down() {
    in_namespace(async |netlink, _| {
        let settings = settings("t0", 4790);
        let index = create(&netlink, &settings).await;
        netlink.set_tunnel(index, &settings).await.unwrap();
        netlink.no_ipv6_addresses(index, "t0").await.unwrap();
        let told = &json("ip -d -j link show t0")[0];
        let data = &told["linkinfo"]["info_data"];
        for (key, expected) in [
            ("external", value!(true)),
            ("vnifilter", value!(true)),
            ("learning", value!(false)),
            ("udp_zero_csum6_rx", value!(true)),
            ("port", value!(4790)),
            ("port_range", value!({"low": 49_152, "high": 65_535})),
        ] {
            assert_eq!(data[key], expected, "{key}");
        }
        for (key, expected) in [
            ("address", value!("02:00:00:00:00:09")),
            ("mtu", value!(65_000)),
            ("ifalias", value!("ours")),
            ("inet6_addr_gen_mode", value!("none")),
            ("gso_max_size", value!(60_000)),
            ("operstate", value!("DOWN")),
        ] {
            assert_eq!(told[key], expected, "{key}");
        }
        assert!(told["flags"].as_array().unwrap().contains(&value!("NOARP")));
        assert_eq!(told_vnis("t0"), []);
        let read = vxlan(&netlink, "t0").await;
        assert_eq!(read.link, link(&netlink, "t0").await);
        assert!(read.external && read.vni_filter && !read.learning && !read.arp && !read.link.up);
        assert!(
            read.udp6_zero_checksum && !told["linkinfo"]["info_data"]["udp_zero_csum6_tx"].as_bool().unwrap()
        );
        assert_eq!((read.port, read.vni, read.gso_max_size), (4790, 0, 60_000));
        assert_eq!(read.alias.as_deref(), Some("ours"));
    });
}

#[test]
fn a_plain_vxlan_is_read_as_it_is_and_other_links_are_none() {
    in_namespace(async |netlink, _| {
        run("ip link add v0 type veth peer v1");
        run("ip link add f7 type vxlan id 7 dstport 4790 local 127.0.0.1");
        run("ip link add e0 up type vxlan external dstport 4791 nolearning udp6zerocsumrx");
        let mut all = netlink.udp_tunnels().await.unwrap();
        all.sort_by_key(|vxlan| vxlan.link.index);
        let told: Vec<_> = all
            .iter()
            .map(|v| (v.link.name.as_str(), v.port, v.vni, v.external, v.vni_filter, v.learning, v.link.up))
            .collect();
        assert_eq!(
            told,
            [("f7", 4790, 7, false, false, true, false), ("e0", 4791, 0, true, false, false, true)]
        );
        assert!(all.iter().all(|vxlan| vxlan.alias.is_none() && vxlan.arp));
        assert_eq!([all[0].udp6_zero_checksum, all[1].udp6_zero_checksum], [false, true]);
    });
}

#[test]
fn vnis_come_and_go_as_bridge_tells_it() {
    in_namespace(async |netlink, _| {
        let index = create(&netlink, &settings("t0", 4790)).await;
        // More than one request takes, in runs that the kernel tells as ranges.
        let many: BTreeSet<u32> = (1..3000).filter(|vni| vni % 3 != 0).chain([16_777_215]).collect();
        for wanted in [BTreeSet::from([1]), BTreeSet::from([2, 3, 4, 9]), many, BTreeSet::new()] {
            assert!(netlink.set_vnis(index, &wanted).await.unwrap());
            let read: BTreeSet<u32> = netlink.vnis(index).await.unwrap().into_iter().flatten().collect();
            assert!(read == wanted, "{} of {}", read.len(), wanted.len());
            let told: BTreeSet<u32> =
                told_vnis("t0").into_iter().flat_map(|(a, b)| a as u32..=b as u32).collect();
            assert!(told == wanted, "bridge tells {} of {}", told.len(), wanted.len());
            assert!(!netlink.set_vnis(index, &wanted).await.unwrap(), "set twice");
        }
        run("bridge vni add vni 5-5000 dev t0");
        assert_eq!(netlink.vnis(index).await.unwrap(), [5..=5000]);
        assert!(netlink.set_vnis(index, &BTreeSet::from([7])).await.unwrap());
        assert_eq!(told_vnis("t0"), [(7, 7)]);
    });
}

#[test]
fn vnis_of_other_devices_stay_apart() {
    in_namespace(async |netlink, _| {
        let (a, b) =
            (create(&netlink, &settings("a", 4790)).await, create(&netlink, &settings("b", 4791)).await);
        netlink.set_vnis(a, &BTreeSet::from([1, 2])).await.unwrap();
        netlink.set_vnis(b, &BTreeSet::from([2])).await.unwrap();
        assert_eq!(netlink.vnis(a).await.unwrap(), [1..=2]);
        assert_eq!(netlink.vnis(b).await.unwrap(), [2..=2]);
        assert_eq!(netlink.vnis(4711).await.unwrap(), []);
        run("ip link add plain type vxlan id 7 dstport 4792");
        let plain = link(&netlink, "plain").await.index;
        for (name, index) in [("plain", plain), ("lo", link(&netlink, "lo").await.index)] {
            let error = netlink.set_vnis(index, &BTreeSet::from([7])).await.unwrap_err();
            let expected = format!("cannot list the VNIs of {name}: Invalid argument");
            assert!(error.to_string().starts_with(&expected), "{error}");
        }
    });
}

#[test]
fn links_go_up_and_down_and_away() {
    in_namespace(async |netlink, _| {
        let index = create(&netlink, &settings("t0", 4790)).await;
        for up in [true, false] {
            netlink.set_link_up(index, "t0", up).await.unwrap();
            assert_eq!(link(&netlink, "t0").await.up, up);
        }
        let error = netlink.create_tunnel(&settings("t0", 4791)).await.unwrap_err();
        assert_eq!(error.errno(), Some(Errno::EEXIST));
        for _ in 0..2 {
            netlink.delete_link(index, "t0").await.unwrap();
            assert_eq!(netlink.link_by_name("t0").await.unwrap(), None);
        }
    });
}

#[test]
fn the_port_of_a_device_that_is_up_is_taken() {
    in_namespace(async |netlink, _| {
        run("ip link add f7 up type vxlan id 7 dstport 4790 local 127.0.0.1");
        let index = create(&netlink, &settings("t0", 4790)).await;
        let error = netlink.set_link_up(index, "t0", true).await.unwrap_err();
        assert_eq!(error.errno(), Some(Errno::EADDRINUSE), "{error}");
        assert!(error.to_string().starts_with("cannot set t0 up: "), "{error}");
        run("ip link set f7 down");
        netlink.set_link_up(index, "t0", true).await.unwrap();
        assert!(run_fails("ip link set f7 up").contains("Address already in use"));
    });
}

fn run_fails(line: &str) -> String {
    let mut words = line.split_whitespace();
    let output = std::process::Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(!output.status.success(), "`{line}` succeeded");
    String::from_utf8(output.stderr).unwrap()
}
