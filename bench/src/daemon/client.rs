//! A client of etcd: it fills the store, and makes the changes.

use std::time::Duration;

use anyhow::{Context, Result};
use etcd_client::{Client, ConnectOptions, Txn, TxnOp};
use harness::Netns;
use tokio::runtime::{Builder, Runtime};

use super::peers::Peer;

/// Keys written at once: etcd takes 128 operations in a transaction.
const AT_ONCE: usize = 128;

/// Runs what `work` makes in a runtime whose sockets are in a namespace.
pub(super) fn inside<T: Send>(ns: &Netns, work: impl AsyncFnOnce() -> Result<T> + Send) -> Result<T> {
    ns.run(|| runtime()?.block_on(work()))?
}

/// On the calling thread alone: a socket belongs to the namespace of the thread that makes it.
fn runtime() -> Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("cannot make a runtime")
}

pub(super) async fn connect(endpoint: &str) -> Result<Client> {
    let options = ConnectOptions::new().with_timeout(Duration::from_secs(20));
    Client::connect([endpoint], Some(options)).await.with_context(|| format!("cannot connect to {endpoint}"))
}

/// Writes all peers.
pub(super) async fn fill(endpoint: &str, prefix: &str, peers: &[Peer]) -> Result<()> {
    let mut client = connect(endpoint).await?;
    for some in peers.chunks(AT_ONCE) {
        let puts: Vec<TxnOp> =
            some.iter().map(|peer| TxnOp::put(peer.key(prefix), peer.value(), None)).collect();
        client.txn(Txn::new().and_then(puts)).await.context("cannot fill etcd")?;
    }
    Ok(())
}
