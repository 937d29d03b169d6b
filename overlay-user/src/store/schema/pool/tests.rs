use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn pools(value: &str) -> Result<Pools, String> {
    parse_pools(value.as_bytes())
}

/// Its length, its first and last subnet, how many there are.
fn shape<N: Prefix>(pool: Pool<N>) -> (u8, String, String, u128) {
    let name = |address| N::at(address, pool.len).unwrap().to_string();
    (pool.len, name(pool.min), name(pool.max), pool.count())
}

fn with_v6(network: &str, more: &str) -> String {
    format!(r#"{{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"{network}"{more}}}"#)
}

#[test]
fn what_flannel_makes_of_it() {
    for (value, len, min, max, count) in [
        (r#"{"Network":"10.5.0.0/16"}"#, 24, "10.5.1.0/24", "10.5.255.0/24", 255),
        (r#"{"network":"10.5.7.9/16","subnetlen":28}"#, 28, "10.5.0.16/28", "10.5.255.240/28", 4095),
        (r#"{"Network":"10.5.0.0/24"}"#, 26, "10.5.0.64/26", "10.5.0.192/26", 3),
        (
            r#"{"Network":"10.5.0.0/16","SubnetMin":"10.5.10.0","SubnetMax":"10.5.12.0"}"#,
            24,
            "10.5.10.0/24",
            "10.5.12.0/24",
            3,
        ),
    ] {
        let pools = pools(value).unwrap();
        assert_eq!(shape(pools.v4), (len, min.into(), max.into(), count), "{value}");
        assert_eq!(pools.v6, None);
    }
}

#[test]
fn what_flannel_makes_of_ipv6() {
    for (network, more, len, min, max, count) in [
        ("fc00::/48", "", 64, "fc00:0:0:1::/64", "fc00:0:0:ffff::/64", 65_535),
        ("fd00:5::7/62", "", 64, "fd00:5:0:1::/64", "fd00:5:0:3::/64", 3),
        ("fd00:5::/63", "", 65, "fd00:5:0:0:8000::/65", "fd00:5:0:1:8000::/65", 3),
        ("fd00:5::/124", "", 126, "fd00:5::4/126", "fd00:5::c/126", 3),
        ("fd00:5::/48", r#","ipv6subnetlen":56"#, 56, "fd00:5:0:100::/56", "fd00:5:0:ff00::/56", 255),
        (
            "fd00:5::/48",
            r#","IPv6SubnetMin":"fd00:5:0:10::","IPv6SubnetMax":"fd00:5:0:12::""#,
            64,
            "fd00:5:0:10::/64",
            "fd00:5:0:12::/64",
            3,
        ),
        (
            "2000::/3",
            r#","IPv6SubnetLen":126"#,
            126,
            "2000::4/126",
            "3fff:ffff:ffff:ffff:ffff:ffff:ffff:fffc/126",
            (1 << 123) - 1,
        ),
    ] {
        let pool = pools(&with_v6(network, more)).unwrap().v6.unwrap();
        assert_eq!(shape(pool), (len, min.into(), max.into(), count), "{network}");
    }
    for value in [
        r#"{"Network":"10.5.0.0/16","IPv6Network":"fd00:5::/48"}"#,
        r#"{"Network":"10.5.0.0/16","EnableIPv6":false,"IPv6Network":"fd00:5::/48"}"#,
        r#"{"Network":"10.5.0.0/16","EnableIPv6":true}"#,
    ] {
        assert_eq!(pools(value).unwrap().v6, None, "{value}");
    }
}

#[test]
fn what_does_not_fit_is_named() {
    for (value, named) in [
        ("{}", "Network is missing"),
        (r#"{"Network":"10.5.0.0/16","SubnetLen":17}"#, "SubnetLen 17"),
        (r#"{"Network":"10.5.0.0/16","SubnetLen":31}"#, "SubnetLen 31"),
        (r#"{"Network":"10.5.0.0/30"}"#, "Network 10.5.0.0/30 is too small"),
        (r#"{"Network":"10.5.0.0/16","SubnetMin":"10.6.1.0"}"#, "SubnetMin 10.6.1.0"),
        (r#"{"Network":"10.5.0.0/16","SubnetMax":"10.5.1.7"}"#, "SubnetMax 10.5.1.7"),
        (r#"{"Network":"10.5.0.0/16","SubnetMin":"fd00::"}"#, "SubnetMin \"fd00::\""),
        (r#"{"Network":"10.5.0.0/16","SubnetMin":"10.5.9.0","SubnetMax":"10.5.8.0"}"#, "behind"),
        (&with_v6("fd00:5::/125", ""), "IPv6Network fd00:5::/125 is too small"),
        (&with_v6("fd00:5::/64", r#","IPv6SubnetLen":65"#), "IPv6SubnetLen 65"),
        (&with_v6("fd00:5::/64", r#","IPv6SubnetLen":127"#), "IPv6SubnetLen 127"),
        (&with_v6("fd00:5::/48", r#","IPv6SubnetMin":"fd00:6::""#), "IPv6SubnetMin fd00:6::"),
        (&with_v6("fd00:5::/48", r#","IPv6SubnetMax":"fd00:5::7""#), "IPv6SubnetMax fd00:5::7"),
        (&with_v6("10.5.0.0/16", ""), "IPv6Network \"10.5.0.0/16\""),
    ] {
        let error = pools(value).unwrap_err();
        assert!(error.contains(named), "{value}: {error}");
    }
}

#[test]
fn each_once_whatever_is_drawn() {
    let pool = pools(r#"{"Network":"10.5.0.0/16"}"#).unwrap().v4;
    for lot in [0, 1, 254, 255, u128::from(u32::MAX), u128::MAX] {
        let mut taken = Vec::new();
        while let Some(free) = pool.free(lot, &taken) {
            assert!(pool.has(free) && !taken.contains(&free));
            taken.push(free);
            assert_eq!(pool.count_free(&taken), 255 - taken.len() as u128);
        }
        assert_eq!(taken.iter().collect::<BTreeSet<_>>().len(), 255);
    }
    assert!(!pool.has("10.5.0.0/24".parse().unwrap()) && !pool.has("10.5.1.0/25".parse().unwrap()));
}

#[test]
fn what_is_reserved_has_to_be_of_the_pools() {
    let pools = pools(&with_v6("fd00:5::/48", "")).unwrap();
    let subnets = |v4: &str, v6: Option<&str>| Subnets {
        v4: v4.parse().unwrap(),
        v6: v6.map(|v6| v6.parse().unwrap()),
    };
    assert_eq!(pools.check(subnets("10.5.1.0/24", Some("fd00:5:0:1::/64"))), Ok(()));
    for (other, named) in [
        (subnets("10.6.1.0/24", None), "10.6.1.0/24 is leased by no host"),
        (subnets("10.5.1.0/25", None), "10.5.1.0/25"),
        (subnets("10.5.1.0/24", Some("fd00:6::/64")), "fd00:6::/64"),
    ] {
        assert!(pools.check(other).unwrap_err().contains(named));
    }
    let without = Pools { v6: None, ..pools };
    assert!(without.check(subnets("10.5.1.0/24", Some("fd00:5:0:1::/64"))).is_err());
}

proptest! {
    /// As one finds by looking at each.
    #[test]
    fn the_first_that_is_free(
        v6: bool,
        lot: u128,
        taken in proptest::collection::vec((0u8..=255, 18u8..=28), 0..40),
    ) {
        fn judge<N: Prefix + PartialEq>(pool: Pool<N>, lot: u128, taken: &[N]) -> Result<(), TestCaseError> {
            let all: Vec<N> =
                (0..pool.count()).map(|n| N::at(pool.min + n * pool.size(), pool.len).unwrap()).collect();
            let is_free = |net: &&N| !taken.iter().any(|taken| crate::local::overlaps((*taken).into(), (**net).into()));
            let start = usize::try_from(lot % pool.count()).unwrap();
            let expected = all[start..].iter().chain(&all[..start]).find(is_free).copied();
            prop_assert!(pool.free(lot, taken) == expected);
            prop_assert_eq!(pool.count_free(taken), all.iter().filter(is_free).count() as u128);
            Ok(())
        }
        if v6 {
            let pool = pools(&with_v6("fd00:5::/56", r#","IPv6SubnetMax":"fd00:5:0:f0::""#)).unwrap().v6.unwrap();
            let net = |(n, len): &(u8, u8)| {
                Ipv6Net::new(Ipv6Addr::new(0xfd00, 5, 0, (*n).into(), 0, 0, 0, 0), len + 40).unwrap().trunc()
            };
            judge(pool, lot, &taken.iter().map(net).collect::<Vec<_>>())?;
        } else {
            let pool = pools(r#"{"Network":"10.5.0.0/16","SubnetMax":"10.5.200.0"}"#).unwrap().v4;
            let net = |(n, len): &(u8, u8)| Ipv4Net::new(Ipv4Addr::new(10, 5, *n, 0), *len).unwrap().trunc();
            judge(pool, lot, &taken.iter().map(net).collect::<Vec<_>>())?;
        }
    }

    #[test]
    fn nothing_panics(value: Vec<u8>, network in "[0-9a-f:.]{0,20}/[0-9]{1,3}", len in 0u32..200, end in "[0-9a-f:.]{0,20}") {
        let _ = parse_pools(&value);
        let more = format!(r#","IPv6SubnetLen":{len},"IPv6SubnetMin":"{end}","IPv6SubnetMax":"{end}""#);
        let _ = pools(&with_v6(&network, &more));
        let v4 = format!(r#"{{"Network":"{network}","SubnetLen":{len},"SubnetMin":"{end}"}}"#);
        let _ = pools(&v4);
    }
}
