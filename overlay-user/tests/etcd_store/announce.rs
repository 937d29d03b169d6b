//! Our own keys: taken, kept, never fought over, taken back.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use overlay_common::Encap;
use overlay_user::store::{Announcement, EtcdOptions, EtcdStore, Health, Store, StoreError, Subnets, Update};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

use crate::etcd::{Etcd, Log, eventually, options, peer};

pub(crate) const NAME: &str = "172.27.0.0-16";
pub(crate) const VALUE: &str = r#"{"PublicIP":"172.16.199.27","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}}"#;

pub(crate) fn ours() -> Announcement {
    Announcement {
        subnets: Subnets { v4: "172.27.0.0/16".parse().unwrap(), v6: None },
        host: Ipv4Addr::new(172, 16, 199, 27).into(),
        src_ips: Vec::new(),
        vni: 1,
        vtep_mac: "02:00:00:00:00:01".into(),
        encap: Encap::Vxlan,
    }
}

/// Watches and announces through one store, as the daemon does.
pub(crate) struct Node {
    updates: mpsc::Receiver<Update>,
    tasks: [JoinHandle<()>; 2],
}

impl Node {
    pub(crate) fn start(store: EtcdStore) -> Self {
        let (sender, updates) = mpsc::channel(64);
        let (store, to_watch) = (Arc::new(store), sender.clone());
        let watching = Arc::clone(&store);
        let watch = tokio::spawn(async move { watching.watch(to_watch).await });
        let announce = tokio::spawn(async move { store.announce(vec![ours()], sender).await });
        Self { updates, tasks: [watch, announce] }
    }

    pub(crate) async fn health(&mut self, seconds: u64) -> Health {
        let next = async {
            loop {
                if let Update::Health(health) = self.updates.recv().await.expect("the node runs") {
                    return health;
                }
            }
        };
        timeout(Duration::from_secs(seconds), next).await.expect("a change of health in time")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

pub(crate) async fn announced(etcd: &Etcd) {
    eventually("our key", 3, async || etcd.subnet(NAME).await.is_some_and(|(value, ..)| value == VALUE))
        .await;
}

#[tokio::test]
async fn announced_under_a_lease_adopted_and_withdrawn() {
    let etcd = Etcd::start().await;
    let node = Node::start(etcd.store());
    announced(&etcd).await;
    let before = etcd.subnet(NAME).await.unwrap();
    let lease = before.1;
    let found = etcd.client().await.lease_time_to_live(lease, None).await.unwrap();
    assert!(found.granted_ttl() == 86_400 && found.ttl() > 86_000, "{found:?}");
    drop(node);
    assert_eq!(etcd.subnet(NAME).await, Some(before.clone()), "dropping it leaves the key");

    etcd.store().claim(&[ours()]).await.unwrap();
    assert_eq!(etcd.subnet(NAME).await, Some(before), "an unchanged key is adopted, not written again");

    etcd.store().withdraw(&[ours()]).await.unwrap();
    assert_eq!(etcd.subnet(NAME).await, None);
    assert!(
        etcd.client().await.lease_time_to_live(lease, None).await.unwrap().ttl() <= 0,
        "the lease is revoked"
    );
    etcd.store().withdraw(&[ours()]).await.unwrap();
}

#[tokio::test]
async fn our_key_deleted_or_edited_by_hand_is_written_again() {
    let log = Log::capture();
    let etcd = Etcd::start().await;
    let mut node = Node::start(etcd.store());
    announced(&etcd).await;
    assert_eq!(node.health(3).await, Health::Ok);
    etcd.delete(&format!("subnets/{NAME}")).await;
    announced(&etcd).await;
    assert_eq!(log.warnings("was deleted").len(), 1);
    etcd.put_leased(NAME, &peer("172.16.199.27")).await;
    announced(&etcd).await;
    assert_eq!(log.warnings("was changed").len(), 1);
    assert_ne!(etcd.subnet(NAME).await.unwrap().1, 0);
    etcd.put_peer(NAME, "172.16.199.27").await;
    announced(&etcd).await;
    assert_eq!(etcd.subnet(NAME).await.unwrap().1, 0, "what was put without a lease is reserved");
}

#[tokio::test]
async fn a_subnet_of_another_host_is_refused() {
    let etcd = Etcd::start().await;
    etcd.put_peer(NAME, "172.16.199.99").await;
    let error = etcd.store().claim(&[ours()]).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict(_)), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("subnet 172.27.0.0/16 is held by 172.16.199.99"), "{text}");
    etcd.store().withdraw(&[ours()]).await.unwrap();
    assert!(etcd.subnet(NAME).await.is_some(), "another host's key is not ours to delete");
}

#[tokio::test]
async fn a_subnet_taken_by_another_host_is_not_fought_over() {
    let log = Log::capture();
    let etcd = Etcd::start().await;
    let mut node = Node::start(etcd.store());
    announced(&etcd).await;
    assert_eq!(node.health(3).await, Health::Ok);
    etcd.put_peer(NAME, "172.16.199.99").await;
    let Health::Degraded { reason } = node.health(3).await else { panic!("Degraded was expected") };
    assert!(reason.contains("172.27.0.0/16 is held by 172.16.199.99"), "{reason}");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(etcd.subnet(NAME).await.unwrap().0, peer("172.16.199.99"));
    assert_eq!(log.warnings("was taken by 172.16.199.99").len(), 1);
    assert_eq!(log.warnings("is not announced").len(), 1);
    etcd.delete(&format!("subnets/{NAME}")).await;
    assert_eq!(node.health(8).await, Health::Ok);
    announced(&etcd).await;
}

#[tokio::test]
async fn what_this_node_announced_under_another_address_is_replaced() {
    let etcd = Etcd::start().await;
    etcd.put_peer(NAME, "172.16.199.26").await;
    let previous = vec![Announcement { host: Ipv4Addr::new(172, 16, 199, 26).into(), ..ours() }];
    let options = EtcdOptions { previous, ..options(&[etcd.endpoint()]) };
    EtcdStore::new(options).unwrap().claim(&[ours()]).await.unwrap();
    assert_eq!(etcd.subnet(NAME).await.unwrap().0, VALUE);
}

#[tokio::test]
async fn the_key_survives_a_restart_of_etcd_and_is_found_again() {
    let mut etcd = Etcd::start().await;
    let mut node = Node::start(etcd.store());
    announced(&etcd).await;
    assert_eq!(node.health(3).await, Health::Ok);
    let port = etcd.port();
    etcd.restart_at(port).await;
    assert!(matches!(node.health(3).await, Health::Degraded { .. }));
    assert_eq!(node.health(15).await, Health::Ok);
    etcd.delete(&format!("subnets/{NAME}")).await;
    eventually("our key", 12, async || etcd.subnet(NAME).await.is_some_and(|(value, ..)| value == VALUE))
        .await;
}
