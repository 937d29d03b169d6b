//! Addresses.

use ipnet::{IpNet, Ipv4Net};
use overlay_user::sysctl;

use crate::namespace::{eventually, in_namespace, ip, json, link, run, wire};

#[test]
fn addresses_keep_their_host_bits_and_the_primary_ones_come_first() {
    in_namespace(async |netlink, _| {
        run("ip link add v0 up type veth peer v1");
        for address in
            ["10.1.0.7/24", "10.1.0.8/24", "10.2.3.4/16", "10.3.0.1 peer 10.3.0.2/32", "10.1.0.9/24"]
        {
            run(&format!("ip address add {address} dev v0"));
        }
        run("ip address add 10.9.0.1/24 dev v1");
        run("ip address add fd00::1/64 dev v0");
        let v0 = link(&netlink, "v0").await.index;
        let told = json("ip -j -4 address show dev v0");
        let told = told[0]["addr_info"].as_array().unwrap();
        let of = |secondary: bool| {
            told.iter()
                .filter(move |address| address.get("secondary").is_some() == secondary)
                .map(|address| format!("{}/{}", address["local"].as_str().unwrap(), address["prefixlen"]))
        };
        let expected: Vec<Ipv4Net> = of(false).chain(of(true)).map(|text| text.parse().unwrap()).collect();
        let addresses = netlink.ipv4_addresses(v0).await.unwrap();
        assert_eq!(addresses, expected);
        let texts: Vec<_> = addresses.iter().map(Ipv4Net::to_string).collect();
        assert_eq!(texts, ["10.1.0.7/24", "10.2.3.4/16", "10.3.0.1/32", "10.1.0.8/24", "10.1.0.9/24"]);
    });
}

#[test]
fn a_link_without_addresses_has_none() {
    in_namespace(async |netlink, _| {
        run("ip link add v0 up type veth peer v1");
        let v0 = link(&netlink, "v0").await.index;
        assert_eq!(netlink.ipv4_addresses(v0).await.unwrap(), []);
        assert_eq!(netlink.ipv4_addresses(4711).await.unwrap(), []);
    });
}

/// Addresses of the wider kind, as text, in the order in which they are given.
fn texts(addresses: &[IpNet]) -> Vec<String> {
    let wide = addresses.iter().filter(|net| !ip_is_link_local(net));
    wide.map(IpNet::to_string).collect()
}

fn ip_is_link_local(net: &IpNet) -> bool {
    matches!(net, IpNet::V6(net) if net.addr().is_unicast_link_local())
}

/// The addresses of `v0` that `ip` shows with a flag.
fn flagged(flag: &str) -> Vec<String> {
    let shown = json(&format!("ip -j -6 address show dev v0 {flag}"));
    let infos = shown.iter().filter_map(|link| link["addr_info"].as_array()).flatten();
    infos.filter_map(|info| info["local"].as_str()).map(str::to_owned).collect()
}

#[test]
fn both_families_are_told_and_what_does_not_last_is_not() {
    in_namespace(async |netlink, _| {
        let there = wire("v0", Some("10.1.0.1/24"), "10.1.0.2/24");
        there.run("ip -6 address add fd00:9::1/64 dev eth0 nodad");
        sysctl::set(&sysctl::ipv6_conf("v0", "use_tempaddr"), "2").unwrap();
        for address in [
            "fd00:1::1/64 nodad",
            "fd00:2::7/112 nodad",
            "fd00:3::1/64 nodad preferred_lft 0",
            "fd00:4::1/64 nodad mngtmpaddr",
            "fd00:5::1 peer fd00:5::2/128 nodad",
            "fd00:9::1/64",
        ] {
            run(&format!("ip -6 address add {address} dev v0"));
        }
        let v0 = link(&netlink, "v0").await.index;
        // What is to be left out has to be there.
        eventually("a duplicate", async || (flagged("dadfailed") == ["fd00:9::1"]).then_some(())).await;
        assert_eq!(flagged("deprecated"), ["fd00:3::1"]);
        eventually("a temporary address", async || {
            flagged("temporary").first().is_some_and(|text| text.starts_with("fd00:4:")).then_some(())
        })
        .await;
        let expected = ["10.1.0.1/24", "fd00:5::1/128", "fd00:4::1/64", "fd00:2::7/112", "fd00:1::1/64"];
        let addresses = netlink.addresses(v0).await.unwrap();
        assert_eq!(texts(&addresses), expected);
        eventually("a link-local address", async || {
            netlink.addresses(v0).await.unwrap().last().is_some_and(ip_is_link_local).then_some(())
        })
        .await;
        assert_eq!(netlink.ipv4_addresses(v0).await.unwrap(), ["10.1.0.1/24".parse::<Ipv4Net>().unwrap()]);
    });
}

/// A bridge without ports has no carrier, and duplicate address detection waits for one.
#[test]
fn a_tentative_address_is_none_yet() {
    in_namespace(async |netlink, _| {
        run("ip link add br0 up type bridge");
        run("ip -6 address add fd00:1::1/64 dev br0");
        run("ip -6 address add fd00:2::1/64 dev br0 nodad");
        let br0 = link(&netlink, "br0").await.index;
        assert_eq!(texts(&netlink.addresses(br0).await.unwrap()), ["fd00:2::1/64"]);
        assert_eq!(netlink.link_with_address(ip("fd00:1::1")).await.unwrap(), None);
        let _container = wire("port0", None, "10.1.0.2/24");
        run("ip link set port0 master br0");
        eventually("it is settled", async || {
            (netlink.link_with_address(ip("fd00:1::1")).await.unwrap() == Some(br0)).then_some(())
        })
        .await;
        assert_eq!(texts(&netlink.addresses(br0).await.unwrap()), ["fd00:2::1/64", "fd00:1::1/64"]);
    });
}

#[test]
fn an_address_of_this_host_is_found_on_whichever_link() {
    in_namespace(async |netlink, _| {
        let _there = wire("v0", Some("10.1.0.1/24"), "10.1.0.2/24");
        for address in ["192.0.2.1/32 dev lo", "2001:db8::1/128 dev lo nodad", "fd00:1::1/64 dev v0 nodad"] {
            run(&format!("ip address add {address}"));
        }
        run("ip -6 address add fd00:3::1/64 dev v0 nodad preferred_lft 0");
        let (lo, v0) = (link(&netlink, "lo").await.index, link(&netlink, "v0").await.index);
        for (address, holder) in [
            ("192.0.2.1", Some(lo)),
            ("2001:db8::1", Some(lo)),
            ("10.1.0.1", Some(v0)),
            ("fd00:1::1", Some(v0)),
            ("fd00:3::1", Some(v0)),
            ("10.1.0.2", None),
            ("10.1.0.255", None),
            ("fd00:1::2", None),
            ("192.0.2.2", None),
        ] {
            assert_eq!(netlink.link_with_address(ip(address)).await.unwrap(), holder, "{address}");
        }
        // A link that is down keeps its IPv4 addresses.
        run("ip link set v0 down");
        assert_eq!(netlink.link_with_address(ip("10.1.0.1")).await.unwrap(), Some(v0));
        assert_eq!(netlink.link_with_address(ip("fd00:1::1")).await.unwrap(), None);
    });
}
