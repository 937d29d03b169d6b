//! The nodes whose daemons live: each has a key on a short lease, which says who it is.

use std::fmt;

use etcd_client::{Client, Error, KeyValue};
use overlay_common::Mac;

use super::list;
use crate::{store::schema, underlay::Underlay};

/// A node that lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) name: String,
    /// Its addresses.
    pub(super) host: Underlay,
    /// Its VTEP's MAC address, which no two nodes have in common.
    pub(super) vtep_mac: Mac,
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} ({}, VTEP {})", self.name, self.host, self.vtep_mac)
    }
}

impl Node {
    /// Whether a subnet's key with this value is its own.
    pub(super) fn has(&self, value: &[u8]) -> bool {
        let is_its = schema::vtep_mac(value).is_none_or(|mac| mac == self.vtep_mac);
        is_its && schema::owner(value).is_some_and(|owner| owner.shares(self.host))
    }
}

/// All that say who they are. Nodes of other makes have no keys.
pub(super) async fn all(client: &Client, prefix: &str) -> Result<Vec<Node>, Error> {
    let nodes = schema::nodes_prefix(prefix);
    let read = |pair: KeyValue| {
        let name = str::from_utf8(pair.key()).ok()?.strip_prefix(&nodes)?.to_owned();
        let (host, vtep_mac) = schema::parse_node(pair.value())?;
        Some(Node { name, host, vtep_mac })
    };
    Ok(list::pages(list::kv(client), &nodes, &read).await?.pairs.into_iter().flatten().collect())
}

/// One that gives itself an address of ours, and is another than we are.
pub(super) async fn rival(
    client: &Client,
    prefix: &str,
    host: Underlay,
    vtep_mac: Mac,
) -> Result<Option<Node>, Error> {
    let nodes = all(client, prefix).await?;
    Ok(nodes.into_iter().find(|node| node.host.shares(host) && node.vtep_mac != vtep_mac))
}
