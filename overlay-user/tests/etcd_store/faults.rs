//! etcd dies, freezes, forgets, or was never there.

use std::{net::TcpListener, time::Duration};

use overlay_user::store::{EtcdStore, Health, Store, StoreError, Update};
use tokio::time::{Instant, sleep};

use crate::{
    announce::ours,
    etcd::{Etcd, Log, PREFIX, Watch, free_port, options, store_at},
};

/// A watch whose etcd was killed, changed behind its back and started again; what it says then.
async fn changed_while_disconnected(compacted: bool) {
    let mut etcd = Etcd::start().await;
    for n in 1..4 {
        etcd.put_peer(&format!("10.{n}.0.0-24"), &format!("192.0.2.{n}")).await;
    }
    let (mut watch, first) = Watch::start(etcd.store()).await;
    assert_eq!(first.len(), 3);
    let port = etcd.port();
    etcd.restart_at(free_port()).await;
    assert!(watch.degraded(3).await.contains(&format!("etcd at http://127.0.0.1:{port}")));
    etcd.put_peer("10.1.0.0-24", "192.0.2.101").await;
    etcd.delete("subnets/10.2.0.0-24").await;
    if compacted {
        etcd.compact().await;
    }
    etcd.restart_at(port).await;
    assert_eq!(watch.snapshot().await, ["10.1.0.0/24=192.0.2.101", "10.3.0.0/24=192.0.2.3"]);
    assert_eq!(watch.next(3).await, Update::Health(Health::Ok));
    etcd.put_peer("10.4.0.0-24", "192.0.2.4").await;
    assert_eq!(watch.change().await, "10.4.0.0/24=192.0.2.4");
}

#[tokio::test]
async fn a_changed_value_and_a_delete_missed_over_kill_9() {
    changed_while_disconnected(false).await;
}

#[tokio::test]
async fn the_same_with_the_history_compacted() {
    changed_while_disconnected(true).await;
}

#[tokio::test]
async fn an_etcd_restored_from_a_backup_is_believed() {
    let log = Log::capture();
    let mut etcd = Etcd::start().await;
    etcd.put_peer("10.1.0.0-24", "192.0.2.1").await;
    etcd.restart_on_copy("data", "backup").await;
    for n in 2..9 {
        etcd.put_peer(&format!("10.{n}.0.0-24"), "192.0.2.2").await;
    }
    let (mut watch, first) = Watch::start(etcd.store()).await;
    assert_eq!(first.len(), 8);
    etcd.restart_on_copy("backup", "data").await;
    assert_eq!(watch.snapshot().await, ["10.1.0.0/24=192.0.2.1"]);
    assert_eq!(watch.next(3).await, Update::Health(Health::Ok));
    assert_eq!(log.warnings("revision went back").len(), 1);
    etcd.put_peer("10.2.0.0-24", "192.0.2.3").await;
    assert_eq!(watch.change().await, "10.2.0.0/24=192.0.2.3", "the watch is not deaf");
}

/// Nobody reads our updates: etcd cannot send, falls behind the compaction and cancels the watch.
#[tokio::test]
async fn a_watch_that_fell_behind_a_compaction_lists_again() {
    let etcd = Etcd::start().await;
    let mut watch = Watch::start_unread(etcd.store(), 1);
    let mut client = etcd.client().await;
    let padding = "x".repeat(40_000);
    for n in 0..2_000 {
        let value = format!(
            r#"{{"PublicIP":"192.0.{}.{}","BackendType":"vxlan","Padding":"{padding}"}}"#,
            n / 250,
            n % 250 + 1
        );
        client.put(format!("{PREFIX}/subnets/10.9.0.0-24"), value, None).await.unwrap();
    }
    etcd.compact().await;
    // etcd tries its slow watchers again every 100 ms, and finds out then.
    sleep(Duration::from_millis(500)).await;
    let mut reasons = Vec::new();
    let mut last = String::new();
    while last != "10.9.0.0/24=192.0.7.250" {
        match watch.next(15).await {
            Update::Health(Health::Degraded { reason }) => reasons.push(reason),
            Update::Snapshot(peers) => {
                last = peers.values().map(|peer| format!("{}={}", peer.subnet, peer.host)).collect();
            }
            Update::Put(_) | Update::Contested(_) | Update::Health(Health::Ok) => {}
            Update::Delete(subnet) => panic!("{subnet} was never deleted"),
        }
    }
    assert!(reasons.len() == 1 && reasons[0].contains("compacted"), "{reasons:?}");
}

#[tokio::test]
async fn a_frozen_etcd_is_noticed() {
    let etcd = Etcd::start().await;
    let (mut watch, _) = Watch::start(etcd.store()).await;
    etcd.signal("-STOP");
    let reason = watch.degraded(14).await;
    assert!(reason.contains(&etcd.endpoint()), "{reason}");
    etcd.signal("-CONT");
    assert!(watch.snapshot().await.is_empty());
}

async fn bounded_and_clear(endpoint: &str) {
    let store = store_at(endpoint);
    let mine = [ours()];
    let began = Instant::now();
    let (listed, network, claimed, withdrawn) =
        tokio::join!(store.list(), store.network(), store.claim(&mine), store.withdraw(&mine));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let key = "/overlayd/network/subnets/172.27.0.0-16";
    for (error, says) in [
        (listed.unwrap_err(), "listing /overlayd/network/subnets/"),
        (network.unwrap_err(), "reading /overlayd/network/config"),
        (claimed.unwrap_err(), key),
        (withdrawn.unwrap_err(), &format!("left behind: {key};")),
    ] {
        assert!(matches!(error, StoreError::Unreachable(_)), "{error:?}");
        let text = error.to_string();
        assert!(text.starts_with(&format!("etcd at {endpoint}: ")) && text.contains(says), "{text}");
        assert!(text.contains("--etcd-endpoints") && !text.contains('\n'), "{text}");
    }
}

#[tokio::test]
async fn an_etcd_that_is_not_there() {
    let endpoint = format!("http://127.0.0.1:{}", free_port());
    bounded_and_clear(&endpoint).await;
    let text = store_at(&endpoint).list().await.unwrap_err().to_string();
    assert!(text.contains("Connection refused"), "{text}");
}

#[tokio::test]
async fn an_etcd_that_accepts_and_says_nothing() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    bounded_and_clear(&format!("http://{}", silent.local_addr().unwrap())).await;
}

#[tokio::test]
async fn a_watch_started_before_etcd_finds_it() {
    let mut etcd = Etcd::start().await;
    etcd.put_peer("10.9.0.0-24", "192.0.2.7").await;
    etcd.kill();
    let mut watch = Watch::start_unread(etcd.store(), 8);
    assert!(watch.degraded(6).await.contains("Connection refused"));
    let port = etcd.port();
    // The first process is reaped already; restarting kills nothing.
    etcd.restart_at(port).await;
    assert_eq!(watch.snapshot().await, ["10.9.0.0/24=192.0.2.7"]);
    assert_eq!(watch.next(3).await, Update::Health(Health::Ok));
}

#[tokio::test]
async fn one_dead_endpoint_of_two_is_no_trouble() {
    let etcd = Etcd::start().await;
    etcd.put_peer("10.9.0.0-24", "192.0.2.7").await;
    let dead = format!("127.0.0.1:{}", free_port());
    let store = EtcdStore::new(options(&[dead, etcd.endpoint()])).unwrap();
    for _ in 0..20 {
        assert_eq!(store.list().await.unwrap().len(), 1);
    }
}
