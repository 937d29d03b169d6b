//! Links.

use overlay_user::netlink::Link;
use serde_json::Value;

use crate::namespace::{Elsewhere, bridge_with_container, in_namespace, json, link, run};

/// A link as `ip -j -d link` tells it; `all` turns the master's name into its index.
fn told(link: &Value, all: &[Value]) -> Link {
    let index_of =
        |name: &Value| all.iter().find(|other| other["ifname"] == *name).unwrap()["ifindex"].as_u64();
    let kind = link["linkinfo"]["info_kind"].as_str();
    Link {
        index: link["ifindex"].as_u64().unwrap() as u32,
        name: link["ifname"].as_str().unwrap().to_owned(),
        kind: kind.map(str::to_owned),
        ethernet: link["link_type"] == "ether",
        mac: (link["link_type"] == "ether").then(|| link["address"].as_str().unwrap().parse().unwrap()),
        mtu: link["mtu"].as_u64().unwrap() as u32,
        up: link["flags"].as_array().unwrap().contains(&Value::from("UP")),
        master: link.get("master").and_then(index_of).map(|index| index as u32),
        peer_elsewhere: kind == Some("veth") && link.get("link_netnsid").is_some(),
    }
}

#[test]
fn links_are_what_ip_says() {
    in_namespace(async |netlink, _| {
        let _container = bridge_with_container();
        run("ip link add with.dots mtu 1400 type veth peer other");
        run("ip link set other up");
        run("ip link add vx0 type vxlan id 7 dstport 4790 local 10.1.0.1");
        run("ip tuntap add t0 mode tun");
        run("ip tuntap add t1 mode tap");
        let all = json("ip -j -d link show");
        let expected: Vec<_> = all.iter().map(|link| told(link, &all)).collect();
        let links = netlink.links().await.unwrap();
        assert_eq!(links, expected);

        let named = |name: &str| links.iter().find(|link| link.name == name).unwrap();
        assert_eq!(named("port0").master, Some(named("br0").index));
        assert!(named("port0").peer_elsewhere && !named("with.dots").peer_elsewhere);
        assert!(named("other").up && !named("with.dots").up);
        assert_eq!((named("with.dots").mtu, named("lo").mac), (1400, None));
        assert_eq!(named("br0").kind.as_deref(), Some("bridge"));
        let (tun, tap) = (named("t0"), named("t1"));
        assert_eq!((tun.kind.as_deref(), tun.ethernet, tun.mac), (Some("tun"), false, None));
        assert_eq!((tap.kind.as_deref(), tap.ethernet, tap.mac.is_some()), (Some("tun"), true, true));
        for link in &links {
            assert_eq!(netlink.link_by_name(&link.name).await.unwrap().as_ref(), Some(link));
            assert_eq!(netlink.link_by_index(link.index).await.unwrap().as_ref(), Some(link));
        }
    });
}

#[test]
fn a_link_that_is_not_there_is_none() {
    in_namespace(async |netlink, _| {
        for name in ["docker0", "", "a-name-of-16-byt", "a-name-of-many-more-bytes", "."] {
            assert_eq!(netlink.link_by_name(name).await.unwrap(), None, "{name:?}");
        }
        for index in [0, 4711] {
            assert_eq!(netlink.link_by_index(index).await.unwrap(), None, "{index}");
        }
    });
}

#[test]
fn a_vxlan_made_elsewhere_has_no_peer() {
    in_namespace(async |netlink, _| {
        let elsewhere = Elsewhere::new();
        elsewhere.run("ip link add vx0 type vxlan id 7 dstport 4790 local 127.0.0.1");
        elsewhere.run(&format!(
            "ip link set vx0 netns /proc/{}/task/{}/ns/net",
            std::process::id(),
            nix::unistd::gettid()
        ));
        assert!(json("ip -j -d link show vx0")[0].get("link_netnsid").is_some());
        assert!(!link(&netlink, "vx0").await.peer_elsewhere);
    });
}
