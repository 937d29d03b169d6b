//! Our own keys, looked after from the claim on. flanneld dies when its key vanishes; we write ours again, but
//! never take it back from another host.

use std::time::Duration;

use etcd_client::{EventType, WatchOptions, WatchResponse};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};

use super::{
    EtcdStore,
    claim::{Claimed, claim},
    lease::renew,
    link,
    stream::Stream,
    watch,
};
use crate::store::{Announcement, Update, schema};

const RENEW_EVERY: Duration = Duration::from_secs(3600);
const RENEW_AGAIN: Duration = Duration::from_secs(60);

/// Keeps one subnet announced, for ever.
pub(super) async fn keep(store: &EtcdStore, announcement: &Announcement, updates: &mpsc::Sender<Update>) {
    let mut delays = link::backoff();
    loop {
        match claim(store, announcement).await {
            Ok(claimed) => {
                store.health.announced(announcement.subnets, updates).await;
                let began = Instant::now();
                hold(store, announcement, claimed).await;
                if began.elapsed() >= watch::STABLE {
                    delays = link::backoff();
                }
            }
            Err(error) => store.health.not_announced(announcement.subnets, &error, updates).await,
        }
        sleep(link::next_delay(&mut delays)).await;
    }
}

/// Returns when the key has to be claimed again.
async fn hold(store: &EtcdStore, announcement: &Announcement, claimed: Claimed) {
    let key = store.subnet_key(announcement.subnets);
    let Claimed { lease, revision } = claimed;
    let mut renewal = Instant::now() + RENEW_EVERY;
    let mut stream = match Stream::open(store, &key, WatchOptions::new(), revision).await {
        Ok(stream) => stream,
        Err(reason) => return tracing::debug!("{reason}"),
    };
    loop {
        tokio::select! {
            message = stream.next() => match message {
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
        Some(owner) if !owner.shares(announcement.host) => {
            format!("was taken by {owner}, though this host announces it; leaving it to {owner}")
        }
        Some(_) => "was changed, though this host announces it; writing it again".into(),
        None => "was overwritten with a value that names no host; leaving it as it is".into(),
    })
}
