//! The store's side of the daemon: one task watches, one keeps our subnets announced.

use std::sync::Arc;

use overlay_common::map::StoreKind;
use tokio::{sync::mpsc, task::JoinHandle};
use tracing::{info, warn};

use super::Daemon;
use crate::{
    local::Local,
    store::{Announcement, NetworkConfig, Store, StoreError, Update},
};

/// Updates that may wait for the daemon; a store that reports faster waits.
const QUEUE: usize = 256;

/// The store and its tasks.
pub(super) struct Announcer {
    store: Arc<dyn Store>,
    network: Option<NetworkConfig>,
    sender: mpsc::Sender<Update>,
    watch: Option<JoinHandle<()>>,
    announce: Option<JoinHandle<()>>,
}

impl Announcer {
    /// Takes the store; nothing runs yet.
    pub(super) fn new(
        store: Arc<dyn Store>,
        network: Option<NetworkConfig>,
    ) -> (Self, mpsc::Receiver<Update>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self { store, network, sender, watch: None, announce: None }, receiver)
    }

    pub(super) fn kind(&self) -> StoreKind {
        self.store.kind()
    }

    pub(super) fn network(&self) -> Option<NetworkConfig> {
        self.network
    }

    pub(super) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Starts watching.
    pub(super) fn watch(&mut self) {
        let (store, sender) = (Arc::clone(&self.store), self.sender.clone());
        self.watch = Some(tokio::spawn(async move { store.watch(sender).await }));
    }

    /// Gives up the store's connections, which may hang on an address that is gone, and watches anew.
    pub(super) async fn reconnect(&mut self) {
        self.store.reconnect().await;
        if self.watch.is_some() {
            end(self.watch.take()).await;
            self.watch();
        }
    }

    /// Announces these from now on, instead of what was announced before. Where `replaced` tells that what was
    /// announced under other keys is replaced, that has happened when this returns, or it says why not.
    async fn announce(&mut self, announcements: Vec<Announcement>, replaced: bool) -> Result<(), StoreError> {
        // Else it would write again what is replaced.
        end(self.announce.take()).await;
        let claimed = if replaced { self.store.claim(&announcements).await } else { Ok(()) };
        let (store, sender) = (Arc::clone(&self.store), self.sender.clone());
        self.announce = Some(tokio::spawn(async move { store.announce(announcements, sender).await }));
        claimed
    }

    /// Ends the tasks. What is announced stays announced.
    pub(super) async fn stop(&mut self) {
        end(self.announce.take()).await;
        end(self.watch.take()).await;
    }
}

async fn end(task: Option<JoinHandle<()>>) {
    if let Some(task) = task {
        task.abort();
        // Cancelled is what it is meant to be.
        let _ = task.await;
    }
}

/// What a host announces.
pub(super) fn announcements(local: &Local) -> Vec<Announcement> {
    let announce = |bridge: &crate::local::Bridge| Announcement {
        subnets: bridge.announced(),
        host: local.public,
        src_ips: local.src_ips.clone(),
        vni: local.vni.get(),
        vtep_mac: local.vtep_mac.to_string(),
        encap: local.encap,
    };
    local.bridges.iter().map(announce).collect()
}

impl Daemon {
    /// Announces what this host now is, and takes back what it no longer is. The state is written first: a
    /// crash in between leaves a detach everything it needs.
    pub(super) async fn announce(&mut self) {
        let new = announcements(&self.local);
        let stale = self.state.note_announcements(&new);
        self.write_state();
        // A subnet that has another key now, since its bridge's IPv6 part has come or gone, must not be gone in
        // between: its old key goes in the step that writes the new one, and not before.
        let is_replaced =
            |old: &Announcement| new.iter().any(|new| new.subnets.common(old.subnets).is_some());
        let (replaced, mut gone): (Vec<_>, Vec<_>) = stale.into_iter().partition(is_replaced);
        let mut kept = Vec::new();
        match self.announcer.announce(new.clone(), !replaced.is_empty()).await {
            Ok(()) => gone.extend(replaced),
            Err(error) => {
                warn!("{error}");
                kept = replaced;
            }
        }
        if gone.is_empty() {
            return;
        }
        match self.announcer.store().withdraw(&gone).await {
            Ok(()) => {
                info!("took back {} announcements of subnets that are no longer this host's", gone.len());
                self.state.announcements = kept.into_iter().chain(new).collect();
                self.write_state();
            }
            Err(error) => warn!("{error}"),
        }
    }

    pub(super) fn write_state(&self) {
        if let Err(error) = self.state_dir.write(&self.state) {
            warn!("{}", crate::exit::one_line(&error));
        }
    }
}
