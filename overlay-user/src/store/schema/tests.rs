//! Keys and values as flannel, people and accidents write them.

mod flannel;

use overlay_common::{Encap, Mac, Vni};
use proptest::prelude::*;

use super::*;
use crate::{
    store::{Announcement, NetworkConfig, PeerSubnet},
    underlay::Underlay,
};

const MAC: Mac = Mac([0xc6, 0xd2, 0x32, 0x6f, 0x8f, 0x44]);

fn peers(name: &str, value: &str) -> Vec<PeerSubnet> {
    match parse_lease(name, value.as_bytes()) {
        Ok(Lease::Peer(peers)) => peers,
        other => panic!("{name} {value}: {other:?}"),
    }
}

fn peer(name: &str, value: &str) -> PeerSubnet {
    let [peer] = &peers(name, value)[..] else { panic!("{name} {value}: one subnet was expected") };
    peer.clone()
}

fn subnets(v4: &str, v6: Option<&str>) -> Subnets {
    Subnets { v4: v4.parse().unwrap(), v6: v6.map(|v6| v6.parse().unwrap()) }
}

fn host(v4: Option<&str>, v6: Option<&str>) -> Underlay {
    Underlay::new(v4.map(|v4| v4.parse().unwrap()), v6.map(|v6| v6.parse().unwrap())).unwrap()
}

#[test]
fn a_value_that_flannel_wrote() {
    let value = r#"{"PublicIP":"192.168.64.3","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":7,"VtepMAC":"c6:d2:32:6f:8f:44"}}"#;
    let expected = PeerSubnet {
        subnet: "10.5.52.0/24".parse().unwrap(),
        host: host(Some("192.168.64.3"), None),
        src_ips: Vec::new(),
        routed: false,
        encap: Encap::Vxlan,
        vni: Vni::new(7).ok(),
        port: None,
        gre_key: None,
        bridge: None,
        vtep_mac: Some(MAC),
        zero_checksum: false,
    };
    assert_eq!(peer("10.5.52.0-24", value), expected);
    let second = PeerSubnet { subnet: "fc00:1::/64".parse().unwrap(), ..expected.clone() };
    assert_eq!(peers("10.5.52.0-24&fc00:1::-64", value), [expected.clone(), second]);
    assert_eq!(owner(value.as_bytes()), Some(expected.host));
    let ours = Announcement {
        subnets: subnets("10.5.52.0/24", None),
        host: expected.host,
        src_ips: Vec::new(),
        vni: 7,
        vtep_mac: MAC.to_string(),
        encap: Encap::Vxlan,
    };
    assert_eq!(lease_value(&ours), value);
    // Behind NAT packets come from elsewhere.
    let behind = Announcement { src_ips: vec![[203, 0, 113, 9].into()], ..ours.clone() };
    let told = lease_value(&behind);
    assert!(told.ends_with(r#","Overlayd":{"SrcIPs":["203.0.113.9"]}}"#), "{told}");
    assert_eq!(peer("10.5.52.0-24", &told), PeerSubnet { src_ips: behind.src_ips, ..expected.clone() });
    for (wrong, named) in [
        (r#""203.0.113.9""#, "a list of addresses"),
        (r#"["127.0.0.1"]"#, "loopback"),
        ("[7]", "Overlayd.SrcIPs 7"),
    ] {
        let value = value.replace("}}", &format!(r#"}},"Overlayd":{{"SrcIPs":{wrong}}}}}"#));
        let error = parse_lease("10.5.52.0-24", value.as_bytes()).unwrap_err();
        assert!(error.contains("Overlayd.SrcIPs") && error.contains(named), "{error}");
    }
    // A network behind the host, which its kernel routes for.
    let routed = routed_value(value.as_bytes()).unwrap();
    assert!(routed.contains(r#""Routed":true"#), "{routed}");
    assert_eq!(peer("10.5.52.0-24", &routed), PeerSubnet { routed: true, ..expected.clone() });
    assert!(is_routed(routed.as_bytes()) && !is_routed(value.as_bytes()));
    // flannel's name for it. The VTEP stays in there, for hosts on other links.
    let ours = Announcement { encap: Encap::Direct, ..ours };
    let value = value.replace("vxlan", "host-gw");
    assert_eq!(lease_value(&ours), value);
    assert_eq!(peer("10.5.52.0-24", &value), PeerSubnet { encap: Encap::Direct, ..expected });
    assert_eq!(subnet_key("/n", ours.subnets), "/n/subnets/10.5.52.0-24");
}

#[test]
fn a_dual_stack_value_that_flannel_wrote() {
    let value = r#"{"PublicIP":"192.168.64.3","PublicIPv6":"2001:db8::3","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"},"BackendV6Data":{"VNI":2,"VtepMAC":"c6:d2:32:6f:8f:45"}}"#;
    let [v4, v6] = &peers("10.5.52.0-24&fc00:1::-64", value)[..] else { panic!("two subnets") };
    let both = host(Some("192.168.64.3"), Some("2001:db8::3"));
    assert_eq!((v4.host, v6.host, v4.zero_checksum, v6.zero_checksum), (both, both, false, false));
    assert_eq!((v4.vni.map(Vni::get), v6.vni.map(Vni::get)), (Some(1), Some(2)));
    assert_eq!((v4.vtep_mac, v6.vtep_mac.map(|mac| mac.0[5])), (Some(MAC), Some(0x45)));
    assert_eq!(owner(value.as_bytes()), Some(both));
    // A key without an IPv6 part: its subnet may be reached over IPv6 all the same.
    assert_eq!(peer("10.5.52.0-24", value), *v4);
}

#[test]
fn what_we_write_of_each_kind() {
    let (alone, dual) = (subnets("10.5.52.0/24", None), subnets("10.5.52.0/24", Some("fc00:1::/64")));
    let (v4, v6) = ("192.168.64.3", "2001:db8::3");
    for (subnets, host, value) in [
        (
            dual,
            host(Some(v4), Some(v6)),
            r#"{"PublicIP":"192.168.64.3","PublicIPv6":"2001:db8::3","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"},"BackendV6Data":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"},"Overlayd":{"UDP6ZeroChecksum":true}}"#,
        ),
        (
            dual,
            host(Some(v4), None),
            r#"{"PublicIP":"192.168.64.3","PublicIPv6":"::","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"},"BackendV6Data":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}}"#,
        ),
        (
            alone,
            host(None, Some(v6)),
            r#"{"PublicIP":"0.0.0.0","PublicIPv6":"2001:db8::3","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"},"Overlayd":{"UDP6ZeroChecksum":true}}"#,
        ),
    ] {
        let ours = Announcement {
            subnets,
            host,
            src_ips: Vec::new(),
            vni: 1,
            vtep_mac: MAC.to_string(),
            encap: Encap::Vxlan,
        };
        assert_eq!(lease_value(&ours), value);
        assert_eq!(owner(value.as_bytes()), Some(host));
        let zero_checksum = host.v6().is_some();
        for peer in peers(&subnet_name(subnets), value) {
            assert_eq!((peer.host, peer.zero_checksum), (host, zero_checksum), "{value}");
        }
    }
}

#[test]
fn flannels_ways_to_say_none() {
    for (value, expected) in [
        (r#"{"PublicIP":"192.0.2.7","BackendType":"vxlan"}"#, host(Some("192.0.2.7"), None)),
        (
            r#"{"PublicIP":"192.0.2.7","PublicIPv6":"::","BackendType":"vxlan"}"#,
            host(Some("192.0.2.7"), None),
        ),
        (
            r#"{"PublicIP":"0.0.0.0","PublicIPv6":"2001:db8::7","BackendType":"vxlan"}"#,
            host(None, Some("2001:db8::7")),
        ),
        (
            r#"{"PublicIP":null,"PublicIPv6":"2001:db8::7","BackendType":"vxlan"}"#,
            host(None, Some("2001:db8::7")),
        ),
        (r#"{"PublicIPv6":"2001:db8::7","BackendType":"vxlan"}"#, host(None, Some("2001:db8::7"))),
    ] {
        assert_eq!(peer("10.9.0.0-24", value).host, expected, "{value}");
        assert_eq!(owner(value.as_bytes()), Some(expected), "{value}");
    }
}

#[test]
fn zero_checksums_only_where_the_value_says_so() {
    for (extras, expected) in [
        ("", false),
        (r#","Overlayd":null"#, false),
        (r#","Overlayd":{}"#, false),
        (r#","Overlayd":{"UDP6ZeroChecksum":null}"#, false),
        (r#","Overlayd":{"UDP6ZeroChecksum":false}"#, false),
        (r#","Overlayd":{"UDP6ZeroChecksum":true,"More":1}"#, true),
    ] {
        let value = format!(r#"{{"PublicIPv6":"2001:db8::7","BackendType":"vxlan"{extras}}}"#);
        assert_eq!(peer("10.9.0.0-24", &value).zero_checksum, expected, "{value}");
    }
}

#[test]
fn the_least_that_is_enough() {
    let peer = peer("10.9.0.0-24", r#"{"PublicIP":"192.0.2.7","BackendType":"vxlan"}"#);
    assert_eq!((peer.vni, peer.port, peer.vtep_mac), (None, None, None));
}

#[test]
fn every_kind_is_read_with_its_key() {
    for (kind, encap) in [
        ("vxlan", Encap::Vxlan),
        ("host-gw", Encap::Direct),
        ("geneve", Encap::Geneve),
        ("gre", Encap::Gre),
        ("gre-l3", Encap::GreL3),
        ("ipip", Encap::Ipip),
    ] {
        let value = format!(
            r#"{{"PublicIP":"192.0.2.7","BackendType":"{kind}","BackendData":{{"GREKey":4294967295}}}}"#
        );
        let peer = peer("10.9.0.0-24", &value);
        assert_eq!((peer.encap, peer.gre_key), (encap, Some(u32::MAX)));
    }
    let value = r#"{"PublicIP":"192.0.2.7","BackendType":"gre","BackendData":{"GREKey":4294967296}}"#;
    assert!(parse_lease("10.9.0.0-24", value.as_bytes()).unwrap_err().contains("BackendData.GREKey"));
}

#[test]
fn other_backends_are_ignored_by_name() {
    for value in [r#"{"PublicIP":"192.0.2.7","BackendType":"wireguard"}"#, r#"{"PublicIP":"192.0.2.7"}"#] {
        let Ok(Lease::Ignored(why)) = parse_lease("10.9.0.0-24", value.as_bytes()) else { panic!("{value}") };
        assert!(why.contains("BackendType"), "{why}");
    }
}

#[test]
fn malformed_names() {
    for name in [
        "",
        "x",
        "10.9.0.0",
        "10.9.0.0-",
        "10.9.0.0-33",
        "10.9.0.0-+24",
        "10.9.0.0-024",
        "10.09.0.0-24",
        "10.9.0-24",
        "10.9.0.0/24",
        "10.9.0.1-24",
        "0.0.0.0-0",
        "127.0.0.0-8",
        "224.0.0.0-24",
        "10.9.0.0-24/x",
        "10.9.0.0-24&",
        "10.9.0.0-24&zz-64",
        "10.9.0.0-24&fc00::-129",
        "10.9.0.0-24&fc00::-+64",
        "10.9.0.0-24&fc00::-064",
        "10.9.0.0-24&fc00:0::-64",
        "10.9.0.0-24&FC00::-64",
        "10.9.0.0-24&fc00:0:0:0:0:0:0:0-64",
        "10.9.0.0-24&fc00::1-64",
        "10.9.0.0-24&fc00::-64&fc00::-64",
        "10.9.0.0-24&::-0",
        "10.9.0.0-24&::ffff:10.9.0.0-120",
        "10.9.0.0-24&fe80::-64",
        "10.9.0.0-24&ff02::-64",
        "fc00::-64",
    ] {
        let error = parse_subnet_name(name).expect_err(name);
        assert!(error.starts_with("the key") && error.contains("expected"), "{name}: {error}");
    }
}

#[test]
fn malformed_values_name_the_field() {
    for (value, says) in [
        ("", "no JSON"),
        ("[]", "no JSON object"),
        ("{", "no JSON"),
        (r#"{"BackendType":"vxlan"}"#, "PublicIP is missing"),
        (r#"{"BackendType":"vxlan","PublicIP":null}"#, "PublicIP is missing"),
        (r#"{"BackendType":"vxlan","PublicIP":7}"#, "PublicIP is 7"),
        (r#"{"BackendType":"vxlan","PublicIP":"banana"}"#, "PublicIP \"banana\""),
        (r#"{"BackendType":"vxlan","PublicIP":"127.0.0.1"}"#, "PublicIP \"127.0.0.1\" is a loopback"),
        (r#"{"BackendType":"vxlan","PublicIP":"239.0.0.1"}"#, "multicast"),
        (r#"{"BackendType":"vxlan","PublicIP":"0.0.0.0"}"#, "PublicIP is missing"),
        (r#"{"BackendType":"vxlan","PublicIP":"0.0.0.0","PublicIPv6":"::"}"#, "PublicIP is missing"),
        (r#"{"BackendType":"vxlan","PublicIP":"0.0.0.7"}"#, "this network"),
        (r#"{"BackendType":"vxlan","PublicIP":"2001:db8::7"}"#, "no IPv4 address"),
        (
            r#"{"BackendType":"vxlan","PublicIPv6":"192.0.2.7"}"#,
            "PublicIPv6 \"192.0.2.7\" is no IPv6 address",
        ),
        (r#"{"BackendType":"vxlan","PublicIPv6":7}"#, "PublicIPv6 is 7"),
        (r#"{"BackendType":"vxlan","PublicIPv6":"fe80::7"}"#, "link-local"),
        (r#"{"BackendType":"vxlan","PublicIPv6":"::1"}"#, "loopback"),
        (r#"{"BackendType":"vxlan","PublicIPv6":"ff02::1"}"#, "multicast"),
        (r#"{"BackendType":"vxlan","PublicIPv6":"::ffff:192.0.2.7"}"#, "v4-mapped"),
        (r#"{"BackendType":"vxlan","PublicIPv6":"fd00:9::7"}"#, "inside the subnet fd00:9::/64"),
        (r#"{"BackendType":"vxlan","PublicIP":"192.0.2.7","PublicIPv6":"x"}"#, "PublicIPv6 \"x\""),
        (
            r#"{"BackendType":"vxlan","PublicIP":"192.0.2.7","BackendV6Data":{"VNI":0}}"#,
            "BackendV6Data.VNI is 0",
        ),
        (r#"{"BackendType":"vxlan","PublicIP":"192.0.2.7","Overlayd":1}"#, "Overlayd is 1"),
        (
            r#"{"BackendType":"vxlan","PublicIP":"192.0.2.7","Overlayd":{"UDP6ZeroChecksum":"yes"}}"#,
            "Overlayd.UDP6ZeroChecksum is \"yes\"",
        ),
        (r#"{"BackendType":"vxlan","PublicIP":"10.9.0.3"}"#, "inside the subnet"),
        (r#"{"BackendType":1,"PublicIP":"192.0.2.7"}"#, "BackendType is 1"),
        (r#"{"BackendType":"vxlan","PublicIP":"192.0.2.7","BackendData":3}"#, "BackendData is 3"),
        (r#"{"BackendType":"vxlan","PublicIP":"192.0.2.7","BackendData":{"VNI":0}}"#, "BackendData.VNI is 0"),
        (
            r#"{"BackendType":"vxlan","PublicIP":"192.0.2.7","BackendData":{"VNI":16777216}}"#,
            "BackendData.VNI",
        ),
        (
            r#"{"BackendType":"vxlan","PublicIP":"192.0.2.7","BackendData":{"Port":65536}}"#,
            "BackendData.Port",
        ),
        (
            r#"{"BackendType":"vxlan","PublicIP":"192.0.2.7","BackendData":{"VtepMAC":"x"}}"#,
            "BackendData.VtepMAC",
        ),
    ] {
        let error = parse_lease("10.9.0.0-24&fd00:9::-64", value.as_bytes()).expect_err(value);
        assert!(error.contains(says), "{value}: {error}");
    }
}

#[test]
fn configurations() {
    let config = |network: &str, vni, port| {
        let (network, vni) = (network.parse().ok(), Vni::new(vni).ok());
        Ok(NetworkConfig { network, network_v6: None, ipv6: Some(false), vni, port: Some(port) })
    };
    for (value, expected) in [
        ("{}", config("", 1, 8472)),
        (r#"{"Network":"10.5.0.0/16"}"#, config("10.5.0.0/16", 1, 8472)),
        (r#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}"#, config("10.5.0.0/16", 1, 8472)),
        (
            r#"{"Network":"10.5.3.0/16","Backend":{"Type":"vxlan","VNI":9,"Port":4789}}"#,
            config("10.5.0.0/16", 9, 4789),
        ),
        (
            r#"{"network":"10.5.0.0/16","backend":{"type":"vxlan","vni":9,"port":0}}"#,
            config("10.5.0.0/16", 9, 8472),
        ),
    ] {
        assert_eq!(parse_config(value.as_bytes()), expected, "{value}");
    }
    for (value, says) in [
        ("nonsense", "no JSON"),
        (r#"{"Network":"10.5.0.0"}"#, "Network \"10.5.0.0\""),
        (r#"{"Network":"0.0.0.0/0"}"#, "Network"),
        (r#"{"EnableIPv6":1}"#, "EnableIPv6 is 1"),
        (r#"{"IPv6Network":"fd00:5::"}"#, "IPv6Network \"fd00:5::\" is no subnet"),
        (r#"{"IPv6Network":"10.5.0.0/16"}"#, "IPv6Network \"10.5.0.0/16\" is no subnet"),
        (r#"{"IPv6Network":"::/0"}"#, "IPv6Network \"::/0\" would take every address"),
        (r#"{"IPv6Network":"ff00::/16","EnableIPv6":true}"#, "multicast"),
        (r#"{"Backend":{"Type":"wireguard"}}"#, "Backend.Type \"wireguard\""),
        (r#"{"Backend":{"VNI":"1"}}"#, "Backend.VNI is \"1\""),
        (r#"{"Backend":{"Port":70000}}"#, "Backend.Port is 70000"),
        (r#"{"Backend":"vxlan"}"#, "Backend is \"vxlan\""),
    ] {
        let error = parse_config(value.as_bytes()).expect_err(value);
        assert!(error.contains(says), "{value}: {error}");
    }
}

#[test]
fn an_ipv6_network_counts_where_it_is_enabled() {
    let network = |value: &str| parse_config(value.as_bytes()).unwrap().network_v6.map(|net| net.to_string());
    let on = r#"{"IPv6Network":"fd00:5::7/48","EnableIPv6":true}"#;
    assert_eq!(network(on).as_deref(), Some("fd00:5::/48"), "without host bits, as flannel takes it");
    assert_eq!(network(r#"{"ipv6network":"fd00:5::/48","enableipv6":true}"#).as_deref(), Some("fd00:5::/48"));
    assert_eq!(network(r#"{"IPv6Network":"fd00:5::/48"}"#), None);
    assert_eq!(network(r#"{"IPv6Network":"fd00:5::/48","EnableIPv6":false}"#), None);
    assert_eq!(network(r#"{"EnableIPv6":true}"#), None);
}

proptest! {
    #[test]
    fn nothing_panics(name in ".{0,40}", value: Vec<u8>) {
        let _ = parse_lease(&name, &value);
        let _ = parse_lease("10.9.0.0-24", &value);
        let _ = parse_config(&value);
        let _ = owner(&value);
    }

    #[test]
    fn almost_good_names_and_values_never_panic(
        name in "[0-9]{1,3}\\.[0-9]{1,3}\\.[0-9]{1,3}\\.[0-9]{1,3}-[0-9]{1,3}(&[a-f0-9:]{0,12}-[0-9]{1,3})?",
        v6 in "[0-9a-f:.]{0,20}",
        data in r#"\{"VNI":-?[0-9.e]{1,9},"VtepMAC":"[0-9a-f:]{0,17}"\}|null|[0-9]"#,
        value in r#"\{"(PublicIP|publicip)":("[0-9.]{0,15}"|null|[0-9]{1,20}),"BackendType":"vxlan","BackendData":(\{"VNI":-?[0-9.e]{1,9},"VtepMAC":"[0-9a-f:]{0,17}"\}|null)\}"#,
    ) {
        let dual = value.replacen('{', &format!(r#"{{"PublicIPv6":"{v6}","BackendV6Data":{data},"#), 1);
        for value in [&value, &dual] {
            for name in [&name, "10.9.0.0-24&fd00:9::-64"] {
                if let Err(fault) = parse_lease(name, value.as_bytes()) {
                    prop_assert!(!fault.is_empty() && !fault.contains('\n'), "{}", fault);
                }
            }
            let _ = owner(value.as_bytes());
        }
        let _ = parse_config(value.as_bytes());
    }

    #[test]
    fn what_we_write_reads_back(
        address in 0x0a00_0000u32..0x0b00_0000,
        length in 8u8..=32,
        v6 in proptest::option::of((0xfd00u128 << 112..0xfe00u128 << 112, 8u8..=128)),
        vni in 1u32..=Vni::MAX,
        host in (proptest::option::of(0xc000_0200u32..0xc000_0300), 0x2001_0db8u128 << 96..0x2001_0db9u128 << 96, any::<bool>()),
        mac: [u8; 6],
    ) {
        let subnets = Subnets {
            v4: Ipv4Net::new(Ipv4Addr::from(address), length).unwrap().trunc(),
            v6: v6.map(|(address, length)| Ipv6Net::new(address.into(), length).unwrap().trunc()),
        };
        let (v4, v6, only_v4) = host;
        let v6 = (v4.is_none() || !only_v4).then_some(Ipv6Addr::from(v6));
        let host = Underlay::new(v4.map(Ipv4Addr::from), v6).unwrap();
        let mac = Mac([mac[0] & 0xfe | 2, mac[1], mac[2], mac[3], mac[4], mac[5]]);
        let ours = Announcement { subnets, host, src_ips: Vec::new(), vni, vtep_mac: mac.to_string(), encap: Encap::Vxlan };
        let key = subnet_key("/overlayd/network", subnets);
        let name = key.strip_prefix(&subnets_prefix("/overlayd/network")).unwrap();
        prop_assert_eq!(parse_subnet_name(name), Ok(subnets));
        let value = lease_value(&ours);
        prop_assert_eq!(owner(value.as_bytes()), Some(host));
        let peers = peers(name, &value);
        prop_assert!(peers.iter().map(|peer| peer.subnet).eq(subnets.each()));
        for peer in peers {
            prop_assert_eq!((peer.host, peer.vni, peer.vtep_mac), (host, Vni::new(vni).ok(), Some(mac)));
            prop_assert_eq!(peer.zero_checksum, host.v6().is_some());
        }
    }
}
