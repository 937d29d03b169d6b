//! What is written to etcd is reported.

use overlay_user::store::{Health, NetworkConfig, Store, StoreError, Update};

use crate::etcd::{Etcd, Log, Watch, peer};

#[tokio::test]
async fn puts_and_deletes_arrive_within_a_second() {
    let etcd = Etcd::start().await;
    etcd.put_peer("10.8.0.0-24", "192.0.2.8").await;
    let (mut watch, first) = Watch::start(etcd.store()).await;
    assert_eq!(first, ["10.8.0.0/24=192.0.2.8"]);
    etcd.put_peer("10.9.0.0-24", "192.0.2.7").await;
    assert_eq!(watch.change().await, "10.9.0.0/24=192.0.2.7");
    etcd.put_peer("10.9.0.0-24", "192.0.2.9").await;
    assert_eq!(watch.change().await, "10.9.0.0/24=192.0.2.9");
    etcd.delete("subnets/10.9.0.0-24").await;
    assert_eq!(watch.change().await, "10.9.0.0/24 gone");
    etcd.put("config", "{}").await;
    etcd.put("overlayd/v1/nodes/x", "{}").await;
    etcd.put("subnetsx", "{}").await;
    etcd.put_peer("10.10.0.0-24", "192.0.2.10").await;
    assert_eq!(
        watch.change().await,
        "10.10.0.0/24=192.0.2.10",
        "other keys are none of the watch's business"
    );
    watch.nothing_more();
}

#[tokio::test]
async fn malformed_keys_and_values_are_one_warning_each() {
    let log = Log::capture();
    let mut etcd = Etcd::start().await;
    etcd.put_peer("10.8.0.0-24", "192.0.2.8").await;
    etcd.put_peer("banana", "192.0.2.1").await;
    let store = etcd.store();
    assert_eq!(store.list().await.unwrap().len(), 1);
    let (mut watch, first) = Watch::start(store).await;
    assert_eq!(first, ["10.8.0.0/24=192.0.2.8"]);
    etcd.put("subnets/10.9.0.0-24", r#"{"PublicIP":"kaput","BackendType":"vxlan"}"#).await;
    etcd.put("subnets/10.8.0.0-24", "{").await;
    etcd.put("subnets/10.7.0.0-24", r#"{"PublicIP":"192.0.2.7","BackendType":"wireguard"}"#).await;
    etcd.put_peer("10.6.0.0-24", "192.0.2.6").await;
    assert_eq!(watch.change().await, "10.6.0.0/24=192.0.2.6", "the others go on");
    let port = etcd.port();
    etcd.restart_at(port).await;
    let kept = ["10.6.0.0/24=192.0.2.6", "10.8.0.0/24=192.0.2.8"];
    assert_eq!(watch.snapshot().await, kept, "a bad edit keeps the last good state");
    for (key, says) in [
        ("/overlayd/network/subnets/banana", "names no subnet"),
        ("/overlayd/network/subnets/10.9.0.0-24", "PublicIP \"kaput\""),
        ("/overlayd/network/subnets/10.8.0.0-24", "10.8.0.0/24 at 192.0.2.8, stays in force"),
        ("/overlayd/network/subnets/10.7.0.0-24", "BackendType is \"wireguard\""),
    ] {
        let warnings = log.warnings(key);
        assert!(warnings.len() == 1 && warnings[0].contains(says), "{key}: {warnings:?}");
    }
    etcd.delete("subnets/10.8.0.0-24").await;
    let mut change = String::new();
    while !change.contains("10.8") {
        change = match watch.next(1).await {
            overlay_user::store::Update::Delete(subnet) => format!("{subnet} gone"),
            _ => continue,
        };
    }
    assert_eq!(change, "10.8.0.0/24 gone");
}

#[tokio::test]
async fn hundreds_of_keys_are_listed_page_by_page() {
    let etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    for n in 0..1203 {
        let key = format!("/overlayd/network/subnets/10.{}.{}.0-24", n / 256, n % 256);
        client.put(key, peer("192.0.2.7"), None).await.unwrap();
    }
    assert_eq!(etcd.store().list().await.unwrap().len(), 1203);
}

#[tokio::test]
async fn configurations() {
    let etcd = Etcd::start().await;
    let store = etcd.store();
    assert_eq!(store.network().await.unwrap(), None);
    etcd.put("config", r#"{"Network":"10.5.0.0/16","backend":{"type":"vxlan"}}"#).await;
    let network = "10.5.0.0/16".parse().ok();
    let vni = |number| overlay_common::Vni::new(number).ok();
    let expected =
        NetworkConfig { network, network_v6: None, ipv6: Some(false), vni: vni(1), port: Some(8472) };
    assert_eq!(store.network().await.unwrap(), Some(expected));
    etcd.put("config", r#"{"network":"10.5.0.0/16","Backend":{"Type":"vxlan","vni":42,"PORT":4790}}"#).await;
    let expected =
        NetworkConfig { network, network_v6: None, ipv6: Some(false), vni: vni(42), port: Some(4790) };
    assert_eq!(store.network().await.unwrap(), Some(expected));
    let dual = r#"{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/48"}"#;
    etcd.put("config", dual).await;
    let network_v6 = "fd00:5::/48".parse().ok();
    let expected = NetworkConfig { network, network_v6, ipv6: Some(true), vni: vni(1), port: Some(8472) };
    assert_eq!(store.network().await.unwrap(), Some(expected));
    etcd.put("config", r#"{"Network":"10.5.0.0/16","Backend":{"VNI":-1}}"#).await;
    let error = store.network().await.unwrap_err();
    assert!(matches!(error, StoreError::Invalid(_)));
    let text = error.to_string();
    assert!(text.contains("/overlayd/network/config") && text.contains("Backend.VNI is -1"), "{text}");
}

/// The daemon has been told of one configuration: another one is its operator's to take over.
#[tokio::test]
async fn a_configuration_that_changes_is_told() {
    let etcd = Etcd::start().await;
    etcd.put("config", r#"{"Network":"10.0.0.0/8","Backend":{"Type":"vxlan","VNI":7}}"#).await;
    let store = etcd.store();
    store.network().await.unwrap();
    let (mut watch, _) = Watch::start(store).await;
    etcd.put("config", r#"{"Network":"10.0.0.0/8","Backend":{"Type":"vxlan","VNI":8}}"#).await;
    let reason = watch.degraded(3).await;
    assert!(reason.contains("/overlayd/network/config") && reason.contains("SIGHUP"), "{reason}");
    etcd.put("config", r#"{"Network":"10.0.0.0/33"}"#).await;
    assert!(watch.degraded(3).await.contains("correct it with etcdctl put"));
    etcd.put("config", r#"{"network":"10.0.0.0/8","backend":{"type":"vxlan","vni":7}}"#).await;
    assert_eq!(watch.next(3).await, Update::Health(Health::Ok));
}
