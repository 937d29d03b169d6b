//! Our own keys with an IPv6 part: taken, replaced in one step, defended against other keys of the same subnets.

use overlay_user::{
    store::{Announcement, EtcdOptions, EtcdStore, Store, StoreError, Subnets},
    underlay::Underlay,
};

use crate::{
    announce::ours,
    etcd::{Etcd, Log, PREFIX, Watch, options},
};

const ALONE: &str = "172.27.0.0-16";
const DUAL: &str = "172.27.0.0-16&fd00:27::-64";
const DUAL_VALUE: &str = r#"{"PublicIP":"172.16.199.27","PublicIPv6":"2001:db8::27","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:01"},"BackendV6Data":{"VNI":1,"VtepMAC":"02:00:00:00:00:01"},"Overlayd":{"UDP6ZeroChecksum":true}}"#;

fn dual() -> Announcement {
    let v6 = "2001:db8::27".parse().ok();
    let subnets = Subnets { v6: "fd00:27::/64".parse().ok(), ..ours().subnets };
    Announcement { subnets, host: Underlay::new(ours().host.v4(), v6).unwrap(), ..ours() }
}

/// Another host, with these subnets.
fn other(v4: &str, v6: Option<&str>) -> Announcement {
    let subnets = Subnets { v4: v4.parse().unwrap(), v6: v6.map(|v6| v6.parse().unwrap()) };
    Announcement { subnets, host: std::net::Ipv4Addr::new(172, 16, 199, 99).into(), ..ours() }
}

async fn lease_is_gone(etcd: &Etcd, lease: i64) -> bool {
    etcd.client().await.lease_time_to_live(lease, None).await.unwrap().ttl() <= 0
}

#[tokio::test]
async fn one_key_for_both_subnets_adopted_and_withdrawn() {
    let etcd = Etcd::start().await;
    etcd.store().claim(&[dual()]).await.unwrap();
    let first = etcd.subnet(DUAL).await.unwrap();
    assert_eq!(first.0, DUAL_VALUE);
    etcd.store().claim(&[dual()]).await.unwrap();
    assert_eq!(etcd.subnet(DUAL).await.as_ref(), Some(&first), "adopted, not written again");
    let peers = etcd.store().list().await.unwrap();
    let told: Vec<_> =
        peers.values().map(|p| (p.subnet.to_string(), p.host.to_string(), p.zero_checksum)).collect();
    let host = || "172.16.199.27 (2001:db8::27)".to_owned();
    assert_eq!(told, [("172.27.0.0/16".into(), host(), true), ("fd00:27::/64".into(), host(), true)]);
    etcd.store().withdraw(&[dual()]).await.unwrap();
    assert_eq!(etcd.subnet(DUAL).await, None);
    assert!(lease_is_gone(&etcd, first.1).await);
}

#[tokio::test]
async fn a_host_becomes_dual_stack_and_stops_without_a_gap() {
    let log = Log::capture();
    let etcd = Etcd::start().await;
    etcd.store().claim(&[ours()]).await.unwrap();
    let (mut watch, first) = Watch::start(etcd.store()).await;
    assert_eq!(first, ["172.27.0.0/16=172.16.199.27"]);
    let lease = etcd.subnet(ALONE).await.unwrap().1;

    etcd.store().claim(&[dual()]).await.unwrap();
    assert_eq!(etcd.subnet(ALONE).await, None, "the old key is taken back");
    assert!(lease_is_gone(&etcd, lease).await);
    assert_eq!(watch.change().await, "172.27.0.0/16=172.16.199.27 (2001:db8::27)");
    assert_eq!(watch.change().await, "fd00:27::/64=172.16.199.27 (2001:db8::27)");

    etcd.store().claim(&[ours()]).await.unwrap();
    assert_eq!(etcd.subnet(DUAL).await, None);
    assert_eq!(watch.change().await, "172.27.0.0/16=172.16.199.27");
    assert_eq!(watch.change().await, "fd00:27::/64 gone");
    watch.nothing_more();
    assert_eq!(log.warnings("etcd key"), Vec::<String>::new());
}

/// The daemon died between noting what it would announce and doing so, or its state was written by one that
/// knew IPv4 only; meanwhile the address changed.
#[tokio::test]
async fn the_old_key_under_an_old_address_is_replaced() {
    let etcd = Etcd::start().await;
    etcd.put_peer(ALONE, "172.16.199.26").await;
    let error = etcd.store().claim(&[dual()]).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict(_)), "{error}");
    let previous =
        r#"[{"subnet":"172.27.0.0/16","public_ip":"172.16.199.26","vni":1,"vtep_mac":"02:00:00:00:00:01"}]"#;
    let previous = serde_json::from_str(previous).unwrap();
    let options = EtcdOptions { previous, ..options(&[etcd.endpoint()]) };
    EtcdStore::new(options).unwrap().claim(&[dual()]).await.unwrap();
    assert_eq!(etcd.subnet(ALONE).await, None);
    assert_eq!(etcd.subnet(DUAL).await.unwrap().0, DUAL_VALUE);
}

#[tokio::test]
async fn a_subnet_held_under_another_key_is_refused_by_name() {
    for (held, theirs, mine, subnet) in [
        (ALONE, other("172.27.0.0/16", None), dual(), "172.27.0.0/16"),
        (DUAL, other("172.27.0.0/16", Some("fd00:27::/64")), ours(), "172.27.0.0/16"),
        ("172.29.0.0-16&fd00:27::-64", other("172.29.0.0/16", Some("fd00:27::/64")), dual(), "fd00:27::/64"),
    ] {
        let etcd = Etcd::start().await;
        etcd.store().claim(&[theirs]).await.unwrap();
        let before = etcd.subnet(held).await;
        let error = etcd.store().claim(std::slice::from_ref(&mine)).await.unwrap_err();
        assert!(matches!(error, StoreError::Conflict(_)), "{error}");
        let says = format!("subnet {subnet} is held by 172.16.199.99 (etcd key {PREFIX}/subnets/{held})");
        assert!(error.to_string().contains(&says), "{error}");
        etcd.store().withdraw(&[mine]).await.unwrap();
        assert_eq!(etcd.subnet(held).await, before, "another host's key is left alone");
    }
}

/// Two hosts that start at the same moment with one subnet, under different keys.
#[tokio::test]
async fn one_of_two_claims_at_the_same_time_wins() {
    let etcd = Etcd::start().await;
    let (mine, theirs) = ([dual()], [other("172.27.0.0/16", None)]);
    for round in 0..15 {
        let (a, b) = (etcd.store(), etcd.store());
        let (one, two) = tokio::join!(a.claim(&mine), b.claim(&theirs));
        assert!(one.is_ok() != two.is_ok(), "round {round}: {one:?} {two:?}");
        assert_eq!(etcd.subnet(DUAL).await.is_some(), one.is_ok());
        assert_eq!(etcd.subnet(ALONE).await.is_some(), two.is_ok());
        a.withdraw(&mine).await.unwrap();
        b.withdraw(&theirs).await.unwrap();
    }
}

#[tokio::test]
async fn a_host_without_ipv4_is_announced_and_known_again() {
    let etcd = Etcd::start().await;
    let host = Underlay::from("2001:db8::27".parse::<std::net::Ipv6Addr>().unwrap());
    let mine = [Announcement { host, ..ours() }];
    etcd.store().claim(&mine).await.unwrap();
    let (value, _, revision) = etcd.subnet(ALONE).await.unwrap();
    assert!(value.starts_with(r#"{"PublicIP":"0.0.0.0","PublicIPv6":"2001:db8::27","#), "{value}");
    etcd.store().claim(&mine).await.unwrap();
    assert_eq!(etcd.subnet(ALONE).await.unwrap().2, revision);
    etcd.store().withdraw(&mine).await.unwrap();
    assert_eq!(etcd.subnet(ALONE).await, None);
}
