//! Where routes come from: one trait, implemented by etcd and by the peers file.
//!
//! A store only reports and announces. What its reports mean for this host is decided in
//! [`crate::reconcile`].

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use async_trait::async_trait;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use overlay_common::{Encap, Mac, Vni, map::StoreKind};
use tokio::sync::mpsc;

use crate::underlay::Underlay;

mod address;
mod announcement;
pub mod etcd;
pub mod file;
pub mod schema;

pub use announcement::{Announcement, Subnets};
pub use etcd::{EtcdOptions, EtcdStore};
pub use file::FileStore;

/// One subnet of one host, as a store tells it. Fields that are `None` take the network's defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerSubnet {
    /// The containers' subnet.
    pub subnet: IpNet,
    /// The host's underlay addresses.
    pub host: Underlay,
    /// Other addresses that its packets come from: behind NAT they do not come from where packets to it go.
    pub src_ips: Vec<IpAddr>,
    /// Whether the host's kernel routes for it: it is not one of its bridges'.
    pub routed: bool,
    /// The tunnel kind that reaches it.
    pub encap: Encap,
    /// The VNI on the wire.
    pub vni: Option<Vni>,
    /// The UDP destination port of that kind.
    pub port: Option<u16>,
    /// The key of GRE packets, both ways; none where none is agreed on.
    pub gre_key: Option<u32>,
    /// The MAC address of its VTEP; broadcast is sent where it is not known.
    pub vtep_mac: Option<Mac>,
    /// Whether frames go to a bridge there, and so to its neighbours' own MAC addresses; where nobody says, those of GRE
    /// without a VTEP do.
    pub bridge: Option<bool>,
    /// Whether the host takes tunnel packets over IPv6 whose UDP checksum is zero (RFC 6935). Linux's vxlan
    /// device does not, unless it was told to.
    pub zero_checksum: bool,
}

impl PeerSubnet {
    /// The addresses that its packets may come from.
    pub fn sources(&self) -> impl Iterator<Item = IpAddr> {
        self.host.addresses().chain(self.src_ips.iter().copied())
    }
}

/// What the store says about the network as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkConfig {
    /// All IPv4 subnets lie in here.
    pub network: Option<Ipv4Net>,
    /// All IPv6 subnets lie in here.
    pub network_v6: Option<Ipv6Net>,
    /// Whether the network carries IPv6; yes where nobody says.
    pub ipv6: Option<bool>,
    /// The network's VNI.
    pub vni: Option<Vni>,
    /// The network's UDP port.
    pub port: Option<u16>,
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
    Snapshot(BTreeMap<IpNet, PeerSubnet>),
    /// One subnet appeared or changed.
    Put(PeerSubnet),
    /// One subnet is gone.
    Delete(IpNet),
    /// The subnets that several claim, one line each; all that there are.
    Contested(BTreeSet<String>),
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
    async fn list(&self) -> Result<BTreeMap<IpNet, PeerSubnet>, StoreError>;

    /// Why a list is not to be believed yet, given what was in force when the daemon started. Such a list may still
    /// come about by mistake, and what is in force is better.
    fn doubt(&self, _list: &BTreeMap<IpNet, PeerSubnet>) -> Option<String> {
        None
    }

    /// Reports until the receiver is gone: first a snapshot, then every change. Reconnects by itself, and
    /// reports a snapshot again whenever changes may have been missed.
    async fn watch(&self, updates: mpsc::Sender<Update>);

    /// Another node that lives and gives itself one of our addresses, in words. It is another by its VTEP's MAC address.
    ///
    /// # Errors
    /// As for [`list`](Self::list).
    async fn rival(&self, _host: Underlay, _vtep_mac: Mac) -> Result<Option<String>, StoreError> {
        Ok(None)
    }

    /// Announces our subnets once, and says why where that fails: a start-up check, and what
    /// [`announce`](Self::announce) does first. What was announced before the error stays announced. What this
    /// host announced of the same subnets in another form (without or with its IPv6 part) is replaced in the same
    /// step, so that nobody sees the subnets gone in between.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] where another host holds a subnet, or gives itself our address, else as for [`list`](Self::list).
    async fn claim(&self, announcements: &[Announcement]) -> Result<(), StoreError>;

    /// Announces our subnets and keeps them announced until the future is dropped; dropping it leaves them
    /// announced. Retries by itself and reports trouble through `updates`.
    async fn announce(&self, announcements: Vec<Announcement>, updates: mpsc::Sender<Update>);

    /// Gives up connections that are open: the address they were made from may be gone, and nobody would say
    /// so. Calls that are under way may fail. Does nothing in stores that have no connections.
    async fn reconnect(&self) {}

    /// Takes our announcements back; subnets that are reserved for this host stay so. [`announce`](Self::announce) must have been dropped before: it would
    /// announce them again.
    ///
    /// # Errors
    /// [`StoreError`] where the store is out of reach; the text names each key left behind.
    async fn withdraw(&self, announcements: &[Announcement]) -> Result<(), StoreError>;
}
