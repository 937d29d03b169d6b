//! The tunnel devices' side of the daemon.

use tracing::{info, warn};

use super::{Aspect, Daemon};
use crate::{exit, tunnel_devices::Tools};

impl Daemon {
    /// Keeps the tunnel devices as they should be; `refresh` where ports or VNIs may be others than last time.
    pub(super) async fn follow_tunnels(&mut self, refresh: bool) {
        if refresh {
            self.tunnel_devices.refresh();
        }
        let tools = Tools {
            programs: &mut self.programs,
            maps: &mut self.maps,
            pins: &self.pins,
            netlink: &self.netlink,
        };
        let report = self.tunnel_devices.sync(&self.local, tools).await;
        self.say(Aspect::Tunnels, report.troubles);
        self.note(report.notes);
    }

    /// Tells what the operator should know, in the log once and in the status as long as it holds.
    fn note(&mut self, notes: Vec<String>) {
        for note in notes.iter().filter(|note| !self.notes.contains(note)) {
            warn!("{note}");
        }
        for note in self.notes.iter().filter(|note| !notes.contains(note)) {
            info!("settled: {note}");
        }
        self.notes = notes;
        if let Err(error) = self.maps.put_notes(self.notes.iter().map(String::as_str)) {
            warn!("cannot write the notes: {}", exit::one_line(&error.into()));
        }
    }
}
