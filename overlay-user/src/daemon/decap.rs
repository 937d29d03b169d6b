//! The decapsulation's side of the daemon.

use super::{Aspect, Daemon};
use crate::datapath::Tools;

impl Daemon {
    /// Keeps the uplinks' decapsulation where it should be. A trial or a grace goes on with every round.
    pub(super) async fn follow_decap(&mut self) {
        let tools = Tools {
            programs: &mut self.programs,
            maps: &mut self.maps,
            pins: &self.pins,
            netlink: &self.netlink,
        };
        let synced = self.decap.sync(self.config.decap, &self.local.uplinks, tools).await;
        self.say(Aspect::Decap, synced.err().unwrap_or_default());
    }
}
