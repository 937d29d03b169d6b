//! Taking our own keys back.

use std::time::Duration;

use etcd_client::{Client, Compare, CompareOp, Error, Txn, TxnOp};
use tokio::time::Instant;

use super::{EtcdStore, lease, link::CALL_LIMIT, list};
use crate::store::{Announcement, StoreError, schema};

/// Deletes each key that still carries our address, all within one time limit. What is reserved stays so, and nobody sends
/// there any more.
pub(super) async fn run(store: &EtcdStore, announcements: &[Announcement]) -> Result<(), StoreError> {
    let deadline = Instant::now() + CALL_LIMIT;
    let canary =
        store.link.call_until(deadline, Duration::ZERO, "deleting this node's key", |client| async move {
            client.kv_client().txn(Txn::new().and_then([store.canary.withdrawal()])).await.map(drop)
        });
    // It would go by itself within half a minute.
    if let Err(error) = canary.await {
        tracing::debug!("{error}");
    }
    let mut left = Vec::new();
    let mut first = None;
    for announcement in announcements {
        let key = &store.subnet_key(announcement.subnets);
        let withdrawn = store
            .link
            .call_until(deadline, Duration::ZERO, "deleting this host's keys", |client| async move {
                while !attempt(&client, key, announcement).await? {}
                Ok(())
            })
            .await;
        if let Err(error) = withdrawn {
            left.push(key.clone());
            first.get_or_insert(error);
        }
    }
    let Some(first) = first else { return Ok(()) };
    let text = format!("{first}; left behind: {}; delete by hand with etcdctl del KEY", left.join(", "));
    Err(match first {
        StoreError::Invalid(_) => StoreError::Invalid(text),
        StoreError::Unreachable(_) | StoreError::Conflict(_) => StoreError::Unreachable(text),
    })
}

/// One read and one delete; false where the key changed in between.
async fn attempt(client: &Client, key: &str, announcement: &Announcement) -> Result<bool, Error> {
    let answer = list::kv(client).get(key, None).await?;
    let Some(pair) = answer.kvs().first() else { return Ok(true) };
    let Some(owner) = schema::owner(pair.value()).filter(|owner| owner.shares(announcement.host)) else {
        tracing::info!("etcd key {key} is not this host's any more: left as it is");
        return Ok(true);
    };
    let unchanged = Compare::mod_revision(key, CompareOp::Equal, pair.mod_revision());
    let taken_back = if pair.lease() == 0 {
        tracing::info!("etcd key {key} is a reservation: it stays, and nobody sends there any more");
        TxnOp::put(key, schema::reservation_value(announcement.subnets, owner), None)
    } else {
        TxnOp::delete(key, None)
    };
    let transaction = Txn::new().when([unchanged]).and_then([taken_back]);
    if !client.kv_client().txn(transaction).await?.succeeded() {
        return Ok(false);
    }
    lease::release(client, pair.lease()).await;
    Ok(true)
}
