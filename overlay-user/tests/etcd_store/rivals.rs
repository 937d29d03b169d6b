//! Another node that gives itself our address: it is not fought with, and it is named.

use overlay_common::Mac;
use overlay_user::store::{
    Announcement, EtcdOptions, EtcdStore, Health, Store, StoreError, Subnets, etcd::Wish, schema::lease_value,
};

use crate::{
    announce::{NAME, Node, VALUE, announced, ours},
    etcd::{Etcd, Log, eventually, options, peer},
};

/// A node with our address and our subnet.
fn rival() -> Announcement {
    Announcement { vtep_mac: "02:00:00:00:00:99".into(), ..ours() }
}

fn store(etcd: &Etcd, node: &str) -> EtcdStore {
    EtcdStore::new(EtcdOptions { node: node.into(), ..options(&[etcd.endpoint()]) }).unwrap()
}

async fn alive(etcd: &Etcd) {
    let mac = Mac([2, 0, 0, 0, 0, 7]);
    eventually("the node says who it is", 5, async || {
        etcd.store().rival(ours().host, mac).await.unwrap().is_some()
    })
    .await;
}

#[tokio::test]
async fn who_comes_second_is_refused_as_long_as_the_first_lives() {
    let etcd = Etcd::start().await;
    let node = Node::start(etcd.store());
    announced(&etcd).await;
    alive(&etcd).await;
    let found = store(&etcd, "n2").rival(ours().host, Mac([2, 0, 0, 0, 0, 0x99])).await.unwrap();
    assert_eq!(found.as_deref(), Some("node n1 (172.16.199.27, VTEP 02:00:00:00:00:01)"));
    assert_eq!(
        store(&etcd, "n1").rival(ours().host, Mac([2, 0, 0, 0, 0, 1])).await.unwrap(),
        None,
        "ourselves"
    );
    for announcement in [
        rival(),
        Announcement { subnets: Subnets { v6: "fd00:27::/64".parse().ok(), ..ours().subnets }, ..rival() },
    ] {
        let error = store(&etcd, "n2").claim(&[announcement]).await.unwrap_err();
        assert!(matches!(&error, StoreError::Conflict(_)), "{error}");
        for part in ["172.27.0.0/16 is held by node n1 (172.16.199.27", "own address", "--public-ip"] {
            assert!(error.to_string().contains(part), "{error}");
        }
    }
    // What it has by its address is what the other has.
    etcd.put("config", r#"{"Network":"172.16.0.0/12","SubnetLen":16}"#).await;
    let announcement = |subnets| Announcement { subnets, ..rival() };
    let wish = Wish { host: ours().host, remembered: None, node: "n2", announcement };
    let error = store(&etcd, "n2").lease(&wish).await.unwrap_err().to_string();
    assert!(error.contains("held by node n1 (172.16.199.27") && error.contains("--public-ip"), "{error}");
    assert_eq!(etcd.subnet(NAME).await.unwrap().0, VALUE);
    // A second bridge, and another host, are no trouble.
    let other = |subnet: &str, announcement: Announcement| Announcement {
        subnets: Subnets { v4: subnet.parse().unwrap(), v6: None },
        ..announcement
    };
    store(&etcd, "n1").claim(&[other("172.28.0.0/16", ours())]).await.unwrap();
    let host = std::net::Ipv4Addr::new(172, 16, 199, 28).into();
    store(&etcd, "n2").claim(&[other("172.29.0.0/16", Announcement { host, ..rival() })]).await.unwrap();

    drop(node);
    etcd.delete("overlayd/nodes/n1").await;
    store(&etcd, "n2").claim(&[rival()]).await.unwrap();
    assert_eq!(
        etcd.subnet(NAME).await.unwrap().0,
        lease_value(&rival()),
        "a host that was made anew has its subnet"
    );
}

#[tokio::test]
async fn a_rival_that_takes_our_key_is_named_and_not_fought_with() {
    let log = Log::capture();
    let etcd = Etcd::start().await;
    let mut node = Node::start(etcd.store());
    announced(&etcd).await;
    assert_eq!(node.health(3).await, Health::Ok);
    // Of nobody who lives: somebody's mistake.
    etcd.put_leased(NAME, &lease_value(&rival())).await;
    announced(&etcd).await;
    let says =
        r#"{"Version":"0","PublicIP":"172.16.199.27","PublicIPv6":null,"VtepMAC":"02:00:00:00:00:99"}"#;
    etcd.put("overlayd/nodes/n2", says).await;
    etcd.put_leased(NAME, &lease_value(&rival())).await;
    let Health::Degraded { reason } = node.health(5).await else { panic!("Degraded was expected") };
    assert!(
        reason.contains("172.27.0.0/16 is held by node n2 (172.16.199.27, VTEP 02:00:00:00:00:99)"),
        "{reason}"
    );
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert_eq!(etcd.subnet(NAME).await.unwrap().0, lease_value(&rival()));
    assert_eq!(log.warnings("is not announced").len(), 1);
    etcd.delete("overlayd/nodes/n2").await;
    assert_eq!(node.health(8).await, Health::Ok);
    announced(&etcd).await;
    etcd.put_leased(NAME, &peer("172.16.199.27")).await;
    announced(&etcd).await;
}
