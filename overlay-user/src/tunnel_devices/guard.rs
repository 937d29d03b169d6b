//! The guard: no device of ours is up without its program.

use overlay_common::map::program;
use tracing::{info, warn};

use super::{TunnelDevices, attachment, said, words};
use crate::{
    datapath::{Tools, attach, held::HeldLink},
    netlink::UdpTunnel,
};

impl TunnelDevices {
    /// Sees to it that the program is attached: once in a daemon's life always, so that it is this build's.
    /// Returns whether the device is up.
    pub(super) async fn guard(&mut self, device: &UdpTunnel, tools: &mut Tools<'_>) -> Result<bool, String> {
        let (index, name) = (device.link.index, device.link.name.as_str());
        let attached = attach::is_attached(program::TUNNEL_INGRESS, name).map_err(words)?;
        let pinned = tools.pins.link(index, program::TUNNEL_INGRESS).exists();
        if attached && pinned && self.guarded.contains(&index) {
            return Ok(device.link.up);
        }
        if attached && !pinned && self.pin_again(index, tools) {
            return Ok(device.link.up);
        }
        if !attached && device.link.up {
            warn!("{name} was up without its program, which somebody has detached: set down");
            tools.netlink.set_link_up(index, name, false).await.map_err(said)?;
        }
        attach::attach(tools.programs, tools.pins, &attachment(index), name).map_err(words)?;
        self.guarded.insert(index);
        self.held
            .extend(HeldLink::of(&tools.pins.link(index, program::TUNNEL_INGRESS)).map(|held| (index, held)));
        Ok(device.link.up && attached)
    }

    /// Pins a link that is held and has no pin. True where nothing is left to do, or nothing can be pinned.
    fn pin_again(&mut self, index: u32, tools: &Tools<'_>) -> bool {
        let Some(held) = self.held.remove(&index) else { return false };
        let pin = tools.pins.link(index, program::TUNNEL_INGRESS);
        let nowhere = !tools.pins.links().is_dir();
        let held = if nowhere { Some(held) } else { held.pinned(&pin) };
        let done = held.is_some();
        self.held.extend(held.map(|held| (index, held)));
        done
    }

    /// Removes a device of ours: the programs forget it first, and its own program goes last.
    pub(super) async fn remove(&mut self, device: &UdpTunnel, tools: &mut Tools<'_>) -> Result<(), String> {
        let (index, name, port) = (device.link.index, device.link.name.as_str(), u32::from(device.port));
        if tools.maps.tunnel_device(port).map_err(words)?.is_some_and(|entry| entry.ifindex == index) {
            tools.maps.delete_tunnel_device(port).map_err(words)?;
        }
        tools.netlink.delete_link(index, name).await.map_err(said)?;
        attach::detach(tools.pins, &attachment(index)).map_err(words)?;
        self.guarded.remove(&index);
        self.held.remove(&index);
        info!("tunnel device {name} is removed");
        Ok(())
    }
}
