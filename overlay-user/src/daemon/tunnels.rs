//! The tunnel devices' side of the daemon.

use super::{Aspect, Daemon, notes::Source};
use crate::datapath::Tools;

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
        self.note(Source::Tunnels, report.notes);
    }
}
