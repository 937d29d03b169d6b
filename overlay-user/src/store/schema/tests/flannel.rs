//! flannel's ways: names in letters of any case, as Go's decoder takes them, and a network without a tunnel.

use super::*;

#[test]
fn names_in_any_case_and_unknown_fields() {
    let peer = peer(
        "10.9.0.0-24",
        r#"{"publicip":"192.0.2.7","BACKENDTYPE":"vxlan","x":[{}],"backenddata":{"vni":3,"vtepmac":"c6:d2:32:6f:8f:44","port":4789,"y":1}}"#,
    );
    assert_eq!((peer.vni.map(Vni::get), peer.port, peer.vtep_mac), (Some(3), Some(4789), Some(MAC)));
}

/// flannel's backends are found by their names in lower case; the type in a subnet's value is compared as it stands.
#[test]
fn a_networks_type_in_any_case_and_a_hosts_type_as_it_is() {
    for kind in ["vxlan", "VXLAN", "VxLan", "host-gw", "Host-GW", "GRE-l3"] {
        let value = format!(r#"{{"Backend":{{"Type":"{kind}"}}}}"#);
        assert!(parse_config(value.as_bytes()).is_ok(), "{value}");
    }
    let value = br#"{"PublicIP":"192.0.2.7","BackendType":"VXLAN"}"#;
    assert!(matches!(parse_lease("10.9.0.0-24", value), Ok(Lease::Ignored(_))));
}

#[test]
fn a_host_gw_value_that_flannel_wrote() {
    let value = r#"{"PublicIP":"192.168.64.3","PublicIPv6":null,"BackendType":"host-gw"}"#;
    let peer = peer("10.5.52.0-24", value);
    assert_eq!((peer.encap, peer.host), (Encap::Direct, host(Some("192.168.64.3"), None)));
    assert_eq!((peer.vni, peer.port, peer.vtep_mac), (None, None, None));
    let value = r#"{"PublicIP":"192.168.64.3","PublicIPv6":"2001:db8::3","BackendType":"host-gw"}"#;
    let both = peers("10.5.52.0-24&fc00:1::-64", value);
    assert!(both.iter().all(|peer| peer.host == host(Some("192.168.64.3"), Some("2001:db8::3"))));
}

/// A value with some letters of its names, those that are true, turned round.
fn in_case(value: &str, turned: &[bool]) -> String {
    let mut turned = turned.iter().cycle();
    let mut turn = |letter: char| match turned.next() {
        Some(true) if letter.is_ascii_lowercase() => letter.to_ascii_uppercase(),
        Some(true) => letter.to_ascii_lowercase(),
        _ => letter,
    };
    // A name is what stands between quotes, with a colon behind.
    let parts: Vec<&str> = value.split('"').collect();
    let is_name = |n: usize| n % 2 == 1 && parts.get(n + 1).is_some_and(|next| next.starts_with(':'));
    let mut part = |(n, part): (usize, &&str)| {
        if is_name(n) { part.chars().map(&mut turn).collect() } else { (**part).to_owned() }
    };
    parts.iter().enumerate().map(&mut part).collect::<Vec<String>>().join("\"")
}

proptest! {
    #[test]
    fn names_in_any_case_say_the_same(turned in proptest::collection::vec(any::<bool>(), 1..64)) {
        let config = r#"{"Network":"10.5.0.0/16","SubnetLen":26,"SubnetMin":"10.5.1.0","SubnetMax":"10.5.9.0","EnableIPv4":true,"EnableIPv6":true,"IPv6Network":"fd00:5::/48","IPv6SubnetLen":64,"EnableNFTables":false,"Backend":{"Type":"vxlan","VNI":9,"Port":4789,"GBP":false,"Learning":false,"DirectRouting":false}}"#;
        let other = in_case(config, &turned);
        prop_assert!(other.eq_ignore_ascii_case(config));
        let read = parse_config(config.as_bytes()).unwrap();
        prop_assert!(read.network.is_some() && read.network_v6.is_some() && read.port == Some(4789), "{:?}", read);
        prop_assert_eq!(parse_config(other.as_bytes()), Ok(read), "{}", &other);
        prop_assert_eq!(parse_pools(other.as_bytes()), parse_pools(config.as_bytes()), "{}", other);

        let lease = r#"{"PublicIP":"192.168.64.3","PublicIPv6":"2001:db8::3","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44","Port":4789},"BackendV6Data":{"VNI":2,"VtepMAC":"c6:d2:32:6f:8f:45"},"Overlayd":{"UDP6ZeroChecksum":true}}"#;
        let (name, other) = ("10.5.52.0-24&fc00:1::-64", in_case(lease, &turned));
        prop_assert_eq!(peers(name, &other), peers(name, lease), "{}", &other);
        prop_assert_eq!(owner(other.as_bytes()), owner(lease.as_bytes()));
    }
}
