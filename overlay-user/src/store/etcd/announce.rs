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
    let Claimed { mut lease, revision } = claimed;
    let mut renewal = Instant::now() + RENEW_EVERY;
    let mut stream = match Stream::open(store, &key, WatchOptions::new(), revision).await {
        Ok(stream) => stream,
        Err(reason) => return tracing::debug!("{reason}"),
    };
    loop {
        tokio::select! {
            message = stream.next() => match message {
                Ok(message) => match told(announcement, lease, &message) {
                    Told::Same => {}
                    Told::Lease(0) => {
                        tracing::info!("etcd key {key} is reserved for this host now: it hangs on no lease any more");
                        lease = 0;
                    }
                    Told::Lease(_) => return tracing::info!("etcd key {key} hangs on another lease now"),
                    Told::Disturbed(why) => return tracing::warn!("etcd key {key} {why}"),
                },
                Err(reason) => return tracing::debug!("{reason}"),
            },
            () = sleep_until(renewal), if lease != 0 => match renewed(store, &key, lease).await {
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

/// What a message tells of our key.
enum Told {
    /// It is as we wrote it.
    Same,
    /// It is as we wrote it, on another lease: on none where somebody has reserved it.
    Lease(i64),
    /// It is not, and why.
    Disturbed(String),
}

fn told(announcement: &Announcement, lease: i64, message: &WatchResponse) -> Told {
    let Some(event) = message.events().last() else { return Told::Same };
    if event.event_type() == EventType::Delete {
        return Told::Disturbed("was deleted, though this host announces it; writing it again".into());
    }
    let Some(pair) = event.kv() else { return Told::Same };
    let ours = schema::lease_value(announcement);
    if pair.value() == ours.as_bytes() {
        return if pair.lease() == lease { Told::Same } else { Told::Lease(pair.lease()) };
    }
    Told::Disturbed(match schema::owner(pair.value()) {
        Some(owner) if !owner.shares(announcement.host) => {
            format!("was taken by {owner}, though this host announces it; leaving it to {owner}")
        }
        Some(_) => "was changed, though this host announces it; writing it again".into(),
        None => "was overwritten with a value that names no host; leaving it as it is".into(),
    })
}
