//! Our own interfaces while the daemon runs: they change, go, come back as others, or get other names.

use std::collections::BTreeSet;

use tracing::info;

use super::{Daemon, notes::Source, start::stop_redirects};
use crate::{config::Config, exit, local::Local, sysctl};

/// What the store has not been told yet of a host that has changed.
#[derive(Debug, Default)]
pub(super) struct Untold {
    /// Its connections have to be given up.
    reconnect: bool,
}

impl Daemon {
    /// Looks up our own interfaces again. Where one is missing, what was known stays in force: it may come back.
    pub(super) async fn look_around(&mut self) -> BTreeSet<String> {
        let network = self.announcer.network();
        let mut troubles = BTreeSet::new();
        let config = self.with_new_names(&mut troubles).await;
        let takes = self.local.takes;
        let found = Local::discover(&config, network, self.local.vtep_mac, &self.netlink).await;
        let routed = self.local.routed.clone();
        match found.map(|local| Local { takes: takes.or(local.takes), routed, ..local }) {
            Ok(local) if local == self.local => {
                if self.astray {
                    // Routes go with an interface that is down, and it may have been down.
                    self.reconciler.forget();
                    self.underlay.forget();
                }
            }
            Ok(local) => self.become_what_is(local),
            Err(error) => {
                self.astray = true;
                let advice = "what is in force stays so until it is as it was, or overlayd is started with what is there now";
                // A name that is gone altogether says more than which names there are.
                let missing = self.missing().await;
                let line = exit::one_line(&error);
                troubles.insert(if missing.is_empty() {
                    line
                } else {
                    format!("{}: {advice}", missing.join(", "))
                });
                return troubles;
            }
        }
        self.astray = false;
        self.look_at_settings();
        self.look_at_lease();
        troubles.extend(self.stop_redirects());
        troubles.extend(self.local.mtu_trouble(&self.config));
        troubles.extend(self.local.uplink_troubles());
        troubles
    }

    /// The configuration with the names that our interfaces have by now, each of which is said.
    async fn with_new_names(&self, troubles: &mut BTreeSet<String>) -> Config {
        let mut config = self.config.clone();
        for known in &self.local.uplinks {
            let Some(uplink) = config.ifaces.get_mut(known.place) else { continue };
            if let Some(name) = self.new_name(uplink, known.index).await {
                troubles.insert(format!(
                    "uplink {uplink} is called {name} now, and still used: name it with --iface {name} before the \
                     next start"
                ));
                *uplink = name;
            }
        }
        for (bridge, known) in config.bridges.iter_mut().zip(&self.local.bridges) {
            if let Some(name) = self.new_name(bridge, known.index).await {
                troubles.insert(format!(
                    "bridge {bridge} is called {name} now, and still used: name it with --bridge {name} before the \
                     next start"
                ));
                *bridge = name;
            }
        }
        config
    }

    /// What an interface is called now, if nothing has the name that it was given to us by.
    async fn new_name(&self, given: &str, index: u32) -> Option<String> {
        if !matches!(self.netlink.link_by_name(given).await, Ok(None)) {
            return None;
        }
        self.netlink.link_by_index(index).await.ok().flatten().map(|link| link.name)
    }

    /// Our interfaces that do not exist, one line each with what to do.
    async fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        let is_missing = async |name: &str| matches!(self.netlink.link_by_name(name).await, Ok(None));
        for uplink in &self.config.ifaces {
            if is_missing(uplink).await {
                missing.push(format!(
                    "uplink {uplink} is gone and no peer is reached until it is made again, with its address"
                ));
            }
        }
        for bridge in &self.config.bridges {
            if is_missing(bridge).await {
                missing.push(format!(
                    "bridge {bridge} is gone and with it its containers' network: make it again, by a restart of \
                     Docker if it was Docker's"
                ));
            }
        }
        missing
    }

    fn become_what_is(&mut self, local: Local) {
        info!(mtu = local.mtu, "this host's interfaces have changed");
        // Connections may hang on an address, or on a way, that is gone.
        let ways = |local: &Local| -> Vec<(u32, bool)> {
            local.uplinks.iter().map(|uplink| (uplink.index, uplink.up)).collect()
        };
        let moved = local.underlay != self.local.underlay || ways(&local) != ways(&self.local);
        let untold = self.untold.get_or_insert_default();
        untold.reconnect |= moved;
        self.local = local;
        self.reconciler.forget();
        self.underlay.forget();
    }

    /// Tells the store what this host has become: after the data path, which does not wait for it.
    pub(super) async fn tell_store(&mut self) {
        let Some(Untold { reconnect }) = self.untold.take() else { return };
        if reconnect {
            self.announcer.reconnect().await;
        }
        self.announce().await;
    }

    /// Looked at, and left as it is.
    fn look_at_settings(&mut self) {
        let bridges = self.local.bridges.iter();
        let with_ipv6 = bridges.filter_map(|bridge| Some((bridge.name.as_str(), bridge.address_v6?)));
        let notes = sysctl::ipv6_forwarding_note(with_ipv6).into_iter().chain(self.local.left_out_notes());
        self.note(Source::Settings, notes.collect());
    }

    /// A bridge that was made again has the settings of a new one.
    fn stop_redirects(&mut self) -> Option<String> {
        match stop_redirects(&self.local) {
            Ok(changed) => {
                if self.state.note_sysctls(changed) {
                    self.write_state();
                }
                None
            }
            Err(error) => Some(exit::one_line(&error)),
        }
    }
}
