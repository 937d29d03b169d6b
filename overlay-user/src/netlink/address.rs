//! Addresses of links.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage},
};
use nix::errno::Errno;

use super::{Family, Netlink, NetlinkError, error::Cause};

impl Netlink {
    /// The addresses of a link with their prefix lengths, host bits kept; none where there is no such link.
    ///
    /// IPv4 ones come first, primary before secondary, then IPv6 ones, each in the kernel's order: of IPv4 the
    /// oldest first, of IPv6 the wider scope and then the newest. IPv6 addresses that are not to be built on are
    /// left out: tentative and duplicate ones, which the host does not have (yet), deprecated and temporary ones,
    /// which it is about to lose. Link-local ones are among the others.
    pub async fn addresses(&self, ifindex: u32) -> Result<Vec<IpNet>, NetlinkError> {
        let mut message = AddressMessage::default();
        message.header.index = ifindex;
        match self.all_addresses(message).await {
            Ok(mut all) => {
                all.retain(|address| address.ifindex == ifindex && address.lasts());
                // Stable: among equals the kernel's order stays.
                all.sort_by_key(|address| (Family::from(address.net), address.is_secondary()));
                Ok(all.into_iter().map(|address| address.net).collect())
            }
            Err(cause) if cause.is_any(&[Errno::ENODEV]) => Ok(Vec::new()),
            Err(cause) => {
                let device = self.device(ifindex).await;
                Err(NetlinkError::new(format!("list addresses of link {device}"), cause))
            }
        }
    }

    /// The IPv4 ones of [`Self::addresses`].
    pub async fn ipv4_addresses(&self, ifindex: u32) -> Result<Vec<Ipv4Net>, NetlinkError> {
        let v4 = |net| match net {
            IpNet::V4(net) => Some(net),
            IpNet::V6(_) => None,
        };
        Ok(self.addresses(ifindex).await?.into_iter().filter_map(v4).collect())
    }

    /// The link that has `ip`, whichever that is, `lo` included; `None` where it is no address of this host's.
    ///
    /// Tentative and duplicate addresses are nobody's; deprecated and temporary ones are the host's as long as they
    /// last. Local routes (`ip route add local …`), 127.0.0.0/8 by itself among them, are not looked at.
    pub async fn link_with_address(&self, ip: IpAddr) -> Result<Option<u32>, NetlinkError> {
        let mut message = AddressMessage::default();
        message.header.family = Family::from(ip).message();
        let all = self.all_addresses(message).await;
        let all = all.map_err(|cause| NetlinkError::new(format!("look for the link with {ip}"), cause))?;
        let holder = all.iter().find(|address| address.net.addr() == ip && address.is_settled());
        Ok(holder.map(|address| address.ifindex))
    }

    async fn all_addresses(&self, request: AddressMessage) -> Result<Vec<Address>, Cause> {
        self.dump(RouteNetlinkMessage::GetAddress(request), |answer| match answer {
            RouteNetlinkMessage::NewAddress(message) => Address::from_message(message),
            _ => None,
        })
        .await
    }
}

/// An address of a link.
struct Address {
    ifindex: u32,
    net: IpNet,
    flags: AddressFlags,
}

impl Address {
    fn from_message(message: &AddressMessage) -> Option<Self> {
        let net = IpNet::new(own_address(message)?, message.header.prefix_len).ok()?;
        let flags = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Flags(flags) => Some(*flags),
            _ => None,
        });
        let flags =
            flags.unwrap_or_else(|| AddressFlags::from_bits_retain(message.header.flags.bits().into()));
        Some(Self { ifindex: message.header.index, net, flags })
    }

    /// The host has it: duplicate address detection is over, and found nobody else.
    fn is_settled(&self) -> bool {
        !self.flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed)
    }

    /// IFA_F_SECONDARY and IFA_F_TEMPORARY are one flag, of IPv4 and of IPv6.
    fn is_secondary(&self) -> bool {
        self.flags.contains(AddressFlags::Secondary)
    }

    fn lasts(&self) -> bool {
        let passing = self.is_secondary() || self.flags.contains(AddressFlags::Deprecated);
        self.is_settled() && (self.net.addr().is_ipv4() || !passing)
    }
}

/// IFA_LOCAL where there is one: on a point-to-point link IFA_ADDRESS is the other end's. IPv6 has IFA_LOCAL on
/// such links only.
pub(super) fn own_address(message: &AddressMessage) -> Option<IpAddr> {
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    });
    let address = || {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(ip) => Some(*ip),
            _ => None,
        })
    };
    match message.header.family {
        AddressFamily::Inet => local,
        AddressFamily::Inet6 => local.or_else(address),
        _ => None,
    }
}
