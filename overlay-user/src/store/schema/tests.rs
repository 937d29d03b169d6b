//! Keys and values as flannel, people and accidents write them.

use overlay_common::Mac;
use proptest::prelude::*;

use super::*;

const MAC: Mac = Mac([0xc6, 0xd2, 0x32, 0x6f, 0x8f, 0x44]);

fn peer(name: &str, value: &str) -> PeerSubnet {
    match parse_lease(name, value.as_bytes()) {
        Ok(Lease::Peer(peer)) => peer,
        other => panic!("{name} {value}: {other:?}"),
    }
}

#[test]
fn a_value_that_flannel_wrote() {
    let value = r#"{"PublicIP":"192.168.64.3","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":7,"VtepMAC":"c6:d2:32:6f:8f:44"}}"#;
    let expected = PeerSubnet {
        subnet: "10.5.52.0/24".parse().unwrap(),
        public_ip: Ipv4Addr::new(192, 168, 64, 3),
        encap: Encap::Vxlan,
        vni: Vni::new(7).ok(),
        port: None,
        vtep_mac: Some(MAC),
    };
    assert_eq!(peer("10.5.52.0-24", value), expected);
    assert_eq!(peer("10.5.52.0-24&fc00:1::-64", value), expected);
    assert_eq!(owner(value.as_bytes()), Some(expected.public_ip));
    let ours = Announcement {
        subnet: expected.subnet,
        public_ip: expected.public_ip,
        vni: 7,
        vtep_mac: MAC.to_string(),
    };
    assert_eq!(lease_value(&ours), value);
}

#[test]
fn the_least_that_is_enough() {
    let peer = peer("10.9.0.0-24", r#"{"PublicIP":"192.0.2.7","BackendType":"vxlan"}"#);
    assert_eq!((peer.vni, peer.port, peer.vtep_mac), (None, None, None));
}

#[test]
fn names_in_any_case_and_unknown_fields() {
    let peer = peer(
        "10.9.0.0-24",
        r#"{"publicip":"192.0.2.7","BACKENDTYPE":"vxlan","x":[{}],"backenddata":{"vni":3,"vtepmac":"c6:d2:32:6f:8f:44","port":4789,"y":1}}"#,
    );
    assert_eq!((peer.vni.map(Vni::get), peer.port, peer.vtep_mac), (Some(3), Some(4789), Some(MAC)));
}

#[test]
fn other_backends_are_ignored_by_name() {
    for value in [r#"{"PublicIP":"192.0.2.7","BackendType":"host-gw"}"#, r#"{"PublicIP":"192.0.2.7"}"#] {
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
        (r#"{"BackendType":"vxlan","PublicIP":"0.0.0.0"}"#, "this network"),
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
        let error = parse_lease("10.9.0.0-24", value.as_bytes()).expect_err(value);
        assert!(error.contains(says), "{value}: {error}");
    }
}

#[test]
fn configurations() {
    let config = |network: &str, vni, port| {
        Ok(NetworkConfig { network: network.parse().ok(), vni: Vni::new(vni).ok(), port: Some(port) })
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
        (r#"{"Backend":{"Type":"host-gw"}}"#, "Backend.Type \"host-gw\""),
        (r#"{"Backend":{"VNI":"1"}}"#, "Backend.VNI is \"1\""),
        (r#"{"Backend":{"Port":70000}}"#, "Backend.Port is 70000"),
        (r#"{"Backend":"vxlan"}"#, "Backend is \"vxlan\""),
    ] {
        let error = parse_config(value.as_bytes()).expect_err(value);
        assert!(error.contains(says), "{value}: {error}");
    }
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
        value in r#"\{"(PublicIP|publicip)":("[0-9.]{0,15}"|null|[0-9]{1,20}),"BackendType":"vxlan","BackendData":(\{"VNI":-?[0-9.e]{1,9},"VtepMAC":"[0-9a-f:]{0,17}"\}|null)\}"#,
    ) {
        let _ = parse_lease(&name, value.as_bytes());
        let _ = parse_config(value.as_bytes());
    }

    #[test]
    fn what_we_write_reads_back(
        address in 0x0a00_0000u32..0x0b00_0000,
        length in 8u8..=32,
        vni in 1u32..=Vni::MAX,
        host in 0xc000_0200u32..0xc000_0300,
        mac: [u8; 6],
    ) {
        let subnet = Ipv4Net::new(Ipv4Addr::from(address), length).unwrap().trunc();
        let mac = Mac([mac[0] & 0xfe | 2, mac[1], mac[2], mac[3], mac[4], mac[5]]);
        let ours =
            Announcement { subnet, public_ip: Ipv4Addr::from(host), vni, vtep_mac: mac.to_string() };
        let key = subnet_key("/overlayd/network", subnet);
        let name = key.strip_prefix(&subnets_prefix("/overlayd/network")).unwrap();
        let peer = peer(name, &lease_value(&ours));
        prop_assert_eq!(peer.subnet, subnet);
        prop_assert_eq!((peer.public_ip, peer.vni, peer.vtep_mac), (ours.public_ip, Vni::new(vni).ok(), Some(mac)));
    }
}
