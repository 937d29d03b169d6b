//! What the operator should know though nothing is wrong: said once in the log, and kept for `overlayctl status`.

use tracing::{error, info, warn};

use super::Daemon;
use crate::exit;

/// Who has something to say. `status` shows the notes in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    /// What the kernel lacks.
    Kernel,
    /// What the kernel is set not to do.
    Settings,
    /// What the bridges have in place of what was leased.
    Lease,
    /// Peers' addresses that several hosts give themselves.
    Hosts,
    /// Who sends and is no peer.
    Strangers,
    /// Tunnel devices that cannot be had.
    Tunnels,
    /// Other people's programs on our hooks.
    Hooks,
    /// What the host's netfilter would do to packets that pass it by.
    Netfilter,
}

impl Daemon {
    /// Replaces all that a source has said.
    pub(super) fn note(&mut self, source: Source, notes: Vec<String>) {
        let before = self.notes.insert(source, notes).unwrap_or_default();
        let now = &self.notes[&source];
        for note in now.iter().filter(|note| !before.contains(note)) {
            match source {
                // Somebody has to do something about it.
                Source::Lease | Source::Hosts | Source::Strangers => warn!("{note}"),
                _ => info!("note: {note}"),
            }
        }
        for note in before.iter().filter(|note| !now.contains(note)) {
            info!("no longer: {note}");
        }
        if let Err(error) = self.maps.put_notes(self.notes.values().flatten().map(String::as_str)) {
            error!("cannot write the notes: {}", exit::one_line(&error.into()));
        }
    }
}
