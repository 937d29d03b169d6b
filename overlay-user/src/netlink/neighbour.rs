//! The neighbour tables of both families (ARP and neighbour discovery): reading it, probing, permanent entries.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE, NlasIterator};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
};
use nix::errno::Errno;
use overlay_common::Mac;

use super::{Family, Netlink, NetlinkError, error::Cause, link};

/// What the kernel knows about an address on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The link.
    pub ifindex: u32,
    /// The address.
    pub ip: IpAddr,
    /// Its Ethernet address, where one was ever learned.
    pub mac: Option<Mac>,
    /// How far the kernel trusts it.
    pub state: NudState,
}

/// The state of a neighbour entry (NUD_*).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NudState {
    /// Not resolved and not being resolved.
    None,
    /// Being resolved for the first time.
    Incomplete,
    /// Confirmed lately.
    Reachable,
    /// Confirmed once; used as it is until somebody sends to it.
    Stale,
    /// Stale and in use; about to be probed.
    Delay,
    /// Being probed.
    Probe,
    /// Did not answer.
    Failed,
    /// Needs no resolution.
    NoArp,
    /// Set by an administrator.
    Permanent,
}

impl Neighbour {
    /// True where the kernel would send to this MAC address now (NUD_VALID).
    pub fn is_valid(&self) -> bool {
        use NudState::{Delay, NoArp, Permanent, Probe, Reachable, Stale};
        matches!(self.state, Reachable | Stale | Delay | Probe | Permanent | NoArp)
    }

    /// True where it was asked for and did not answer.
    pub fn is_failed(&self) -> bool {
        self.state == NudState::Failed
    }

    /// None for what is no neighbour: an FDB's entries, addresses answered by proxy, and multicast addresses, which
    /// nobody has to be asked for.
    pub(super) fn from_message(message: &NeighbourMessage) -> Option<Self> {
        let header = &message.header;
        if header.flags.contains(NeighbourFlags::Proxy) {
            return None;
        }
        let ip = message.attributes.iter().find_map(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
            _ => None,
        });
        let ip = ip.filter(|ip| !ip.is_multicast())?;
        Some(Self { ifindex: header.ifindex, ip, mac: lladdr(message), state: header.state.into() })
    }
}

impl From<NeighbourState> for NudState {
    fn from(state: NeighbourState) -> Self {
        match state {
            NeighbourState::Incomplete => Self::Incomplete,
            NeighbourState::Reachable => Self::Reachable,
            NeighbourState::Stale => Self::Stale,
            NeighbourState::Delay => Self::Delay,
            NeighbourState::Probe => Self::Probe,
            NeighbourState::Failed => Self::Failed,
            NeighbourState::Noarp => Self::NoArp,
            NeighbourState::Permanent => Self::Permanent,
            _ => Self::None,
        }
    }
}

impl Netlink {
    /// The neighbours of a link, of both families.
    pub async fn neighbours(&self, ifindex: u32) -> Result<Vec<Neighbour>, NetlinkError> {
        self.some_neighbours(ifindex, |_| true).await
    }

    /// The permanent neighbours of a link with a MAC address.
    pub async fn permanent_neighbours(&self, ifindex: u32, mac: Mac) -> Result<Vec<Neighbour>, NetlinkError> {
        self.some_neighbours(ifindex, |bytes| is_permanent(bytes, mac)).await
    }

    /// The other neighbours of a link: those that are to be left out may be ten thousands.
    pub async fn neighbours_beside(&self, ifindex: u32, mac: Mac) -> Result<Vec<Neighbour>, NetlinkError> {
        self.some_neighbours(ifindex, |bytes| !is_permanent(bytes, mac)).await
    }

    async fn some_neighbours(
        &self,
        ifindex: u32,
        worth: impl Fn(&[u8]) -> bool,
    ) -> Result<Vec<Neighbour>, NetlinkError> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Unspec;
        message.attributes.push(NeighbourAttribute::IfIndex(ifindex));
        let request = RouteNetlinkMessage::GetNeighbour(message);
        let found = self.dumps.dump(request, worth, |answer| match answer {
            RouteNetlinkMessage::NewNeighbour(message) => Neighbour::from_message(message),
            _ => None,
        });
        match found {
            Ok(mut neighbours) => {
                neighbours.retain(|neighbour| neighbour.ifindex == ifindex);
                Ok(neighbours)
            }
            Err(cause) => {
                let device = self.device(ifindex).await;
                Err(NetlinkError::new(format!("list neighbours of link {device}"), cause))
            }
        }
    }

    /// Makes the kernel ask for a neighbour by ARP or a neighbour solicitation, now: at its known MAC address
    /// (unicast), or by broadcast or multicast where none is known. The answer shows in the table and on the
    /// monitor.
    ///
    /// Solicitations come from the link's link-local address: without one the kernel does not ask, and the entry
    /// fails.
    ///
    /// Not to be used on permanent entries: probing takes their permanence away. With no MAC address
    /// given, an entry that is still valid is left to the kernel's own timers, 5 s by default.
    pub async fn probe_neighbour(
        &self,
        ifindex: u32,
        ip: IpAddr,
        mac: Option<Mac>,
    ) -> Result<(), NetlinkError> {
        let mut message = request(ifindex, ip, mac);
        match mac {
            Some(_) => message.header.state = NeighbourState::Probe,
            None => message.header.flags = NeighbourFlags::Use,
        }
        self.put_neighbour("probe", message, ifindex, ip).await
    }

    /// Sets a permanent neighbour, whatever was there.
    pub async fn replace_permanent_neighbour(
        &self,
        ifindex: u32,
        ip: IpAddr,
        mac: Mac,
    ) -> Result<(), NetlinkError> {
        let mut message = request(ifindex, ip, Some(mac));
        message.header.state = NeighbourState::Permanent;
        self.put_neighbour("set", message, ifindex, ip).await
    }

    /// Deletes a neighbour. One that is absent, or whose link is gone, counts as deleted.
    pub async fn delete_neighbour(&self, ifindex: u32, ip: IpAddr) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::DelNeighbour(request(ifindex, ip, None));
        match self.requests.change(message, 0).await {
            Err(cause) if cause.is_any(&[Errno::ENOENT, Errno::ENODEV]) => Ok(()),
            result => self.name_neighbour("delete", result, ifindex, ip).await,
        }
    }

    async fn put_neighbour(
        &self,
        verb: &str,
        message: NeighbourMessage,
        ifindex: u32,
        ip: IpAddr,
    ) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::NewNeighbour(message);
        let result = self.requests.change(message, NLM_F_CREATE | NLM_F_REPLACE).await;
        self.name_neighbour(verb, result, ifindex, ip).await
    }

    async fn name_neighbour(
        &self,
        verb: &str,
        result: Result<(), Cause>,
        ifindex: u32,
        ip: IpAddr,
    ) -> Result<(), NetlinkError> {
        match result {
            Ok(()) => Ok(()),
            Err(cause) => {
                let device = self.device(ifindex).await;
                Err(NetlinkError::new(format!("{verb} neighbour {ip} dev {device}"), cause))
            }
        }
    }
}

/// Whether a neighbour message, a `struct ndmsg` and its attributes, is of a permanent one with this MAC address.
fn is_permanent(bytes: &[u8], mac: Mac) -> bool {
    const NDMSG: usize = 12;
    const NUD_PERMANENT: u16 = 0x80;
    const NDA_LLADDR: u16 = 2;
    let state = bytes.get(8..10).map(|state| u16::from_ne_bytes([state[0], state[1]]));
    let mut attributes = NlasIterator::new(bytes.get(NDMSG..).unwrap_or_default()).map_while(Result::ok);
    state == Some(NUD_PERMANENT)
        && attributes.any(|attribute| attribute.kind() == NDA_LLADDR && attribute.value() == mac.0)
}

/// The Ethernet address in a neighbour or FDB message.
pub(super) fn lladdr(message: &NeighbourMessage) -> Option<Mac> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => link::mac(bytes),
        _ => None,
    })
}

fn request(ifindex: u32, ip: IpAddr, mac: Option<Mac>) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = Family::from(ip).message();
    message.header.ifindex = ifindex;
    message.attributes.push(NeighbourAttribute::Destination(ip.into()));
    message.attributes.extend(mac.map(|mac| NeighbourAttribute::LinkLayerAddress(mac.0.to_vec())));
    message
}
