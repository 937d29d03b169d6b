//! The tunnel devices: for each UDP port that carries tunnels one VXLAN or Geneve device, `ovl0` on the node's own port.
//! It holds the port's socket: the kernel merges (GRO) and reassembles what arrives for it, and
//! `tunnel_ingress` takes what comes out. The device accepts any packet from anybody, so it never is up without
//! that program: attached before it goes up, and removed after it is gone.

mod device;
mod guard;
mod port;
mod taken;
mod wanted;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use overlay_common::{Mac, map::program};

use self::{device::is_ours, taken::Holder, wanted::Wanted};
use crate::{
    datapath::{
        DatapathError, Tools,
        attach::{self, Attachment},
        held::HeldLink,
    },
    exit::one_line,
    local::Local,
    netlink::{Netlink, NetlinkError, UdpTunnel},
};

/// How the devices are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What is wrong, one line each.
    pub troubles: BTreeSet<String>,
    /// What is not wrong but should be known, one line each.
    pub notes: Vec<String>,
}

/// What became of a port.
#[derive(Clone, Debug)]
enum Outcome {
    /// Our device is up on it.
    Up,
    /// Somebody else has it.
    Taken(Holder),
    /// The kernel has no devices of this kind.
    Unsupported,
}

/// One pass over all ports.
struct Round<'a> {
    wanted: &'a Wanted,
    vtep_mac: Mac,
    /// Devices that are not ours.
    others: Vec<UdpTunnel>,
    tools: Tools<'a>,
}

/// Our tunnel devices, kept as they should be.
#[derive(Debug, Default)]
pub struct TunnelDevices {
    wanted: Option<Wanted>,
    /// Devices whose link has this build's program.
    guarded: BTreeSet<u32>,
    /// Their links, held besides the pins: whoever removes a pin does not open the door.
    held: BTreeMap<u32, HeldLink>,
    /// Ports for which there could be no device: until when they are left alone, and why.
    postponed: BTreeMap<u16, (Instant, Result<Outcome, String>)>,
    /// What somebody else did to them, one line each.
    drift: Vec<String>,
}

impl TunnelDevices {
    /// Has the next [`Self::sync`] read from the maps again which ports and VNIs there are.
    pub fn refresh(&mut self) {
        self.wanted = None;
    }

    /// What somebody else did to the devices, one line each, since this was last asked.
    pub fn take_drift(&mut self) -> Vec<String> {
        std::mem::take(&mut self.drift)
    }

    /// Makes the devices what they should be: missing ones, changed ones, and those nobody wants any more.
    /// What fails is told, and tried again at a later call.
    pub async fn sync(&mut self, local: &Local, tools: Tools<'_>) -> Report {
        let wanted = match self.wanted.take() {
            Some(wanted) => Ok(wanted),
            None => Wanted::read(local, tools.maps).map_err(words),
        };
        let result = match wanted {
            Ok(wanted) => {
                let report = self.round(&wanted, local.vtep_mac, tools).await;
                self.wanted = Some(wanted);
                report
            }
            Err(reason) => Err(reason),
        };
        result.unwrap_or_else(|reason| Report { troubles: [reason].into(), notes: Vec::new() })
    }

    async fn round(&mut self, wanted: &Wanted, vtep_mac: Mac, tools: Tools<'_>) -> Result<Report, String> {
        let found = tools.netlink.udp_tunnels().await.map_err(said)?;
        let (ours, others) = found.into_iter().partition(|vxlan| is_ours(vxlan, Some(vtep_mac)));
        let mut round = Round { wanted, vtep_mac, others, tools };
        let mut report = Report::default();
        let mut kept = self.remove_unwanted(ours, &mut round, &mut report).await;
        for port in wanted.ports.keys().copied() {
            let outcome = self.settle(port, kept.get(&port), &mut round).await;
            if let Ok(Outcome::Up) = outcome {
                self.postponed.remove(&port);
            }
            let up = kept.remove(&port).is_some_and(|device| device.link.up);
            report.troubles.extend(round.tell(port, outcome, up, &mut report.notes));
        }
        self.forget(&mut round).await?;
        Ok(report)
    }

    /// Removes our devices that are on no port of ours, or are not what they should be and cannot be made so.
    /// Returns the others.
    async fn remove_unwanted(
        &mut self,
        ours: Vec<UdpTunnel>,
        round: &mut Round<'_>,
        report: &mut Report,
    ) -> BTreeMap<u16, UdpTunnel> {
        let mut kept = BTreeMap::new();
        for device in ours {
            match round.wanted.settings(device.port, round.vtep_mac) {
                Some(settings) if device::can_stay(&device, &settings) => {
                    kept.insert(device.port, device);
                }
                _ => report.troubles.extend(self.remove(&device, &mut round.tools).await.err()),
            }
        }
        kept
    }

    /// Removes what belongs to ports that are none any more, and to devices that somebody deleted.
    async fn forget(&mut self, round: &mut Round<'_>) -> Result<(), String> {
        let Tools { maps, pins, netlink, .. } = &mut round.tools;
        for (port, _) in maps.tunnel_devices().map_err(words)? {
            if !u16::try_from(port).is_ok_and(|port| round.wanted.ports.contains_key(&port)) {
                maps.delete_tunnel_device(port).map_err(words)?;
            }
        }
        self.postponed.retain(|port, _| round.wanted.ports.contains_key(port));
        for (index, name) in pins.pinned_links().map_err(words)? {
            if name == program::TUNNEL_INGRESS && netlink.link_by_index(index).await.map_err(said)?.is_none()
            {
                attach::detach(pins, &attachment(index)).map_err(words)?;
                if self.guarded.remove(&index) {
                    self.drift.push(format!("tunnel device {index} was gone"));
                }
                self.held.remove(&index);
            }
        }
        Ok(())
    }
}

/// Removes every tunnel device of ours; their programs' pins are to be removed afterwards.
///
/// # Errors
/// [`NetlinkError`] for the first that cannot be removed.
pub async fn remove_all(netlink: &Netlink, vtep_mac: Option<Mac>) -> Result<(), NetlinkError> {
    for device in netlink.udp_tunnels().await?.iter().filter(|vxlan| is_ours(vxlan, vtep_mac)) {
        netlink.delete_link(device.link.index, &device.link.name).await?;
    }
    Ok(())
}

fn attachment(ifindex: u32) -> Attachment {
    Attachment { ifindex, program: program::TUNNEL_INGRESS }
}

fn words(error: DatapathError) -> String {
    one_line(&error.into())
}

fn said(error: NetlinkError) -> String {
    error.to_string()
}
