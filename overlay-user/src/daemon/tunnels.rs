//! The tunnel devices' side of the daemon.

use std::{collections::BTreeSet, net::IpAddr};

use overlay_common::map::tunnel_flag;

use super::{Aspect, Daemon, notes::Source};
use crate::{
    datapath::{DatapathError, Tools, map::Maps},
    exit::one_line,
};

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
        let mut report = self.tunnel_devices.sync(&self.local, tools).await;
        match without_checksums(&self.maps) {
            Ok(troubles) => report.troubles.extend(troubles),
            Err(error) => drop(report.troubles.insert(one_line(&error.into()))),
        }
        self.say(Aspect::Tunnels, report.troubles);
        self.note(Source::Tunnels, report.notes);
    }
}

/// The peers that want UDP checksums, which only a tunnel device of ours can fill in, and whose port has none.
fn without_checksums(maps: &Maps) -> Result<BTreeSet<String>, DatapathError> {
    let mut troubles = BTreeSet::new();
    for (_, tunnel) in maps.tunnels()? {
        let port = tunnel.port.get();
        let wanted = tunnel.flags & tunnel_flag::UDP_CHECKSUM != 0;
        if wanted && maps.tunnel_device(u32::from(port))?.is_none_or(|device| device.ifindex == 0) {
            troubles.insert(format!(
                "packets to peer {} are lost: it wants UDP checksums, which need a tunnel device of overlayd's on UDP port \
                 {port}; free that port, or, where the peer takes packets without, say zero_checksum = true",
                IpAddr::from(tunnel.remote)
            ));
        }
    }
    Ok(troubles)
}
