//! An etcd that has lost most of what it had.

use std::time::Duration;

use overlay_user::store::{EtcdOptions, EtcdStore, Health, Store, Update};

use crate::etcd::{Etcd, Watch, options};

const DELAY: Duration = Duration::from_secs(3);

fn store(etcd: &Etcd, in_force: usize) -> EtcdStore {
    EtcdStore::new(EtcdOptions { prune_delay: DELAY, in_force, ..options(&[etcd.endpoint()]) }).unwrap()
}

async fn with_peers() -> Etcd {
    let etcd = Etcd::start().await;
    for n in 1..=6 {
        etcd.put_peer(&format!("10.{n}.0.0-24"), &format!("192.0.2.{n}")).await;
    }
    etcd
}

#[tokio::test]
async fn most_keys_deleted_at_once_stay_in_force_for_a_while() {
    let etcd = with_peers().await;
    let (mut watch, first) = Watch::start(store(&etcd, 0)).await;
    assert_eq!(first.len(), 6);
    etcd.delete_all("subnets/").await;
    let reason = watch.degraded(3).await;
    assert!(reason.starts_with("most subnets vanished from etcd at once"), "{reason}");
    // Two come back, as they were, and elsewhere: of the first there is nothing to tell.
    etcd.put_peer("10.1.0.0-24", "192.0.2.1").await;
    etcd.put_peer("10.2.0.0-24", "192.0.2.102").await;
    assert_eq!(watch.change().await, "10.2.0.0/24=192.0.2.102");
    let mut gone = Vec::new();
    while gone.len() < 4 {
        if let Update::Delete(subnet) = watch.next(6).await {
            gone.push(subnet.to_string());
        }
    }
    assert_eq!(gone, ["10.3.0.0/24", "10.4.0.0/24", "10.5.0.0/24", "10.6.0.0/24"]);
    assert_eq!(watch.next(3).await, Update::Health(Health::Ok));
}

/// A daemon that starts while etcd is empty must not believe it either.
#[tokio::test]
async fn what_was_in_force_before_a_start_is_not_given_up_for_nothing() {
    let etcd = Etcd::start().await;
    let store = store(&etcd, 6);
    let doubt = store.doubt(&store.list().await.unwrap()).unwrap();
    assert!(doubt.contains("half of the 6 subnets"), "{doubt}");
    let mut watch = Watch::start_unread(store, 8);
    assert!(watch.degraded(5).await.contains("half of the 6 subnets"));
    for n in 1..=3 {
        etcd.put_peer(&format!("10.{n}.0.0-24"), &format!("192.0.2.{n}")).await;
    }
    let expected = ["10.1.0.0/24=192.0.2.1", "10.2.0.0/24=192.0.2.2", "10.3.0.0/24=192.0.2.3"];
    assert_eq!(watch.snapshot().await, expected);
    assert_eq!(watch.next(3).await, Update::Health(Health::Ok));
}

#[tokio::test]
async fn an_etcd_that_stays_empty_is_believed_in_the_end() {
    let etcd = Etcd::start().await;
    let mut watch = Watch::start_unread(store(&etcd, 6), 8);
    assert!(watch.degraded(5).await.contains("half of the 6 subnets"));
    assert!(watch.snapshot().await.is_empty());
}
