//! The forwarding database of a bridge: which MAC address is behind which port.

use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState},
};
use nix::errno::Errno;
use overlay_common::Mac;

use super::{Netlink, NetlinkError, neighbour};

/// A MAC address behind a port of a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FdbEntry {
    /// The bridge.
    pub bridge: u32,
    /// The port; the bridge itself for its own addresses.
    pub ifindex: u32,
    /// The address.
    pub mac: Mac,
    /// The VLAN, on bridges that have a default one or filter VLANs. The bridge's and the ports' own
    /// addresses stand there twice then, with and without.
    pub vlan: Option<u16>,
    /// Who put it there.
    pub kind: FdbKind,
}

/// Where an FDB entry is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FdbKind {
    /// An address of the port itself: frames for it are for this host (NUD_PERMANENT).
    Local,
    /// Set by an administrator; never ages (NUD_NOARP).
    Static,
    /// Seen as a source address on the port; ages and moves.
    Learned,
}

impl FdbEntry {
    /// None for what is not a bridge's entry: vxlan devices and NICs keep tables of their own.
    pub(super) fn from_message(message: &NeighbourMessage) -> Option<Self> {
        if message.header.family != AddressFamily::Bridge {
            return None;
        }
        let bridge = message.attributes.iter().find_map(|attribute| match attribute {
            NeighbourAttribute::Controller(bridge) => Some(*bridge),
            _ => None,
        })?;
        let vlan = message.attributes.iter().find_map(|attribute| match attribute {
            NeighbourAttribute::Vlan(vlan) => Some(*vlan),
            _ => None,
        });
        let kind = match message.header.state {
            NeighbourState::Permanent => FdbKind::Local,
            NeighbourState::Noarp => FdbKind::Static,
            _ => FdbKind::Learned,
        };
        Some(Self { bridge, ifindex: message.header.ifindex, mac: neighbour::lladdr(message)?, vlan, kind })
    }
}

impl Netlink {
    /// The forwarding database of a bridge; empty where there is no such bridge.
    pub async fn fdb(&self, bridge: u32) -> Result<Vec<FdbEntry>, NetlinkError> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        message.attributes.push(NeighbourAttribute::Controller(bridge));
        let found = self.dump(RouteNetlinkMessage::GetNeighbour(message), |answer| match answer {
            RouteNetlinkMessage::NewNeighbour(message) => FdbEntry::from_message(message),
            _ => None,
        });
        match found.await {
            Ok(mut entries) => {
                entries.retain(|entry| entry.bridge == bridge);
                Ok(entries)
            }
            Err(cause) if cause.is_any(&[Errno::ENODEV]) => Ok(Vec::new()),
            Err(cause) => {
                let device = self.device(bridge).await;
                Err(NetlinkError::new(format!("list the FDB of bridge {device}"), cause))
            }
        }
    }
}
