//! IPv4 addresses of links.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressHeaderFlags, AddressMessage},
};
use nix::errno::Errno;

use super::{Netlink, NetlinkError};

impl Netlink {
    /// The IPv4 addresses of a link with their prefix lengths, host bits kept, primary ones first. None
    /// where there is no such link.
    pub async fn ipv4_addresses(&self, ifindex: u32) -> Result<Vec<Ipv4Net>, NetlinkError> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.index = ifindex;
        let found = self.dump(RouteNetlinkMessage::GetAddress(message), |answer| match answer {
            RouteNetlinkMessage::NewAddress(message) if message.header.index == ifindex => address(message),
            _ => None,
        });
        match found.await {
            Ok(mut addresses) => {
                // Stable: among equals the kernel's order stays, which is that of configuration.
                addresses.sort_by_key(|(secondary, _)| *secondary);
                Ok(addresses.into_iter().map(|(_, address)| address).collect())
            }
            Err(cause) if cause.is_any(&[Errno::ENODEV]) => Ok(Vec::new()),
            Err(cause) => {
                let device = self.device(ifindex).await;
                Err(NetlinkError::new(format!("list IPv4 addresses of link {device}"), cause))
            }
        }
    }
}

/// Whether it is secondary, and the address with its prefix length.
fn address(message: &AddressMessage) -> Option<(bool, Ipv4Net)> {
    let ip = own_address(message)?;
    let secondary = message.header.flags.contains(AddressHeaderFlags::Secondary);
    Some((secondary, Ipv4Net::new(ip, message.header.prefix_len).ok()?))
}

/// IFA_LOCAL: on a point-to-point link IFA_ADDRESS is the other end's.
fn own_address(message: &AddressMessage) -> Option<Ipv4Addr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(IpAddr::V4(ip)) => Some(*ip),
        _ => None,
    })
}
