//! List, then watch from the next revision on; whenever the watch ends, start over. A list each time costs
//! little and makes every way of missing a change (compaction, a restore, a restart) the same.

use std::time::Duration;

use etcd_client::{WatchOptions, WatchResponse, WatchStream};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

use super::{
    EtcdStore,
    fold::{Entry, Event, Fold},
    link::{self, MESSAGE_LIMIT},
    list,
};
use crate::store::{Health, Update};

/// A watch that etcd has not confirmed after this time is taken for dead.
const CREATED_LIMIT: Duration = Duration::from_secs(5);

/// A watch that lasted this long was a good one: the next trouble starts with the shortest delay.
pub(super) const STABLE: Duration = Duration::from_secs(10);

/// Why a watch is over.
pub(super) struct Lost {
    pub(super) reason: String,
    lasted: Duration,
}

impl From<String> for Lost {
    fn from(reason: String) -> Self {
        Self { reason, lasted: Duration::ZERO }
    }
}

/// Reports for ever.
pub(super) async fn run(store: &EtcdStore, updates: &mpsc::Sender<Update>) {
    let mut fold = Fold::new(&store.warnings);
    let mut delays = link::backoff();
    let mut revision = 0;
    loop {
        let Lost { reason, lasted } = session(store, &mut fold, &mut revision, updates).await;
        store.health.watch(Health::Degraded { reason }, updates).await;
        if lasted >= STABLE {
            delays = link::backoff();
        }
        sleep(link::next_delay(&mut delays)).await;
    }
}

/// One list and one watch.
async fn session(
    store: &EtcdStore,
    fold: &mut Fold<'_>,
    revision: &mut i64,
    updates: &mpsc::Sender<Update>,
) -> Lost {
    let subnets = store.subnets();
    let listing = match list::all(&store.link, &subnets, |pair| Entry::of(&subnets, pair)).await {
        Ok(listing) => listing,
        Err(error) => return error.to_string().into(),
    };
    if listing.revision < *revision {
        let (now, was) = (listing.revision, *revision);
        tracing::warn!(
            "{}: its revision went back from {was} to {now}: it was restored or wiped",
            store.link.place()
        );
    }
    *revision = listing.revision;
    // Where the receiver is gone, the caller ends us.
    let _ = updates.send(Update::Snapshot(fold.replace(listing.pairs))).await;
    let options = WatchOptions::new().with_prefix();
    let mut stream = match open(store, &subnets, options, *revision).await {
        Ok(stream) => stream,
        Err(reason) => return reason.into(),
    };
    store.health.watch(Health::Ok, updates).await;
    let began = Instant::now();
    loop {
        match next(store, &subnets, &mut stream, revision).await {
            Ok(message) => apply(fold, &subnets, &message, updates).await,
            Err(reason) => return Lost { reason, lasted: began.elapsed() },
        }
    }
}

async fn apply(fold: &mut Fold<'_>, subnets: &str, message: &WatchResponse, updates: &mpsc::Sender<Update>) {
    let events = message.events().iter().filter_map(|event| Event::of(subnets, event));
    for update in fold.apply(events) {
        let _ = updates.send(update).await;
    }
}

/// Opens a watch of everything after `revision`, confirmed by etcd.
pub(super) async fn open(
    store: &EtcdStore,
    key: &str,
    options: WatchOptions,
    revision: i64,
) -> Result<WatchStream, String> {
    let place = store.link.place();
    let options = options.with_progress_notify().with_start_revision(revision + 1);
    let opening = async {
        let client = store.link.client().await?;
        let mut stream =
            client.watch_client().max_decoding_message_size(MESSAGE_LIMIT).watch(key, Some(options)).await?;
        let first = stream.message().await?;
        Ok::<_, etcd_client::Error>((stream, first))
    };
    let (stream, first) = match timeout(CREATED_LIMIT, opening).await {
        Ok(Ok((stream, Some(first)))) => (stream, first),
        Ok(Ok((_, None))) => return Err(format!("{place}: the watch of {key} ended at once")),
        Ok(Err(error)) => return Err(format!("{place}: watching {key} failed: {}", link::describe(&error))),
        Err(_) => return Err(format!("{place}: no answer to a watch of {key}")),
    };
    check(&place, key, &first, revision)?;
    if first.created() { Ok(stream) } else { Err(format!("{place}: the watch of {key} was not confirmed")) }
}

/// The next message of a watch; `revision` is raised to the last change in it.
pub(super) async fn next(
    store: &EtcdStore,
    key: &str,
    stream: &mut WatchStream,
    revision: &mut i64,
) -> Result<WatchResponse, String> {
    let place = store.link.place();
    let message = match stream.message().await {
        Ok(Some(message)) => message,
        Ok(None) => return Err(format!("{place}: the watch of {key} ended")),
        Err(error) => return Err(format!("{place}: the watch of {key} broke: {}", link::describe(&error))),
    };
    check(&place, key, &message, *revision)?;
    // The header of a progress report may run ahead of events still to come (etcd issue 15220): only events
    // count.
    let last = message.events().iter().filter_map(|event| event.kv()).map(|pair| pair.mod_revision()).max();
    *revision = last.unwrap_or(0).max(*revision);
    Ok(message)
}

fn check(place: &str, key: &str, message: &WatchResponse, revision: i64) -> Result<(), String> {
    // First, for the header's revision is 0 in here.
    if message.canceled() {
        return Err(match (message.compact_revision(), message.cancel_reason()) {
            (0, "") => format!("{place}: the watch of {key} was canceled"),
            (0, reason) => format!("{place}: the watch of {key} was canceled: {reason}"),
            (compacted, _) => {
                format!(
                    "{place}: the watch of {key} fell behind: changes up to revision {compacted} are compacted"
                )
            }
        });
    }
    // A watch from a revision that is yet to come would stay silent until it has come.
    match message.header().map(|header| header.revision()) {
        Some(now) if now < revision => {
            Err(format!("{place}: its revision went back from {revision} to {now}: it was restored or wiped"))
        }
        _ => Ok(()),
    }
}
