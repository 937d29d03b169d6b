//! Several keys that claim one subnet: one of them counts, for everybody, until it is gone.

use overlay_user::store::{Store, Update};

use crate::etcd::{Etcd, Log, Watch};

const DUAL: &str = "10.9.0.0-24&fd00:9::-64";
const ALONE: &str = "10.9.0.0-24";

async fn listed(etcd: &Etcd) -> Vec<String> {
    let peers = etcd.store().list().await.unwrap();
    peers.values().map(|peer| format!("{}={}", peer.subnet, peer.host)).collect()
}

#[tokio::test]
async fn a_key_with_an_ipv6_part_is_two_subnets() {
    let etcd = Etcd::start().await;
    let (mut watch, first) = Watch::start(etcd.store()).await;
    assert!(first.is_empty());
    etcd.put_peer(DUAL, "192.0.2.1").await;
    assert_eq!(watch.change().await, "10.9.0.0/24=192.0.2.1");
    assert_eq!(watch.change().await, "fd00:9::/64=192.0.2.1");
    let value = r#"{"PublicIP":"192.0.2.1","PublicIPv6":"2001:db8::1","BackendType":"vxlan"}"#;
    etcd.put(&format!("subnets/{DUAL}"), value).await;
    assert_eq!(watch.change().await, "10.9.0.0/24=192.0.2.1 (2001:db8::1)");
    assert_eq!(watch.change().await, "fd00:9::/64=192.0.2.1 (2001:db8::1)");
    etcd.delete(&format!("subnets/{DUAL}")).await;
    assert_eq!(watch.change().await, "10.9.0.0/24 gone");
    assert_eq!(watch.change().await, "fd00:9::/64 gone");
    watch.nothing_more();
}

#[tokio::test]
async fn the_first_of_two_keys_counts_and_the_other_takes_over() {
    let log = Log::capture();
    let mut etcd = Etcd::start().await;
    etcd.put_peer(DUAL, "192.0.2.1").await;
    let (mut watch, _) = Watch::start(etcd.store()).await;
    etcd.put_peer(ALONE, "192.0.2.2").await;
    etcd.put_peer("10.8.0.0-24", "192.0.2.8").await;
    assert_eq!(watch.change().await, "10.8.0.0/24=192.0.2.8", "nobody's route changed before");
    let told = |watch: &Watch| watch.contested.iter().cloned().collect::<Vec<_>>();
    assert!(
        told(&watch)[0].contains("subnet 10.9.0.0/24 is claimed by several etcd keys"),
        "{:?}",
        told(&watch)
    );
    // In byte order the other key is the first.
    let both = ["10.8.0.0/24=192.0.2.8", "10.9.0.0/24=192.0.2.1", "fd00:9::/64=192.0.2.1"];
    assert_eq!(listed(&etcd).await, both, "who comes later sees the same");
    let port = etcd.port();
    etcd.restart_at(port).await;
    assert_eq!(watch.snapshot().await, both);
    assert!(matches!(watch.next(3).await, Update::Health(_)));
    let warnings = log.warnings("subnet 10.9.0.0/24 is claimed by several");
    let both = [ALONE, DUAL].map(|name| format!("/overlayd/network/subnets/{name} of host 192.0.2."));
    assert!(both.iter().all(|key| warnings[0].contains(key)), "{warnings:?}");
    // One of the watch and one of the store that listed.
    assert_eq!(warnings.len(), 2, "{warnings:?}");

    etcd.delete(&format!("subnets/{DUAL}")).await;
    assert_eq!(watch.change().await, "10.9.0.0/24=192.0.2.2");
    assert_eq!(watch.change().await, "fd00:9::/64 gone");
    assert!(told(&watch).is_empty(), "{:?}", told(&watch));
    etcd.put_peer(DUAL, "192.0.2.1").await;
    assert_eq!(watch.change().await, "fd00:9::/64=192.0.2.1", "it comes back second");
    watch.nothing_more();
    assert_eq!(told(&watch).len(), 1);
    assert_eq!(listed(&etcd).await[1], "10.9.0.0/24=192.0.2.2");
}

#[tokio::test]
async fn a_key_replaced_in_one_transaction_is_no_contest() {
    let log = Log::capture();
    let etcd = Etcd::start().await;
    etcd.put_peer(ALONE, "192.0.2.1").await;
    let (mut watch, _) = Watch::start(etcd.store()).await;
    for _ in 0..5 {
        etcd.replace_peer(ALONE, DUAL, "192.0.2.1").await;
        assert_eq!(watch.change().await, "fd00:9::/64=192.0.2.1");
        etcd.replace_peer(DUAL, ALONE, "192.0.2.1").await;
        assert_eq!(watch.change().await, "fd00:9::/64 gone");
    }
    watch.nothing_more();
    assert_eq!(log.warnings("claimed"), Vec::<String>::new());
}
