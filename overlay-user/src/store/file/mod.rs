//! The peers file: TOML, watched, applied on change. `parse` reads the text; this file follows it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use ipnet::IpNet;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use overlay_common::map::StoreKind;
use tokio::{
    sync::{Notify, mpsc},
    time::{sleep, timeout},
};

use super::{Announcement, Health, NetworkConfig, PeerSubnet, Store, StoreError, Update};

pub mod parse;

pub use parse::parse;

/// Where inotify says nothing (a network file system, a symlink's target), a change is seen after this time.
const POLL: Duration = Duration::from_secs(1);

/// Editors write in several steps: a file is read once it has been quiet for this long…
const QUIET: Duration = Duration::from_millis(50);

/// …but at the latest this many quiet times after the first change.
const QUIET_TIMES: usize = 10;

type Peers = BTreeMap<IpNet, PeerSubnet>;

/// Peers from a file.
#[derive(Debug)]
pub struct FileStore {
    path: PathBuf,
}

impl FileStore {
    /// The file is read on the first call, not here.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    async fn read(&self) -> Result<Peers, StoreError> {
        let path = self.path.display();
        let unreadable = |error: std::io::Error| {
            StoreError::Unreachable(format!("peers file {path}: {error}; create it, or correct --peers"))
        };
        // Reading a FIFO or a device might never end.
        if !tokio::fs::metadata(&self.path).await.map_err(unreadable)?.is_file() {
            return Err(StoreError::Invalid(format!(
                "peers file {path} is no regular file; correct --peers"
            )));
        }
        let text = tokio::fs::read(&self.path).await.map_err(unreadable)?;
        let text = String::from_utf8(text).map_err(|_| {
            StoreError::Invalid(format!("peers file {path} is no UTF-8 text; rewrite it as TOML"))
        })?;
        parse(&text).map_err(|error| StoreError::Invalid(format!("peers file {path}:{error}")))
    }

    async fn follow(&self, updates: &mpsc::Sender<Update>) -> Result<(), mpsc::error::SendError<Update>> {
        let changed = Arc::new(Notify::new());
        let _watcher = watcher(&self.path, &changed);
        let mut applied: Option<Peers> = None;
        let mut health: Option<Health> = None;
        loop {
            let stamp = Stamp::of(&self.path).await;
            let now = match self.read().await {
                Ok(peers) => {
                    if applied.as_ref() != Some(&peers) {
                        updates.send(Update::Snapshot(peers.clone())).await?;
                        applied = Some(peers);
                    }
                    Health::Ok
                }
                Err(error) => Health::Degraded { reason: consequence(&error, applied.as_ref()) },
            };
            if health.as_ref() != Some(&now) {
                if let Health::Degraded { reason } = &now {
                    tracing::warn!("{reason}");
                }
                updates.send(Update::Health(now.clone())).await?;
                health = Some(now);
            }
            wait(&self.path, stamp, &changed).await;
        }
    }
}

fn consequence(error: &StoreError, applied: Option<&Peers>) -> String {
    match applied {
        Some(peers) => {
            format!("{error} (its last good state stays in force; subnets in it: {})", peers.len())
        }
        None => error.to_string(),
    }
}

/// Watches the directory: an editor that renames a new file over the old one ends a watch of the file.
fn watcher(path: &Path, changed: &Arc<Notify>) -> Option<RecommendedWatcher> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let name = path.file_name().map(ToOwned::to_owned);
    let changed = Arc::clone(changed);
    let on_event = move |event: notify::Result<notify::Event>| {
        // Our own reading is an event, too.
        let ours = event.is_ok_and(|event| {
            !event.kind.is_access() && event.paths.iter().any(|path| path.file_name() == name.as_deref())
        });
        if ours {
            changed.notify_one();
        }
    };
    let watcher = notify::recommended_watcher(on_event).and_then(|mut watcher| {
        watcher.watch(directory, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    });
    watcher.inspect_err(|error| tracing::debug!("{}: polled only: {error}", directory.display())).ok()
}

/// What tells one state of a file from the next without reading it.
#[derive(PartialEq, Eq)]
struct Stamp(Option<(SystemTime, u64)>);

impl Stamp {
    async fn of(path: &Path) -> Self {
        let metadata = tokio::fs::metadata(path).await.ok();
        Self(metadata.and_then(|metadata| Some((metadata.modified().ok()?, metadata.len()))))
    }
}

/// Returns when the file may have changed, and has come to rest.
async fn wait(path: &Path, stamp: Stamp, changed: &Notify) {
    loop {
        tokio::select! {
            () = changed.notified() => break,
            () = sleep(POLL) => if Stamp::of(path).await != stamp { break },
        }
    }
    for _ in 0..QUIET_TIMES {
        if timeout(QUIET, changed.notified()).await.is_err() {
            return;
        }
    }
}

#[async_trait]
impl Store for FileStore {
    fn kind(&self) -> StoreKind {
        StoreKind::File
    }

    /// The file names what differs from the defaults peer by peer: it has no network-wide part.
    async fn network(&self) -> Result<Option<NetworkConfig>, StoreError> {
        Ok(None)
    }

    async fn list(&self) -> Result<Peers, StoreError> {
        self.read().await
    }

    async fn watch(&self, updates: mpsc::Sender<Update>) {
        tokio::select! {
            () = updates.closed() => {}
            // An error is the receiver's end.
            _ = self.follow(&updates) => {}
        }
    }

    /// Every host's file is written by hand: there is nothing to announce.
    async fn claim(&self, _announcements: &[Announcement]) -> Result<(), StoreError> {
        Ok(())
    }

    async fn announce(&self, _announcements: Vec<Announcement>, _updates: mpsc::Sender<Update>) {
        std::future::pending().await
    }

    async fn withdraw(&self, _announcements: &[Announcement]) -> Result<(), StoreError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
