//! One port: from what there is to a device that is up, or to who has the port.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use overlay_common::{
    Encap,
    map::{TunnelDevice, tunnel_device_flag},
};
use tracing::info;

use super::{
    Outcome, Round, TunnelDevices, device,
    device::{Uncreated, is_ours},
    said,
    taken::{Holder, by_a_socket},
    words,
};
use crate::netlink::{TunnelSettings, UdpTunnel};

/// How long a port is left alone after a device could not be made for it. Making one and deleting it are link
/// events themselves, which must not lead to the next attempt.
const RETRY: Duration = Duration::from_secs(9);

impl TunnelDevices {
    /// Brings up the device on a port, `ours` where there is one.
    pub(super) async fn settle(
        &mut self,
        port: u16,
        ours: Option<&UdpTunnel>,
        round: &mut Round<'_>,
    ) -> Result<Outcome, String> {
        let settings = round.wanted.settings(port, round.vtep_mac);
        let settings = settings.ok_or_else(|| format!("no tunnels on UDP port {port}"))?;
        if let Some(device) = ours {
            return self.raise(device, &settings, round).await;
        }
        if let Some(holder) = Holder::among(&round.others, port) {
            return Ok(Outcome::Taken(holder));
        }
        if let Some((until, outcome)) = self.postponed.get(&port)
            && Instant::now() < *until
        {
            return outcome.clone();
        }
        let outcome = self.make(&settings, round).await;
        if !matches!(outcome, Ok(Outcome::Up)) {
            self.postponed.insert(port, (Instant::now() + RETRY, outcome.clone()));
        }
        outcome
    }

    async fn make(&mut self, settings: &TunnelSettings, round: &mut Round<'_>) -> Result<Outcome, String> {
        // A device like ours shares its socket, which would look taken.
        if !round.shares(settings.port) && by_a_socket(settings.port) {
            return Ok(Outcome::Taken(Holder::Socket));
        }
        let device = match device::create(settings, round.tools.netlink).await {
            Ok(device) => device,
            Err(Uncreated::Unsupported) => return Ok(Outcome::Unsupported),
            Err(Uncreated::Failed(reason)) => return Err(reason),
        };
        self.raise(&device, settings, round).await
    }

    /// Guards a device, sets its VNIs, and sets it up. Where the port turns out to be taken, the device goes.
    async fn raise(
        &mut self,
        device: &UdpTunnel,
        settings: &TunnelSettings,
        round: &mut Round<'_>,
    ) -> Result<Outcome, String> {
        let (index, netlink) = (device.link.index, round.tools.netlink);
        let up = self.guard(device, &mut round.tools).await?;
        device::repair(device, settings, netlink).await?;
        if settings.encap == Encap::Vxlan
            && netlink.set_vnis(index, &round.wanted.vnis).await.map_err(said)?
        {
            info!("tunnel device {} takes VNIs {:?}", settings.name, round.wanted.vnis);
        }
        round.enter(settings.port, index)?;
        if up {
            return Ok(Outcome::Up);
        }
        match netlink.set_link_up(index, &settings.name, true).await {
            Ok(()) => {
                info!("tunnel device {} is up on UDP port {}", settings.name, settings.port);
                Ok(Outcome::Up)
            }
            Err(error) if error.errno() == Some(Errno::EADDRINUSE) => {
                self.remove(device, &mut round.tools).await?;
                // Whoever it is may have come after we looked.
                let mut found = netlink.udp_tunnels().await.map_err(said)?;
                found.retain(|vxlan| !is_ours(vxlan, Some(settings.mac)));
                Ok(Outcome::Taken(Holder::among(&found, settings.port).unwrap_or(Holder::Socket)))
            }
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Round<'_> {
    /// True where a device of somebody else's listens on a port too.
    fn shares(&self, port: u16) -> bool {
        self.others.iter().any(|vxlan| vxlan.link.up && vxlan.port == port)
    }

    /// Tells the programs of our device on a port.
    fn enter(&mut self, port: u16, ifindex: u32) -> Result<(), String> {
        let flags = if self.shares(port) { tunnel_device_flag::SHARED } else { 0 };
        self.put(port, TunnelDevice { ifindex, flags })
    }

    fn put(&mut self, port: u16, entry: TunnelDevice) -> Result<(), String> {
        let (maps, port) = (&mut self.tools.maps, u32::from(port));
        if maps.tunnel_device(port).map_err(words)? == Some(entry) {
            return Ok(());
        }
        maps.put_tunnel_device(port, entry).map_err(words)
    }

    /// Tells the programs and the operator what became of a port, given whether our device was up on it before.
    /// Returns troubles.
    pub(super) fn tell(
        &mut self,
        port: u16,
        outcome: Result<Outcome, String>,
        was_up: bool,
        notes: &mut Vec<String>,
    ) -> Vec<String> {
        let mut troubles = Vec::new();
        let told = match outcome {
            Ok(Outcome::Up) => Ok(()),
            Ok(Outcome::Taken(holder)) => {
                match holder.trouble(port, &self.wanted.vnis) {
                    Some(trouble) => troubles.push(trouble),
                    None => notes.push(holder.note(port)),
                }
                self.put(port, TunnelDevice { ifindex: 0, flags: tunnel_device_flag::SHARED })
            }
            Ok(Outcome::Unsupported) => {
                notes.push(format!(
                    "this kernel has no Geneve devices (module geneve), so overlayd has none on UDP port {port}: what \
                     arrives there is not merged (GRO), and fragments and packets with IP options are lost"
                ));
                self.tools.maps.delete_tunnel_device(u32::from(port)).map_err(words)
            }
            Err(reason) if was_up => {
                troubles
                    .push(format!("the tunnel device on UDP port {port} is not as it should be: {reason}"));
                Ok(())
            }
            Err(reason) => {
                troubles.push(format!(
                    "no tunnel device on UDP port {port}, so tunnel packets that arrive as fragments or with IP \
                     options are lost: {reason}"
                ));
                self.tools.maps.delete_tunnel_device(u32::from(port)).map_err(words)
            }
        };
        troubles.extend(told.err());
        troubles
    }
}
