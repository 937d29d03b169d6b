//! List, then watch from the next revision on; whenever the watch ends, start over. A list each time costs
//! little and makes every way of missing a change (compaction, a restore, a restart) the same.

use std::{collections::BTreeSet, time::Duration};

use etcd_client::{WatchOptions, WatchResponse};
use futures::future::{Fuse, FutureExt};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};

use super::{
    EtcdStore,
    canary::BEAT,
    fold::{Entry, Event, Fold},
    guard::Guard,
    link, list,
    stream::Stream,
};
use crate::store::{Health, StoreError, Update, schema};

/// A watch that lasted this long was a good one: the next trouble starts with the shortest delay.
pub(super) const STABLE: Duration = Duration::from_secs(10);

/// A watch is deaf that has not shown after this time what it has to show.
const ECHO_LIMIT: Duration = Duration::from_secs(5);

/// How often everything is listed and compared, with up to a quarter more: hosts started together must not list together.
const AUDIT: Duration = Duration::from_secs(600);

/// Why a watch is over.
struct Lost {
    reason: String,
    lasted: Duration,
}

impl From<String> for Lost {
    fn from(reason: String) -> Self {
        Self { reason, lasted: Duration::ZERO }
    }
}

/// What is known of etcd's subnets, and whom to tell.
struct Follower<'a> {
    store: &'a EtcdStore,
    fold: Fold<'a>,
    guard: Guard,
    updates: &'a mpsc::Sender<Update>,
    /// The subnets that several keys claim, as they were told.
    contested: BTreeSet<String>,
    subnets: String,
    /// The key of the network's configuration.
    config: String,
    /// The revision of the last list: events up to it are in there.
    listed: i64,
}

/// Reports for ever.
pub(super) async fn run(store: &EtcdStore, updates: &mpsc::Sender<Update>) {
    let mut follower = Follower {
        store,
        fold: Fold::new(&store.warnings),
        guard: Guard::new(store.prune_delay, store.in_force),
        updates,
        contested: BTreeSet::new(),
        subnets: store.subnets(),
        config: schema::config_key(&store.prefix),
        listed: 0,
    };
    let mut delays = link::backoff();
    loop {
        let Lost { reason, lasted } = follower.session().await;
        store.health.watch(Health::Degraded { reason }, updates).await;
        if lasted >= STABLE {
            delays = link::backoff();
        }
        // What vanished from etcd is due, whether it can be reached or not.
        let until = Instant::now() + link::next_delay(&mut delays);
        while let Some(due) = follower.guard.next().filter(|due| *due < until) {
            sleep_until(due).await;
            follower.prune().await;
        }
        sleep(until.saturating_duration_since(Instant::now())).await;
    }
}

impl Follower<'_> {
    /// One list and one watch.
    async fn session(&mut self) -> Lost {
        if let Err(error) = self.list().await {
            return error.to_string().into();
        }
        let opened =
            Stream::open(self.store, &self.subnets, WatchOptions::new().with_prefix(), self.listed).await;
        let mut stream = match opened {
            Ok(stream) => stream,
            Err(reason) => return reason.into(),
        };
        for key in [&self.store.canary.key, &self.config] {
            if let Err(reason) = stream.watch_too(key).await {
                return reason.into();
            }
        }
        // After the watch is open: what changes from now on is shown.
        if let Err(error) = self.store.compare_network(self.updates).await {
            return error.to_string().into();
        }
        self.store.health.watch(Health::Ok, self.updates).await;
        let began = Instant::now();
        let reason = self.follow(&mut stream).await;
        self.store.link.give_up(stream.connected()).await;
        Lost { reason, lasted: began.elapsed() }
    }

    /// Lists everything. Returns what was not known before.
    async fn list(&mut self) -> Result<bool, StoreError> {
        let subnets = &self.subnets;
        let listing = list::all(&self.store.link, subnets, |pair| Entry::of(subnets, pair)).await?;
        if listing.revision < self.listed {
            let (now, was) = (listing.revision, self.listed);
            tracing::warn!(
                "{}: its revision went back from {was} to {now}: it was restored or wiped",
                self.store.link.place()
            );
        }
        self.listed = listing.revision;
        let peers = self.fold.replace(listing.pairs);
        let changed = self.guard.differs(&peers);
        // Where the receiver is gone, the caller ends us.
        if let Some(update) = self.guard.replace(peers, Instant::now()) {
            let _ = self.updates.send(update).await;
        }
        self.tell_contests().await;
        self.tell_guard().await;
        Ok(changed)
    }

    /// Follows a watch to its end, and says why it ended.
    async fn follow(&mut self, stream: &mut Stream) -> String {
        let store = self.store;
        let mut audit = Instant::now() + audit_interval();
        let mut beat = Instant::now();
        let mut beating = std::pin::pin!(Fuse::terminated());
        // The canary that was shown last; what is to be shown, and until when: any message, and the canary of a revision.
        let mut last_shown = 0;
        let mut knocked: Option<Instant> = None;
        let mut sung: Option<(i64, Instant)> = None;
        loop {
            let due = self.guard.next();
            let deaf = knocked.into_iter().chain(sung.map(|(_, until)| until)).min();
            tokio::select! {
                message = stream.next() => match message {
                    Ok(message) => {
                        knocked = None;
                        last_shown = shown_of(&message, &store.canary.key).unwrap_or(0).max(last_shown);
                        sung = sung.filter(|(revision, _)| last_shown < *revision);
                        self.apply(&message).await;
                        if shown_of(&message, &self.config).is_some()
                            && let Err(error) = store.compare_network(self.updates).await
                        {
                            return error.to_string();
                        }
                    }
                    Err(reason) => return reason,
                },
                () = sleep_until(beat) => {
                    beat = Instant::now() + BEAT;
                    beating.set(store.canary.beat(store, self.guard.known()).fuse());
                    if let Err(reason) = stream.knock().await {
                        return reason;
                    }
                    knocked.get_or_insert(Instant::now() + ECHO_LIMIT);
                }
                beaten = &mut beating => match beaten {
                    Ok(Some(revision)) if last_shown < revision => {
                        sung = Some((revision, Instant::now() + ECHO_LIMIT));
                    }
                    Ok(_) => {}
                    // The watch goes on as long as it can: an etcd without a quorum, or on a full disk, takes no writes.
                    Err(error) => tracing::debug!("{error}"),
                },
                () = at(deaf) => {
                    return format!("{}: the watch of {} is deaf: it shows no changes", store.link.place(), self.subnets);
                }
                () = at(due) => self.prune().await,
                () = sleep_until(audit) => {
                    audit = Instant::now() + audit_interval();
                    match self.list().await {
                        Ok(true) => tracing::warn!(
                            "{}: a list told of changes that the watch had not: they are in force now",
                            store.link.place()
                        ),
                        Ok(false) => {}
                        Err(error) => return error.to_string(),
                    }
                }
            }
        }
    }

    async fn apply(&mut self, message: &WatchResponse) {
        let is_new = |event: &&etcd_client::Event| {
            event.kv().is_some_and(|pair| {
                pair.mod_revision() > self.listed && pair.key().starts_with(self.subnets.as_bytes())
            })
        };
        let events =
            message.events().iter().filter(is_new).filter_map(|event| Event::of(&self.subnets, event));
        let changes = self.fold.apply(events);
        self.tell_contests().await;
        if changes.is_empty() {
            return;
        }
        for update in self.guard.pass(changes, Instant::now()) {
            let _ = self.updates.send(update).await;
        }
        self.tell_guard().await;
    }

    /// Lets go of what has been gone for long enough.
    async fn prune(&mut self) {
        for update in self.guard.due(Instant::now()) {
            let _ = self.updates.send(update).await;
        }
        self.tell_guard().await;
    }

    async fn tell_contests(&mut self) {
        let contested = self.store.warnings.contests();
        if contested != self.contested {
            self.contested.clone_from(&contested);
            let _ = self.updates.send(Update::Contested(contested)).await;
        }
    }

    async fn tell_guard(&self) {
        self.store.health.guard(self.guard.trouble(), self.updates).await;
    }
}

/// The last revision of a key that a message tells of.
fn shown_of(message: &WatchResponse, key: &str) -> Option<i64> {
    let pairs = message.events().iter().filter_map(|event| event.kv());
    pairs.filter(|pair| pair.key() == key.as_bytes()).map(|pair| pair.mod_revision()).max()
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

fn audit_interval() -> Duration {
    // Any clock's last digits will do.
    let nanos = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.subsec_nanos());
    AUDIT + AUDIT / 4 * (nanos % 1000) / 1000
}
