//! The subnets' keys as an operator sees and changes them.

use std::time::Duration;

use overlay_user::{
    store::{
        Announcement, EtcdOptions, EtcdStore, Store, StoreError, Subnets,
        etcd::{Held, Release, Wish},
    },
    underlay::Underlay,
};

use crate::{
    announce::{NAME, Node, VALUE, announced, ours},
    etcd::{Etcd, Log, PREFIX, Watch, eventually, options, peer},
};

const DAY: u64 = 86_400;
const DELETE: Release = Release { delete: true, force: false };
const POOL: &str =
    r#"{"Network":"172.16.0.0/12","SubnetLen":16,"EnableIPv6":true,"IPv6Network":"fd00::/56"}"#;

fn nets(text: &str) -> Vec<ipnet::IpNet> {
    text.split(',').map(|net| net.parse().unwrap()).collect()
}

fn host(ip: &str) -> Option<Underlay> {
    Underlay::new(ip.parse().ok(), None)
}

async fn list(etcd: &Etcd) -> Vec<Held> {
    etcd.store().leases().await.unwrap().held
}

async fn reserve(etcd: &Etcd, subnets: &str, ip: Option<&str>) -> Result<Held, StoreError> {
    etcd.store().reserve(&nets(subnets), ip.and_then(host)).await
}

async fn release(etcd: &Etcd, subnets: &str, how: Release) -> Result<Held, StoreError> {
    etcd.store().release(&nets(subnets), how).await
}

/// Which node each key's host is, as soon as it has said so.
async fn alive(etcd: &Etcd) {
    eventually("the node says who it is", 5, async || {
        list(etcd).await.iter().any(|held| held.node.as_deref() == Some("n1"))
    })
    .await;
}

/// A store of a node that leases for a host with this address.
async fn leased(etcd: &Etcd, node: &str, ip: &str) -> Subnets {
    let store = EtcdStore::new(EtcdOptions { node: node.into(), ..options(&[etcd.endpoint()]) }).unwrap();
    let host = host(ip).unwrap();
    let announcement = |subnets| Announcement { subnets, host, ..ours() };
    let leased = store.lease(&Wish { host, remembered: None, node, announcement }).await.unwrap();
    leased.announcement.subnets
}

#[tokio::test]
async fn each_key_is_listed_with_its_holder_and_its_time() {
    let etcd = Etcd::start().await;
    etcd.put("config", POOL).await;
    etcd.put_leased("172.28.0.0-16&fd00:0:0:1c::-64", &peer("172.16.199.28")).await;
    etcd.put_peer("172.29.0.0-16", "172.16.199.29").await;
    etcd.put("subnets/nonsense", "{}").await;
    let _node = Node::start(etcd.store());
    announced(&etcd).await;
    alive(&etcd).await;
    let overview = etcd.store().leases().await.unwrap();
    let told: Vec<_> = overview
        .held
        .iter()
        .map(|held| {
            let text = |host: Underlay| host.to_string();
            let is_long = held.expires.is_some_and(|expires| expires > DAY - 60 && expires <= DAY);
            (
                held.key.rsplit('/').next().unwrap(),
                held.host.map(text),
                held.expires.map(|_| is_long),
                held.node.as_deref(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            (NAME, Some("172.16.199.27".into()), Some(true), Some("n1")),
            ("172.28.0.0-16&fd00:0:0:1c::-64", Some("172.16.199.28".into()), Some(true), None),
            ("172.29.0.0-16", Some("172.16.199.29".into()), None, None),
            ("nonsense", None, None, None),
        ]
    );
    assert_eq!(overview.held[0].kind.as_deref(), Some("vxlan"));
    assert_eq!(overview.held[3].subnets, None);
    let pools = overview.pools.unwrap();
    let v4: Vec<_> = overview.held.iter().filter_map(|held| Some(held.subnets?.v4)).collect();
    assert_eq!((pools.v4.count(), pools.v4.count_free(&v4)), (15, 12));
    etcd.delete("config").await;
    assert!(etcd.store().leases().await.unwrap().pools.unwrap_err().contains("there is none"));
}

#[tokio::test]
async fn a_node_whose_key_is_reserved_keeps_it_so() {
    let log = Log::capture();
    let etcd = Etcd::start().await;
    let node = Node::start(etcd.store());
    announced(&etcd).await;
    alive(&etcd).await;
    let lease = etcd.subnet(NAME).await.unwrap().1;
    let held = reserve(&etcd, "172.27.0.0/16", None).await.unwrap();
    assert_eq!((held.node.as_deref(), held.expires), (Some("n1"), None));
    let reserved = etcd.subnet(NAME).await.unwrap();
    assert_eq!((reserved.0.as_str(), reserved.1), (VALUE, 0));
    let found = etcd.client().await.lease_time_to_live(lease, None).await.unwrap();
    assert!(found.ttl() <= 0, "nothing hangs on it: {found:?}");
    assert_eq!(
        reserve(&etcd, "172.27.0.0/16", Some("172.16.199.27")).await.unwrap(),
        held,
        "it is so already"
    );
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(etcd.subnet(NAME).await.as_ref(), Some(&reserved), "it is left alone");
    drop(node);
    etcd.store().claim(&[ours()]).await.unwrap();
    assert_eq!(etcd.subnet(NAME).await.as_ref(), Some(&reserved), "over a restart, too");
    // Another VTEP, as where the state was lost, long after the last life; and with an IPv6 part.
    etcd.delete("overlayd/nodes/n1").await;
    let other = Announcement { vtep_mac: "02:00:00:00:00:02".into(), ..ours() };
    etcd.store().claim(std::slice::from_ref(&other)).await.unwrap();
    assert_eq!(etcd.subnet(NAME).await.unwrap().1, 0);
    let dual =
        Announcement { subnets: Subnets { v6: "fd00:27::/64".parse().ok(), ..other.subnets }, ..other };
    etcd.store().claim(&[dual]).await.unwrap();
    assert_eq!(etcd.subnet(NAME).await, None);
    assert_eq!(etcd.subnet("172.27.0.0-16&fd00:27::-64").await.unwrap().1, 0);
    assert_eq!(log.warnings("etcd key"), Vec::<String>::new());
}

#[tokio::test]
async fn a_reservation_that_is_released_is_renewed_by_its_node() {
    let log = Log::capture();
    let etcd = Etcd::start().await;
    let _node = Node::start(etcd.store());
    announced(&etcd).await;
    alive(&etcd).await;
    let error = release(&etcd, "172.27.0.0/16", Release::default()).await.unwrap_err().to_string();
    assert!(error.contains("172.27.0.0/16 is not reserved") && error.contains("--delete"), "{error}");
    reserve(&etcd, "172.27.0.0/16", None).await.unwrap();
    let held = release(&etcd, "172.27.0.0/16", Release::default()).await.unwrap();
    assert_eq!(held.expires, Some(DAY));
    let (value, lease, revision) = etcd.subnet(NAME).await.unwrap();
    assert!(value == VALUE && lease != 0);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(etcd.subnet(NAME).await, Some((value, lease, revision)), "adopted as it is");
    let found = etcd.client().await.lease_time_to_live(lease, None).await.unwrap();
    assert!(found.ttl() > 86_390, "{found:?}");

    let error = release(&etcd, "172.27.0.0/16", DELETE).await.unwrap_err();
    assert!(matches!(&error, StoreError::Conflict(_)), "{error}");
    assert!(error.to_string().contains("in use by node n1, which lives"), "{error}");
    assert!(etcd.subnet(NAME).await.is_some());
    assert_eq!(log.warnings("etcd key"), Vec::<String>::new());
    release(&etcd, "172.27.0.0/16", Release { force: true, ..DELETE }).await.unwrap();
    announced(&etcd).await;
}

#[tokio::test]
async fn what_a_dead_host_holds_can_be_deleted() {
    let etcd = Etcd::start().await;
    etcd.put_leased(NAME, VALUE).await;
    let lease = etcd.subnet(NAME).await.unwrap().1;
    etcd.put_peer("172.28.0.0-16&fd00:28::-64", "172.16.199.28").await;
    assert_eq!(release(&etcd, "172.27.0.0/16", DELETE).await.unwrap().host, host("172.16.199.27"));
    assert_eq!(etcd.subnet(NAME).await, None);
    let found = etcd.client().await.lease_time_to_live(lease, None).await.unwrap();
    assert!(found.ttl() <= 0, "{found:?}");
    release(&etcd, "fd00:28::/64", DELETE).await.unwrap();
    assert!(list(&etcd).await.is_empty());
    let error = release(&etcd, "172.27.0.0/16", DELETE).await.unwrap_err().to_string();
    assert!(error.contains("nobody holds 172.27.0.0/16"), "{error}");
}

#[tokio::test]
async fn a_subnet_is_kept_for_a_host_that_is_not_there_yet() {
    let log = Log::capture();
    let etcd = Etcd::start().await;
    etcd.put("config", POOL).await;
    let (mut watch, _) = Watch::start(etcd.store()).await;
    let wanted = "172.22.0.0/16,fd00:0:0:5::/64";
    let held = reserve(&etcd, wanted, Some("172.16.199.22")).await.unwrap();
    assert_eq!((held.host, held.expires, held.kind), (host("172.16.199.22"), None, None));
    let name = "172.22.0.0-16&fd00:0:0:5::-64";
    assert_eq!(etcd.subnet(name).await.unwrap().1, 0);
    let error = reserve(&etcd, "172.22.0.0/16", Some("172.16.199.23")).await.unwrap_err();
    assert!(error.to_string().contains("172.22.0.0/16 is held by 172.16.199.22"), "{error}");
    // All the others of the pool, and none of it.
    for n in 1..15 {
        let subnets = leased(&etcd, &format!("other-{n}"), &format!("172.16.199.{}", 100 + n)).await;
        assert!(subnets.v4.to_string() != "172.22.0.0/16" && subnets.v6 != "fd00:0:0:5::/64".parse().ok());
        assert_eq!(watch.change().await.split('=').next(), Some(subnets.v4.to_string().as_str()));
        assert!(watch.change().await.starts_with("fd00:"));
    }
    let got = leased(&etcd, "n22", "172.16.199.22").await;
    assert_eq!(got.to_string(), "172.22.0.0/16, fd00:0:0:5::/64");
    assert_eq!(watch.change().await, "172.22.0.0/16=172.16.199.22", "from now on one sends there");
    assert_eq!(watch.change().await, "fd00:0:0:5::/64=172.16.199.22");
    assert_eq!(etcd.subnet(name).await.unwrap().1, 0, "it stays reserved");

    let announcement = Announcement { subnets: got, host: host("172.16.199.22").unwrap(), ..ours() };
    etcd.store().withdraw(&[announcement]).await.unwrap();
    assert_eq!(watch.change().await, "172.22.0.0/16 gone");
    assert_eq!(watch.change().await, "fd00:0:0:5::/64 gone");
    assert_eq!(list(&etcd).await.iter().filter(|held| held.host == host("172.16.199.22")).count(), 1);
    release(&etcd, wanted, DELETE).await.unwrap();
    assert_eq!(etcd.subnet(name).await, None);
    watch.nothing_more();
    assert_eq!(log.warnings("etcd key"), Vec::<String>::new());
}

#[tokio::test]
async fn what_cannot_be_reserved_is_told() {
    let etcd = Etcd::start().await;
    etcd.put("config", POOL).await;
    etcd.put_leased(NAME, VALUE).await;
    let ip = Some("172.16.199.30");
    for (subnets, ip, says) in [
        ("172.30.0.0/16", None, "nobody holds 172.30.0.0/16: say with --public-ip"),
        ("172.27.0.0/16", ip, "172.27.0.0/16 is held by 172.16.199.27"),
        ("172.27.5.0/24", ip, "overlaps others"),
        ("172.0.0.0/8", ip, "overlaps others"),
        ("172.30.0.0/24", ip, "172.30.0.0/24 is leased by no host"),
        ("10.9.0.0/16", ip, "10.9.0.0/16 is leased by no host: those of 172.16.0.0/12 are 172.17.0.0/16 to"),
        ("172.30.0.1/16", ip, "host bits"),
        ("172.16.0.0/16", ip, "--public-ip 172.16.199.30 lies in 172.16.0.0/16"),
        ("fd00:0:0:1::/64", ip, "an IPv4 subnet"),
        ("172.30.0.0/16,172.31.0.0/16", ip, "an IPv4 subnet and at most one of IPv6"),
    ] {
        let error = reserve(&etcd, subnets, ip).await.unwrap_err().to_string();
        assert!(error.contains(says), "{subnets}: {error}");
        assert!(!error.contains('\n'));
    }
    assert_eq!(list(&etcd).await.len(), 1);
    etcd.put(&format!("subnets/{NAME}"), "nonsense").await;
    let error = reserve(&etcd, "172.27.0.0/16", None).await.unwrap_err().to_string();
    assert!(
        error.contains(&format!("{PREFIX}/subnets/{NAME}")) && error.contains("names no host"),
        "{error}"
    );
}

/// Without and with an IPv6 part: the one is named by all that it is of.
#[tokio::test]
async fn of_two_keys_the_one_that_is_named_is_released() {
    let etcd = Etcd::start().await;
    let dual = "172.27.0.0-16&fd00:27::-64";
    for name in [NAME, dual] {
        etcd.put_peer(name, "172.16.199.27").await;
    }
    release(&etcd, "172.27.0.0/16", DELETE).await.unwrap();
    assert!(etcd.subnet(NAME).await.is_none() && etcd.subnet(dual).await.is_some());
    etcd.put_peer(NAME, "172.16.199.27").await;
    release(&etcd, "172.27.0.0/16,fd00:27::/64", DELETE).await.unwrap();
    assert!(etcd.subnet(NAME).await.is_some() && etcd.subnet(dual).await.is_none());
}

/// Hosts that draw different IPv4 subnets and the same IPv6 one: three of those are there for three hosts.
#[tokio::test]
async fn hosts_that_lease_at_once_get_one_of_each_version() {
    let etcd = Etcd::start().await;
    let pool = r#"{"Network":"172.16.0.0/12","SubnetLen":16,"EnableIPv6":true,"IPv6Network":"fd00::/62"}"#;
    etcd.put("config", pool).await;
    let hosts = (1..=3).map(|n| {
        let etcd = &etcd;
        async move { leased(etcd, &format!("host-{}", 5 * n), &format!("172.32.0.{n}")).await }
    });
    let got = futures::future::join_all(hosts).await;
    for (n, one) in got.iter().enumerate() {
        assert!(one.v6.is_some(), "{got:?}");
        assert!(got[n + 1..].iter().all(|other| other.v4 != one.v4 && other.v6 != one.v6), "{got:?}");
    }
    let listed: Vec<_> = list(&etcd).await.into_iter().filter_map(|held| held.subnets).collect();
    assert!(listed.len() == 3 && got.iter().all(|one| listed.contains(one)), "{listed:?} {got:?}");
}
