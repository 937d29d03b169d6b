//! VXLAN and Geneve devices: which there are, and ours.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{
        AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoGeneve, InfoKind, InfoVxlan, LinkAttribute,
        LinkFlags, LinkInfo, LinkMessage,
    },
};
use nix::errno::Errno;
use overlay_common::{Encap, Mac};

use super::{Link, Netlink, NetlinkError, link};

/// A VXLAN or Geneve device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpTunnel {
    /// Which of the two.
    pub encap: Encap,
    /// What it has in common with all links.
    pub link: Link,
    /// IFLA_IFALIAS: a text that anybody may give a link.
    pub alias: Option<String>,
    /// Takes part in neighbour discovery (IFF_NOARP is clear).
    pub arp: bool,
    /// The longest IPv4 aggregate that is handed to it whole, its Ethernet header included.
    pub gso_max_size: u32,
    /// The UDP port it sends to, and, while it is up, listens on.
    pub port: u16,
    /// Its VNI; 0 where it is external.
    pub vni: u32,
    /// The outer headers come with each packet (collect metadata).
    pub external: bool,
    /// Takes only the VNIs that were added to it, as VXLAN devices can.
    pub vni_filter: bool,
    /// Fills its FDB from what it receives, as VXLAN devices can.
    pub learning: bool,
    /// Takes packets over IPv6 whose UDP checksum is zero (RFC 6935).
    pub udp6_zero_checksum: bool,
}

/// What one of our tunnel devices is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelSettings {
    /// VXLAN or Geneve.
    pub encap: Encap,
    /// Its name.
    pub name: String,
    /// Its IFLA_IFALIAS.
    pub alias: &'static str,
    /// Its MAC address.
    pub mac: Mac,
    /// Its UDP port.
    pub port: u16,
    /// Its MTU.
    pub mtu: u32,
    /// The longest aggregate that is handed to it whole.
    pub gso_max_size: u32,
    /// The outer source ports of what it sends.
    pub source_ports: (u16, u16),
}

impl Netlink {
    /// The VXLAN and Geneve devices of the namespace.
    pub async fn udp_tunnels(&self) -> Result<Vec<UdpTunnel>, NetlinkError> {
        let mut found = self.udp_tunnels_of(InfoKind::Vxlan, Encap::Vxlan).await?;
        found.extend(self.udp_tunnels_of(InfoKind::Geneve, Encap::Geneve).await?);
        Ok(found)
    }

    async fn udp_tunnels_of(&self, kind: InfoKind, encap: Encap) -> Result<Vec<UdpTunnel>, NetlinkError> {
        let mut request = link::request();
        request.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]));
        self.dump(RouteNetlinkMessage::GetLink(request), |answer| match answer {
            RouteNetlinkMessage::NewLink(message) => UdpTunnel::from_message(message, encap),
            _ => None,
        })
        .await
        .map_err(|cause| NetlinkError::new(format!("list {encap} devices"), cause))
    }

    /// Creates an external device, down; one of VXLAN with a VNI filter, and taking no VNI. Fails with EEXIST where
    /// the name is taken.
    pub async fn create_tunnel(&self, settings: &TunnelSettings) -> Result<(), NetlinkError> {
        let mut message = changes(settings);
        message.attributes.push(LinkAttribute::IfName(settings.name.clone()));
        // Zero checksums over IPv6 are other overlayds': their programs cannot compute the checksum of an aggregate.
        let info = match settings.encap {
            Encap::Geneve => vec![
                LinkInfo::Kind(InfoKind::Geneve),
                LinkInfo::Data(InfoData::Geneve(vec![
                    InfoGeneve::CollectMetadata,
                    InfoGeneve::UdpZeroCsum6Rx(true),
                    InfoGeneve::Port(settings.port),
                ])),
            ],
            _ => vec![
                LinkInfo::Kind(InfoKind::Vxlan),
                LinkInfo::Data(InfoData::Vxlan(vec![
                    InfoVxlan::Id(0),
                    InfoVxlan::CollectMetadata(true),
                    InfoVxlan::Vnifilter(true),
                    InfoVxlan::Learning(false),
                    InfoVxlan::UDPZeroCsumRX(true),
                    InfoVxlan::Port(settings.port),
                    InfoVxlan::PortRange(settings.source_ports),
                ])),
            ],
        };
        message.attributes.push(LinkAttribute::LinkInfo(info));
        let message = RouteNetlinkMessage::NewLink(message);
        self.requests.change(message, NLM_F_CREATE | NLM_F_EXCL).await.map_err(|cause| {
            NetlinkError::new(format!("create {} device {}", settings.encap, settings.name), cause)
        })
    }

    /// Sets what of a tunnel device can be set at any time: alias, MAC address, MTU, aggregates, no ARP.
    pub async fn set_tunnel(&self, index: u32, settings: &TunnelSettings) -> Result<(), NetlinkError> {
        let mut message = changes(settings);
        message.header.index = index;
        message.attributes.push(LinkAttribute::IfAlias(settings.alias.to_owned()));
        self.set_link(message, &format!("set up {}", settings.name)).await
    }

    /// Keeps the kernel from giving a link IPv6 addresses of its own making. No matter to a kernel without IPv6.
    pub async fn no_ipv6_addresses(&self, index: u32, name: &str) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        message.attributes.push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])]));
        match self.set_link(message, &format!("set up {name}")).await {
            Err(error) if error.errno() == Some(Errno::EAFNOSUPPORT) => Ok(()),
            result => result,
        }
    }

    /// Sets a link up or down.
    pub async fn set_link_up(&self, index: u32, name: &str, up: bool) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags.set(LinkFlags::Up, up);
        message.header.change_mask = LinkFlags::Up;
        let state = if up { "up" } else { "down" };
        self.set_link(message, &format!("set {name} {state}")).await
    }

    /// Deletes a link. One that is absent counts as deleted.
    pub async fn delete_link(&self, index: u32, name: &str) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        match self.requests.change(RouteNetlinkMessage::DelLink(message), 0).await {
            Err(cause) if cause.is_any(&[Errno::ENODEV]) => Ok(()),
            result => result.map_err(|cause| NetlinkError::new(format!("delete link {name}"), cause)),
        }
    }

    async fn set_link(&self, message: LinkMessage, what: &str) -> Result<(), NetlinkError> {
        let result = self.requests.change(RouteNetlinkMessage::SetLink(message), 0).await;
        result.map_err(|cause| NetlinkError::new(what, cause))
    }
}

/// The attributes that the kernel takes at creation and later alike.
fn changes(settings: &TunnelSettings) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.flags = LinkFlags::Noarp;
    message.header.change_mask = LinkFlags::Noarp;
    message.attributes.extend([
        LinkAttribute::Address(settings.mac.0.to_vec()),
        LinkAttribute::Mtu(settings.mtu),
        LinkAttribute::GsoMaxSize(settings.gso_max_size),
        LinkAttribute::GsoIpv4MaxSize(settings.gso_max_size),
    ]);
    message
}

impl UdpTunnel {
    fn from_message(message: &LinkMessage, encap: Encap) -> Option<Self> {
        let mut tunnel = Self {
            encap,
            link: Link::from_message(message)?,
            alias: None,
            arp: !message.header.flags.contains(LinkFlags::Noarp),
            gso_max_size: 0,
            port: 0,
            vni: 0,
            external: false,
            vni_filter: false,
            learning: false,
            udp6_zero_checksum: false,
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfAlias(alias) => tunnel.alias = Some(alias.clone()),
                LinkAttribute::GsoIpv4MaxSize(size) => tunnel.gso_max_size = *size,
                LinkAttribute::LinkInfo(infos) => infos.iter().for_each(|info| tunnel.read(info)),
                _ => {}
            }
        }
        // A kernel that does not filter by kind tells of all links.
        (tunnel.link.kind.as_deref() == Some(encap.name())).then_some(tunnel)
    }

    fn read(&mut self, info: &LinkInfo) {
        match info {
            LinkInfo::Data(InfoData::Vxlan(data)) => self.read_vxlan(data),
            LinkInfo::Data(InfoData::Geneve(data)) => self.read_geneve(data),
            _ => {}
        }
    }

    fn read_geneve(&mut self, data: &[InfoGeneve]) {
        for info in data {
            match info {
                InfoGeneve::Id(vni) => self.vni = *vni,
                InfoGeneve::Port(port) => self.port = *port,
                InfoGeneve::CollectMetadata => self.external = true,
                InfoGeneve::UdpZeroCsum6Rx(taken) => self.udp6_zero_checksum = *taken,
                _ => {}
            }
        }
    }

    fn read_vxlan(&mut self, data: &[InfoVxlan]) {
        for info in data {
            match info {
                InfoVxlan::Id(vni) => self.vni = *vni,
                InfoVxlan::Port(port) => self.port = *port,
                InfoVxlan::CollectMetadata(external) => self.external = *external,
                InfoVxlan::Vnifilter(filter) => self.vni_filter = *filter,
                InfoVxlan::Learning(learning) => self.learning = *learning,
                InfoVxlan::UDPZeroCsumRX(taken) => self.udp6_zero_checksum = *taken,
                _ => {}
            }
        }
    }
}
