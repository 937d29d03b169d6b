//! What the daemon says of itself: in STATUS, to the service manager, and over the API socket.

use std::time::Instant;

use overlay_common::{addr::MapIp, map::StoreState};
use tracing::error;

use super::{Aspect, Daemon};
use crate::{api::Word, exit, netlink::netns, status, store::Health};

impl Daemon {
    /// Writes the status, and says the same to whoever watches over the daemon.
    pub(super) fn write_status(&mut self) {
        let mut status = self.identity();
        status.heartbeat = status::now();
        status.repaired = self.repairs.count();
        status.pid = std::process::id();
        status.store_kind = self.announcer.kind() as u32;
        let message = match &self.health {
            Health::Degraded { reason } => Some(reason.clone()),
            Health::Ok => {
                self.store_synced = status.heartbeat;
                self.troubles.values().flatten().next().cloned()
            }
        };
        let whole = self.health == Health::Ok;
        self.supervisor.alive(message.clone().unwrap_or_else(|| "in step".to_owned()));
        self.api.say(self.word(message.clone()));
        status.store_state = if whole { StoreState::Ok as u32 } else { StoreState::Degraded as u32 };
        status.store_synced = self.store_synced;
        status.message = status::field(message.as_deref().unwrap_or_default());
        // A container is noted as alive where it is judged, which a remembered flow is not.
        self.maps.forget_flows();
        if let Err(error) = self.maps.put_status(status) {
            error!("cannot write the status: {}", exit::one_line(&error.into()));
        }
    }

    /// What is said over the API socket. Without our own interfaces there is no network; all else goes on as it was.
    fn word(&self, degraded: Option<String>) -> Word {
        let starting = || Word::starting().unready.filter(|_| !self.phases.are_told());
        let ours = [Aspect::Local, Aspect::Links].into_iter().filter_map(|aspect| self.troubles.get(&aspect));
        let unready = starting().or_else(|| ours.flatten().next().cloned());
        Word { round: Instant::now(), unready, degraded }
    }

    /// The part of the status that changes seldom.
    fn identity(&self) -> overlay_common::map::Status {
        let mut status = status::empty();
        status.netns_cookie = netns::cookie().unwrap_or_default();
        status.started = self.started;
        let uplink = self.local.uplinks.first();
        status.uplink = uplink.map_or(0, |uplink| uplink.index);
        status.mtu = self.local.mtu;
        status.public_ip = self.local.public.v4().map(MapIp::from).unwrap_or_default();
        status.public_ip_v6 = self.local.public.v6().map(MapIp::from).unwrap_or_default();
        status.node_name = status::field(&self.config.node_name);
        status.uplink_name = status::field(uplink.map_or("", |uplink| uplink.name.as_str()));
        status
    }
}
