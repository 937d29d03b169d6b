//! Links: names, kinds, masters.

use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkLayerType, LinkMessage},
};
use nix::errno::Errno;
use overlay_common::Mac;

use super::{Netlink, NetlinkError, error::Cause};

/// IFNAMSIZ, less the terminating zero: no link has a longer name.
const NAME_LEN_MAX: usize = 15;

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index, unique in its namespace.
    pub index: u32,
    /// Its name, which can change.
    pub name: String,
    /// The kind of a virtual device (`bridge`, `veth`, `vlan`, `bond`, `vxlan`, `wireguard`, `tun` for a tap too …);
    /// physical ones have none.
    pub kind: Option<String>,
    /// Its packets have an Ethernet header (ARPHRD_ETHER). Those of a WireGuard or tun device begin with the IP
    /// header.
    pub ethernet: bool,
    /// Its Ethernet address, where it has one.
    pub mac: Option<Mac>,
    /// Its MTU.
    pub mtu: u32,
    /// Administratively up (IFF_UP); says nothing about the carrier.
    pub up: bool,
    /// The bridge (or bond, or VRF) it is a port of.
    pub master: Option<u32>,
    /// A veth whose peer is in another network namespace (IFLA_LINK_NETNSID).
    pub peer_elsewhere: bool,
}

impl Link {
    /// None for messages that carry no name: wireless events use the same type for something else.
    pub(super) fn from_message(message: &LinkMessage) -> Option<Self> {
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            kind: None,
            ethernet: message.header.link_layer_type == LinkLayerType::Ether,
            mac: None,
            mtu: 0,
            up: message.header.flags.contains(LinkFlags::Up),
            master: None,
            peer_elsewhere: false,
        };
        let mut other_namespace = false;
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Address(bytes) => link.mac = mac(bytes),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Controller(master) => link.master = Some(*master),
                LinkAttribute::LinkNetNsId(_) => other_namespace = true,
                LinkAttribute::LinkInfo(infos) => link.kind = kind(infos),
                _ => {}
            }
        }
        link.peer_elsewhere = other_namespace && link.kind.as_deref() == Some("veth");
        (!link.name.is_empty()).then_some(link)
    }
}

impl Netlink {
    /// All links of the namespace.
    pub async fn links(&self) -> Result<Vec<Link>, NetlinkError> {
        self.dump(RouteNetlinkMessage::GetLink(request()), link)
            .await
            .map_err(|cause| NetlinkError::new("list links", cause))
    }

    /// The link of that name.
    pub async fn link_by_name(&self, name: &str) -> Result<Option<Link>, NetlinkError> {
        if name.is_empty() || name.len() > NAME_LEN_MAX {
            return Ok(None);
        }
        let mut message = request();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.one_link(message).await.map_err(|cause| NetlinkError::new(format!("look up link {name}"), cause))
    }

    /// The link of that index.
    pub async fn link_by_index(&self, index: u32) -> Result<Option<Link>, NetlinkError> {
        if index == 0 {
            return Ok(None);
        }
        let mut message = request();
        message.header.index = index;
        self.one_link(message)
            .await
            .map_err(|cause| NetlinkError::new(format!("look up the link with index {index}"), cause))
    }

    async fn one_link(&self, message: LinkMessage) -> Result<Option<Link>, Cause> {
        match self.requests.get(RouteNetlinkMessage::GetLink(message)).await {
            Ok(message) => link(&message).map(Some).ok_or(Cause::Unexpected),
            Err(cause) if cause.is_any(&[Errno::ENODEV]) => Ok(None),
            Err(cause) => Err(cause),
        }
    }
}

/// Six bytes are an Ethernet address; tunnels and loopback have others, or all zeroes.
pub(super) fn mac(bytes: &[u8]) -> Option<Mac> {
    bytes.try_into().ok().map(Mac).filter(|mac| *mac != Mac::default())
}

/// A link request; the statistics, two thirds of the answer, are left out.
pub(super) fn request() -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    message
}

fn link(message: &RouteNetlinkMessage) -> Option<Link> {
    match message {
        RouteNetlinkMessage::NewLink(message) => Link::from_message(message),
        _ => None,
    }
}

fn kind(infos: &[LinkInfo]) -> Option<String> {
    infos.iter().find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    })
}
