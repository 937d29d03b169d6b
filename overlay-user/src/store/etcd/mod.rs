//! The etcd store. `access` says how to be let in, `link` holds the connection, `list`, `stream` and `watch` read, `canary`
//! proves that the watch is alive, `fold` turns keys into peers, `guard` doubts that most of them are gone, `warnings`
//! remembers what was said of them, `claim`, `announce` and `withdraw` write our own keys under a `lease`, `nodes` tells who
//! lives, `pool` finds a subnet that is free, `leases` is for operators, `health` joins what they all say of themselves.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use ipnet::IpNet;
use overlay_common::{Mac, map::StoreKind};
use tokio::{sync::mpsc, time::Instant};

use super::{Announcement, NetworkConfig, PeerSubnet, Store, StoreError, Subnets, Update, schema};
use crate::underlay::Underlay;

mod access;
mod announce;
mod canary;
mod claim;
mod fold;
mod guard;
mod health;
mod lease;
mod leases;
mod link;
mod list;
mod nodes;
mod pool;
mod stream;
mod warnings;
mod watch;
mod withdraw;

pub use access::{Access, Secret};
use canary::Canary;
use fold::{Entry, Fold};
use guard::Guard;
use health::Board;
pub use leases::{Held, Overview, Release};
use link::Link;
pub use pool::{Leased, Wish};
use warnings::Warnings;

/// Where etcd is, and what in it is ours.
#[derive(Clone, Debug)]
pub struct EtcdOptions {
    /// How it is reached.
    pub access: Access,
    /// The prefix of all keys, as in `/overlayd/network`.
    pub prefix: String,
    /// This node's name.
    pub node: String,
    /// For how long the disappearance of most subnets at once is doubted; zero for not at all.
    pub prune_delay: Duration,
    /// How many subnets were in force when this daemon started.
    pub in_force: usize,
    /// What this node announced earlier: it may be replaced even where our address has changed since.
    pub previous: Vec<Announcement>,
}

/// Peers from etcd, in flannel's schema.
#[derive(Debug)]
pub struct EtcdStore {
    link: Link,
    prefix: String,
    /// What this node announced, in earlier lives and in this one.
    announced: Mutex<Vec<Announcement>>,
    /// Who this node is, once it announces something: the first of what it announces now.
    present: Mutex<Option<Announcement>>,
    warnings: Warnings,
    health: Board,
    canary: Canary,
    prune_delay: Duration,
    in_force: usize,
    /// The network's configuration, as it was told to the daemon.
    told: Mutex<Option<Option<NetworkConfig>>>,
}

impl EtcdStore {
    /// Checks the options. Nothing is sent until the first call.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] where an endpoint or the prefix is malformed.
    pub fn new(options: EtcdOptions) -> Result<Self, StoreError> {
        let EtcdOptions { access, prefix, node, prune_delay, in_force, previous } = options;
        if prefix.trim().is_empty() {
            return Err(StoreError::Invalid(
                "the etcd prefix is empty: one like /overlayd/network is expected".into(),
            ));
        }
        let prefix = prefix.trim_end_matches('/').to_owned();
        Ok(Self {
            link: Link::new(access)?,
            canary: Canary::new(&prefix, &node),
            prefix,
            prune_delay,
            in_force,
            told: Mutex::default(),
            announced: Mutex::new(previous),
            present: Mutex::default(),
            warnings: Warnings::default(),
            health: Board::default(),
        })
    }

    async fn read_network(&self) -> Result<Option<NetworkConfig>, StoreError> {
        let key = schema::config_key(&self.prefix);
        let Some(value) = list::value(&self.link, &key).await? else { return Ok(None) };
        schema::parse_config(&value).map(Some).map_err(|error| {
            StoreError::Invalid(format!("etcd key {key}: {error}; correct it with etcdctl put"))
        })
    }

    /// Reads the network's configuration again, and reports where it is another than the daemon knows.
    async fn compare_network(&self, updates: &mpsc::Sender<Update>) -> Result<(), StoreError> {
        let told = *self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(told) = told else { return Ok(()) };
        let trouble = match self.read_network().await {
            Ok(now) => (now != told).then(|| {
                format!(
                    "the network's configuration (etcd key {}) has changed since overlayd started: SIGHUP, or systemctl \
                     reload overlayd, has it taken over",
                    schema::config_key(&self.prefix)
                )
            }),
            Err(StoreError::Invalid(reason)) => Some(reason),
            Err(error) => return Err(error),
        };
        self.health.network(trouble, updates).await;
        Ok(())
    }

    fn subnets(&self) -> String {
        schema::subnets_prefix(&self.prefix)
    }

    fn subnet_key(&self, subnets: Subnets) -> String {
        schema::subnet_key(&self.prefix, subnets)
    }

    /// Whether this node once announced one of these subnets as this host: the key is its own then, though the
    /// address has changed since.
    fn has_announced(&self, subnets: Subnets, host: Underlay) -> bool {
        let announced = self.announced.lock().unwrap_or_else(PoisonError::into_inner);
        announced.iter().any(|earlier| earlier.subnets.common(subnets).is_some() && earlier.host.shares(host))
    }

    /// Whether this node once had a VTEP with this MAC address.
    fn has_been(&self, vtep_mac: Mac) -> bool {
        let announced = self.announced.lock().unwrap_or_else(PoisonError::into_inner);
        announced.iter().any(|earlier| earlier.vtep_mac.parse::<Mac>().is_ok_and(|mac| mac == vtep_mac))
    }

    fn note_present(&self, announcements: &[Announcement]) {
        *self.present.lock().unwrap_or_else(PoisonError::into_inner) = announcements.first().cloned();
    }

    /// What this node's key says.
    fn node_value(&self) -> String {
        schema::node_value(self.present.lock().unwrap_or_else(PoisonError::into_inner).as_ref())
    }

    fn note_announced(&self, announcement: &Announcement) {
        let mut announced = self.announced.lock().unwrap_or_else(PoisonError::into_inner);
        if !announced.contains(announcement) {
            announced.push(announcement.clone());
        }
    }
}

#[async_trait]
impl Store for EtcdStore {
    fn kind(&self) -> StoreKind {
        StoreKind::Etcd
    }

    async fn network(&self) -> Result<Option<NetworkConfig>, StoreError> {
        let network = self.read_network().await?;
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = Some(network);
        Ok(network)
    }

    async fn list(&self) -> Result<BTreeMap<IpNet, PeerSubnet>, StoreError> {
        let subnets = self.subnets();
        let listing = list::all(&self.link, &subnets, |pair| Entry::of(&subnets, pair)).await?;
        Ok(Fold::new(&self.warnings).replace(listing.pairs))
    }

    fn doubt(&self, list: &BTreeMap<IpNet, PeerSubnet>) -> Option<String> {
        let mut guard = Guard::new(self.prune_delay, self.in_force);
        let believed = guard.replace(list.clone(), Instant::now()).is_some();
        guard.trouble().filter(|_| !believed)
    }

    async fn watch(&self, updates: mpsc::Sender<Update>) {
        tokio::select! {
            () = updates.closed() => {}
            () = watch::run(self, &updates) => {}
        }
    }

    async fn rival(&self, host: Underlay, vtep_mac: Mac) -> Result<Option<String>, StoreError> {
        let what = format!("listing {}", schema::nodes_prefix(&self.prefix));
        let prefix = &self.prefix;
        let found = self
            .link
            .call(&what, |client| async move { nodes::rival(&client, prefix, host, vtep_mac).await });
        Ok(found.await?.map(|node| node.to_string()))
    }

    async fn claim(&self, announcements: &[Announcement]) -> Result<(), StoreError> {
        self.note_present(announcements);
        for announcement in announcements {
            claim::claim(self, announcement).await?;
        }
        Ok(())
    }

    async fn announce(&self, announcements: Vec<Announcement>, updates: mpsc::Sender<Update>) {
        self.note_present(&announcements);
        let keepers = announcements.iter().map(|announcement| announce::keep(self, announcement, &updates));
        futures::future::join_all(keepers).await;
        // Nothing to announce is announced for ever, too.
        std::future::pending().await
    }

    async fn reconnect(&self) {
        self.link.reset();
    }

    async fn withdraw(&self, announcements: &[Announcement]) -> Result<(), StoreError> {
        withdraw::run(self, announcements).await
    }
}
