//! The tunnel devices' side of the daemon.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use overlay_common::{
    Kinds,
    map::{Tunnel, tunnel_flag},
    vni::VniKey,
};

use super::{Aspect, Daemon, notes::Source};
use crate::{
    datapath::{DatapathError, Tools, map::Maps},
    exit::one_line,
    local::Local,
    reconcile::held::Held,
};

/// What tunnel devices have to carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Carried {
    ports: BTreeMap<u16, u32>,
    /// The kinds that this host takes.
    kinds: Kinds,
    vnis: BTreeSet<VniKey>,
    /// The ports to which packets go that want UDP checksums.
    checksums: BTreeSet<u16>,
}

impl Carried {
    fn of(held: &Held, local: &Local) -> Self {
        let (vnis, checksums) = (held.vnis().collect(), held.checksum_ports().collect());
        Self { ports: held.observed().listen_ports.clone(), kinds: local.takes, vnis, checksums }
    }
}

impl Daemon {
    /// Keeps the tunnel devices as they should be: looked at where ports or VNIs are others than last time, or where
    /// links `changed`.
    pub(super) async fn follow_tunnels(&mut self, changed: bool) {
        let carried = self.reconciler.held().map(|held| Carried::of(held, &self.local));
        let same = carried.is_some() && carried == self.tunnels_told;
        if same && !changed && !self.troubles.contains_key(&Aspect::Tunnels) {
            return;
        }
        if !same {
            self.tunnel_devices.refresh();
        }
        let tools = Tools {
            programs: &mut self.programs,
            maps: &mut self.maps,
            pins: &self.pins,
            netlink: &self.netlink,
        };
        let mut report = self.tunnel_devices.sync(&self.local, tools).await;
        let troubles = match self.reconciler.held() {
            Some(held) => without_checksums(held, &self.maps),
            // The store has not spoken yet: what the maps hold is in force.
            None => observe_checksums(&self.maps),
        };
        match troubles {
            Ok(troubles) => report.troubles.extend(troubles),
            Err(error) => drop(report.troubles.insert(one_line(&error.into()))),
        }
        self.tunnels_told = carried;
        self.say(Aspect::Tunnels, report.troubles);
        self.note(Source::Tunnels, report.notes);
    }
}

/// The peers that want UDP checksums, which only a tunnel device of ours can fill in, and whose port has none.
fn without_checksums(held: &Held, maps: &Maps) -> Result<BTreeSet<String>, DatapathError> {
    let mut troubles = BTreeSet::new();
    for port in held.checksum_ports() {
        if !has_device(port, maps)? {
            troubles.extend(held.wanting_checksums(port).map(|tunnel| lost(&tunnel)));
        }
    }
    Ok(troubles)
}

/// As [`without_checksums`], by the maps alone.
fn observe_checksums(maps: &Maps) -> Result<BTreeSet<String>, DatapathError> {
    let mut troubles = BTreeSet::new();
    for (_, tunnel) in maps.tunnels()? {
        if tunnel.flags & tunnel_flag::UDP_CHECKSUM != 0 && !has_device(tunnel.port.get(), maps)? {
            troubles.insert(lost(&tunnel));
        }
    }
    Ok(troubles)
}

fn has_device(port: u16, maps: &Maps) -> Result<bool, DatapathError> {
    Ok(maps.tunnel_device(u32::from(port))?.is_some_and(|device| device.ifindex != 0))
}

fn lost(tunnel: &Tunnel) -> String {
    let (peer, port) = (IpAddr::from(tunnel.remote), tunnel.port.get());
    format!(
        "packets to peer {peer} are lost: it wants UDP checksums, which need a tunnel device of overlayd's on UDP port \
         {port}; free that port, or, where the peer takes packets without, say zero_checksum = true"
    )
}
