//! Our own keys: taken in a transaction, under a lease of a day, and looked after from then on.
//!
//! The subnet's owner is known by its `PublicIP`. flanneld dies when its key vanishes; we write ours again,
//! but never take it back from another host.

use std::time::Duration;

use etcd_client::{
    Client, Compare, CompareOp, Error, EventType, KeyValue, PutOptions, Txn, TxnOp, WatchOptions,
    WatchResponse,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};

use super::{EtcdStore, link, list, watch};
use crate::store::{Announcement, StoreError, Update, schema};

/// Seconds that a subnet stays its host's when the host is silent; as for flannel.
const LEASE_SECONDS: i64 = 86_400;

const RENEW_EVERY: Duration = Duration::from_secs(3600);
const RENEW_AGAIN: Duration = Duration::from_secs(60);

/// How often a claim is tried again when others write the same key at the same time.
const RACES: usize = 3;

/// A key that is ours as of a revision.
pub(super) struct Claimed {
    lease: i64,
    revision: i64,
}

enum Outcome {
    Ours(Claimed),
    Held(String),
}

/// Takes the key, or finds that it is ours already: then nothing is written, and no peer hears of it.
pub(super) async fn claim(store: &EtcdStore, announcement: &Announcement) -> Result<Claimed, StoreError> {
    let key = &store.subnet_key(announcement.subnet);
    let outcome = store
        .link
        .call(&format!("writing {key}"), |client| async move {
            for _ in 0..RACES {
                if let Some(outcome) = attempt(store, &client, key, announcement).await? {
                    return Ok(outcome);
                }
            }
            Ok(Outcome::Held("somebody who keeps writing it".into()))
        })
        .await?;
    match outcome {
        Outcome::Ours(claimed) => {
            store.note_announced(announcement);
            Ok(claimed)
        }
        Outcome::Held(by) => Err(StoreError::Conflict(format!(
            "subnet {} is held by {by} (etcd key {key}): give this host's bridge another subnet, or delete the key",
            announcement.subnet
        ))),
    }
}

/// One read and one write; `None` where the key changed in between.
async fn attempt(
    store: &EtcdStore,
    client: &Client,
    key: &str,
    announcement: &Announcement,
) -> Result<Option<Outcome>, Error> {
    let value = schema::lease_value(announcement);
    let answer = list::kv(client).get(key, None).await?;
    let old = answer.kvs().first();
    let unchanged = match old {
        None => Compare::version(key, CompareOp::Equal, 0),
        Some(pair) if !is_ours(store, announcement, pair.value()) => {
            return Ok(Some(Outcome::Held(holder(pair))));
        }
        Some(pair) if pair.value() == value.as_bytes() && adopt(client, pair.lease()).await? => {
            let revision = answer.header().map_or(pair.mod_revision(), |header| header.revision());
            return Ok(Some(Outcome::Ours(Claimed { lease: pair.lease(), revision })));
        }
        Some(pair) => Compare::mod_revision(key, CompareOp::Equal, pair.mod_revision()),
    };
    let lease = client.lease_client().grant(LEASE_SECONDS, None).await?.id();
    let put = TxnOp::put(key, value, Some(PutOptions::new().with_lease(lease)));
    let done = client.kv_client().txn(Txn::new().when([unchanged]).and_then([put])).await?;
    if !done.succeeded() {
        release(client, lease).await;
        return Ok(None);
    }
    if let Some(pair) = old {
        release(client, pair.lease()).await;
    }
    tracing::info!("announced {} at {} (etcd key {key})", announcement.subnet, announcement.public_ip);
    let revision = done.header().map_or(0, |header| header.revision());
    Ok(Some(Outcome::Ours(Claimed { lease, revision })))
}

/// True where the value carries our address, or one under which this node announced the subnet earlier.
fn is_ours(store: &EtcdStore, announcement: &Announcement, value: &[u8]) -> bool {
    let Some(owner) = schema::owner(value) else { return false };
    owner == announcement.public_ip || store.has_announced(announcement.subnet, owner)
}

fn holder(pair: &KeyValue) -> String {
    match schema::owner(pair.value()) {
        Some(owner) => owner.to_string(),
        None => "a value that names no host".into(),
    }
}

/// True where the lease lives, is one of ours by its length, and was renewed.
async fn adopt(client: &Client, lease: i64) -> Result<bool, Error> {
    if lease == 0 {
        return Ok(false);
    }
    let found = client.lease_client().time_to_live(lease, None).await?;
    Ok(found.ttl() > 0 && found.granted_ttl() == LEASE_SECONDS && renew(client, lease).await?)
}

/// Renews a lease; false where it is gone.
async fn renew(client: &Client, lease: i64) -> Result<bool, Error> {
    match client.lease_client().keep_alive(lease).await {
        Ok(_) => Ok(true),
        Err(Error::LeaseKeepAliveError(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Revokes a lease that no key hangs on any more. It would expire by itself within the day: no error is worth
/// a word.
pub(super) async fn release(client: &Client, lease: i64) {
    if lease == 0 {
        return;
    }
    let mut leases = client.lease_client();
    let options = etcd_client::LeaseTimeToLiveOptions::new().with_keys();
    if let Ok(found) = leases.time_to_live(lease, Some(options)).await
        && found.ttl() > 0
        && found.keys().is_empty()
        && let Err(error) = leases.revoke(lease).await
    {
        tracing::debug!("lease {lease:x} is left to expire: {}", link::describe(&error));
    }
}

/// Keeps one subnet announced, for ever.
pub(super) async fn keep(store: &EtcdStore, announcement: &Announcement, updates: &mpsc::Sender<Update>) {
    let mut delays = link::backoff();
    loop {
        match claim(store, announcement).await {
            Ok(claimed) => {
                store.health.announced(announcement.subnet, updates).await;
                let began = Instant::now();
                hold(store, announcement, claimed).await;
                if began.elapsed() >= watch::STABLE {
                    delays = link::backoff();
                }
            }
            Err(error) => store.health.not_announced(announcement.subnet, &error, updates).await,
        }
        sleep(link::next_delay(&mut delays)).await;
    }
}

/// Returns when the key has to be claimed again.
async fn hold(store: &EtcdStore, announcement: &Announcement, claimed: Claimed) {
    let key = store.subnet_key(announcement.subnet);
    let Claimed { lease, mut revision } = claimed;
    let mut renewal = Instant::now() + RENEW_EVERY;
    let mut stream = match watch::open(store, &key, WatchOptions::new(), revision).await {
        Ok(stream) => stream,
        Err(reason) => return tracing::debug!("{reason}"),
    };
    loop {
        tokio::select! {
            message = watch::next(store, &key, &mut stream, &mut revision) => match message {
                Ok(message) => if let Some(why) = disturbed(announcement, lease, &message) {
                    return tracing::warn!("etcd key {key} {why}");
                },
                Err(reason) => return tracing::debug!("{reason}"),
            },
            () = sleep_until(renewal) => match renewed(store, &key, lease).await {
                Some(next) => renewal = Instant::now() + next,
                None => return tracing::warn!("the lease of etcd key {key} is gone; announcing it again"),
            },
        }
    }
}

/// Renews the lease; when to do so next, or `None` where it is gone.
async fn renewed(store: &EtcdStore, key: &str, lease: i64) -> Option<Duration> {
    let what = format!("renewing the lease of {key}");
    match store.link.call(&what, |client| async move { renew(&client, lease).await }).await {
        Ok(true) => Some(RENEW_EVERY),
        Ok(false) => None,
        Err(error) => {
            tracing::debug!("{error}");
            Some(RENEW_AGAIN)
        }
    }
}

/// What happened to our key, unless it is still as we wrote it.
fn disturbed(announcement: &Announcement, lease: i64, message: &WatchResponse) -> Option<String> {
    let event = message.events().last()?;
    if event.event_type() == EventType::Delete {
        return Some("was deleted, though this host announces it; writing it again".into());
    }
    let pair = event.kv()?;
    let ours = schema::lease_value(announcement);
    if pair.value() == ours.as_bytes() && pair.lease() == lease {
        return None;
    }
    Some(match schema::owner(pair.value()) {
        Some(owner) if owner != announcement.public_ip => {
            format!("was taken by {owner}, though this host announces it; leaving it to {owner}")
        }
        Some(_) => "was changed, though this host announces it; writing it again".into(),
        None => "was overwritten with a value that names no host; leaving it as it is".into(),
    })
}
