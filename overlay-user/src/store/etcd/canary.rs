//! This node's own key, which its watch has to show: a stream can be alive, and nothing come of it. The key hangs on a
//! short lease, so that others see within half a minute that nobody is at home here, long before the subnet is free.
//!
//! It stands beside the subnets, never among them: flanneld drops its routes at a name there that it cannot parse.

use std::time::Duration;

use etcd_client::{PutOptions, TxnOp};
use tokio::{sync::Mutex, time::Instant};

use super::{EtcdStore, lease::renew, link};
use crate::store::{StoreError, schema};

/// How often it is written, unless there are so many nodes that etcd would be kept busy by it.
pub(super) const BEAT: Duration = Duration::from_secs(10);

/// Seconds after its last renewal that etcd removes the key.
const LEASE_SECONDS: i64 = 30;

/// Writes of all nodes together that etcd is asked for in a second.
const WRITES_PER_SECOND: u32 = 50;

/// This node's key.
#[derive(Debug)]
pub(super) struct Canary {
    pub(super) key: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    lease: Option<i64>,
    /// When it was written last, and what.
    written: Option<(Instant, String)>,
}

impl Canary {
    pub(super) fn new(prefix: &str, node: &str) -> Self {
        Self { key: schema::node_key(prefix, node), state: Mutex::default() }
    }

    /// Renews the lease, and writes the key where it is due among so many nodes. The revision at which it was written.
    pub(super) async fn beat(&self, store: &EtcdStore, nodes: usize) -> Result<Option<i64>, StoreError> {
        let mut state = self.state.lock().await;
        let value = store.node_value();
        let (known, is_due) = (state.lease, state.is_due(nodes, &value));
        let says = value.as_str();
        let what = format!("writing {}", self.key);
        let beaten = store.link.call(&what, |client| async move {
            let lease = match known {
                Some(lease) if link::step(renew(&client, lease)).await? => lease,
                _ => link::step(client.lease_client().grant(LEASE_SECONDS, None)).await?.id(),
            };
            if !is_due && known == Some(lease) {
                return Ok((lease, None));
            }
            let options = PutOptions::new().with_lease(lease);
            let mut kv = client.kv_client();
            let written = link::step(kv.put(self.key.as_str(), says, Some(options))).await?;
            Ok((lease, written.header().map(|header| header.revision())))
        });
        let (lease, revision) = beaten.await?;
        state.lease = Some(lease);
        if revision.is_some() {
            state.written = Some((Instant::now(), value));
        }
        Ok(revision)
    }

    /// What takes the key back.
    pub(super) fn withdrawal(&self) -> TxnOp {
        TxnOp::delete(self.key.as_str(), None)
    }
}

impl State {
    fn is_due(&self, nodes: usize, value: &str) -> bool {
        let every =
            BEAT.max(Duration::from_secs(1) * u32::try_from(nodes).unwrap_or(u32::MAX) / WRITES_PER_SECOND);
        // The beats are that far apart, and not a moment more.
        let is_fresh = |(when, what): &(Instant, String)| what == value && when.elapsed() + BEAT / 2 < every;
        !self.written.as_ref().is_some_and(is_fresh)
    }
}
