//! One watch stream of etcd's: opened, read, and checked for everything that makes it worth nothing.

use std::time::Duration;

use etcd_client::{WatchOptions, WatchResponse, WatchStream};
use tokio::time::timeout;

use super::{
    EtcdStore,
    link::{self, Connected, MESSAGE_LIMIT},
};

/// A watch that etcd has not confirmed after this time is taken for dead.
const CREATED_LIMIT: Duration = Duration::from_secs(5);

/// The changes of one key, or of all under a prefix.
pub(super) struct Stream {
    stream: WatchStream,
    connected: Connected,
    /// The watch that counts. Others on the same stream may end.
    id: i64,
    key: String,
    place: String,
    /// The last change that was told.
    revision: i64,
}

impl Stream {
    /// Opens a watch of everything after `revision`, confirmed by etcd.
    ///
    /// # Errors
    /// One line. The member that did not serve is given up for the next one.
    pub(super) async fn open(
        store: &EtcdStore,
        key: &str,
        options: WatchOptions,
        revision: i64,
    ) -> Result<Self, String> {
        let place = store.link.place();
        let connected = match store.link.connected().await {
            Ok(connected) => connected,
            Err(failure) => return Err(format!("{place}: watching {key} failed: {failure}")),
        };
        let options = options.with_progress_notify().with_start_revision(revision + 1);
        let opening = async {
            let client = connected.client.watch_client().max_decoding_message_size(MESSAGE_LIMIT);
            let mut stream = { client }.watch(key, Some(options)).await?;
            let first = stream.message().await?;
            Ok::<_, etcd_client::Error>((stream, first))
        };
        let opened = match timeout(CREATED_LIMIT, opening).await {
            Ok(Ok((stream, Some(first)))) => {
                let (id, key) = (first.watch_id(), key.to_owned());
                let stream = Self { stream, connected: connected.clone(), id, key, place, revision };
                match stream.check(&first) {
                    Ok(()) if first.created() => return Ok(stream),
                    Ok(()) => Err(format!("{}: the watch of {} was not confirmed", stream.place, stream.key)),
                    Err(reason) => Err(reason),
                }
            }
            Ok(Ok((_, None))) => Err(format!("{place}: the watch of {key} ended at once")),
            Ok(Err(error)) => Err(format!("{place}: watching {key} failed: {}", link::describe(&error))),
            Err(_) => Err(format!("{place}: no answer to a watch of {key}")),
        };
        store.link.give_up(&connected).await;
        opened
    }

    /// Has another key watched on the same stream. Its own end is no trouble.
    pub(super) async fn watch_too(&mut self, key: &str) -> Result<(), String> {
        self.stream.watch(key, None).await.map_err(|error| self.broke(&error))
    }

    /// Asks for a message, whether there are changes or not.
    pub(super) async fn knock(&mut self) -> Result<(), String> {
        self.stream.request_progress().await.map_err(|error| self.broke(&error))
    }

    /// The next message. Safe to drop while it waits.
    pub(super) async fn next(&mut self) -> Result<WatchResponse, String> {
        let message = match self.stream.message().await {
            Ok(Some(message)) => message,
            Ok(None) => return Err(format!("{}: the watch of {} ended", self.place, self.key)),
            Err(error) => return Err(self.broke(&error)),
        };
        self.check(&message)?;
        // Another watch on the stream may be ahead of this one.
        if message.watch_id() != self.id {
            return Ok(message);
        }
        // The header of a progress report may run ahead of events still to come (etcd issue 15220): only events
        // count.
        let last =
            message.events().iter().filter_map(|event| event.kv()).map(|pair| pair.mod_revision()).max();
        self.revision = last.unwrap_or(0).max(self.revision);
        Ok(message)
    }

    /// The member that it comes from.
    pub(super) fn connected(&self) -> &Connected {
        &self.connected
    }

    fn broke(&self, error: &etcd_client::Error) -> String {
        format!("{}: the watch of {} broke: {}", self.place, self.key, link::describe(error))
    }

    fn check(&self, message: &WatchResponse) -> Result<(), String> {
        let (place, key) = (&self.place, &self.key);
        // First, for the header's revision is 0 in here.
        if message.canceled() {
            if message.watch_id() != self.id {
                return Ok(());
            }
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
        // A watch from a revision that is yet to come would stay silent until it has come. The confirmation of another
        // watch may be older than what this one has shown meanwhile.
        let now = message.header().filter(|_| message.watch_id() == self.id).map(|header| header.revision());
        match now {
            Some(now) if now < self.revision => Err(format!(
                "{place}: its revision went back from {} to {now}: it was restored or wiped",
                self.revision
            )),
            _ => Ok(()),
        }
    }
}
