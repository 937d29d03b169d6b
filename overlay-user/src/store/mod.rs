//! Where routes come from: one trait, implemented by etcd and by the peers file.
//!
//! A store only reports and announces. What its reports mean for this host is decided in
//! [`crate::reconcile`].

use std::{collections::BTreeMap, net::Ipv4Addr};

use async_trait::async_trait;
use ipnet::Ipv4Net;
use overlay_common::{Encap, Mac, Vni, map::StoreKind};
use tokio::sync::mpsc;

mod address;
pub mod etcd;
pub mod file;
pub mod schema;

pub use etcd::{EtcdOptions, EtcdStore};
pub use file::FileStore;

/// One subnet of one host, as a store tells it. Fields that are `None` take the network's defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerSubnet {
    /// The containers' subnet.
    pub subnet: Ipv4Net,
    /// The host's underlay address.
    pub public_ip: Ipv4Addr,
    /// The tunnel kind that reaches it.
    pub encap: Encap,
    /// The VNI on the wire.
    pub vni: Option<Vni>,
    /// The UDP destination port.
    pub port: Option<u16>,
    /// The MAC address of its VTEP; broadcast is sent where it is not known.
    pub vtep_mac: Option<Mac>,
}

/// What the store says about the network as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkConfig {
    /// All subnets lie in here.
    pub network: Option<Ipv4Net>,
    /// The network's VNI.
    pub vni: Option<Vni>,
    /// The network's UDP port.
    pub port: Option<u16>,
}

/// A subnet of this host, to be announced.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Announcement {
    /// The bridge's subnet.
    pub subnet: Ipv4Net,
    /// Our underlay address.
    pub public_ip: Ipv4Addr,
    /// The VNI we expect on the wire.
    pub vni: u32,
    /// Our VTEP's MAC address, as text.
    pub vtep_mac: String,
}

/// How a store is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// In step.
    Ok,
    /// Out of reach, or what it says cannot be used. The last good state stays in force.
    Degraded {
        /// One line: what, where, and what to do.
        reason: String,
    },
}

/// What a store reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// All subnets there are; whatever is not in here is gone.
    Snapshot(BTreeMap<Ipv4Net, PeerSubnet>),
    /// One subnet appeared or changed.
    Put(PeerSubnet),
    /// One subnet is gone.
    Delete(Ipv4Net),
    /// The store's own state changed.
    Health(Health),
}

/// Why a store could not do what it was asked. The text says what, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store cannot be reached.
    #[error("{0}")]
    Unreachable(String),
    /// The store answered, but what it holds cannot be used.
    #[error("{0}")]
    Invalid(String),
    /// A subnet that we want to announce is another host's.
    #[error("{0}")]
    Conflict(String),
}

/// A source of peers.
#[async_trait]
pub trait Store: Send + Sync {
    /// Which kind it is.
    fn kind(&self) -> StoreKind;

    /// Reads the network's configuration; `None` where the store has none.
    ///
    /// # Errors
    /// [`StoreError`] where the store is out of reach or the configuration is malformed.
    async fn network(&self) -> Result<Option<NetworkConfig>, StoreError>;

    /// Reads all subnets once.
    ///
    /// # Errors
    /// [`StoreError`] where the store is out of reach.
    async fn list(&self) -> Result<BTreeMap<Ipv4Net, PeerSubnet>, StoreError>;

    /// Reports until the receiver is gone: first a snapshot, then every change. Reconnects by itself, and
    /// reports a snapshot again whenever changes may have been missed.
    async fn watch(&self, updates: mpsc::Sender<Update>);

    /// Announces our subnets once, and says why where that fails: a start-up check, and what
    /// [`announce`](Self::announce) does first. What was announced before the error stays announced.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] where another host holds a subnet, else as for [`list`](Self::list).
    async fn claim(&self, announcements: &[Announcement]) -> Result<(), StoreError>;

    /// Announces our subnets and keeps them announced until the future is dropped; dropping it leaves them
    /// announced. Retries by itself and reports trouble through `updates`.
    async fn announce(&self, announcements: Vec<Announcement>, updates: mpsc::Sender<Update>);

    /// Gives up connections that are open: the address they were made from may be gone, and nobody would say
    /// so. Calls that are under way may fail. Does nothing in stores that have no connections.
    async fn reconnect(&self) {}

    /// Takes our announcements back. [`announce`](Self::announce) must have been dropped before: it would
    /// announce them again.
    ///
    /// # Errors
    /// [`StoreError`] where the store is out of reach; the text names each key left behind.
    async fn withdraw(&self, announcements: &[Announcement]) -> Result<(), StoreError>;
}
