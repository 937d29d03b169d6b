//! Where the kernel would send a packet.

use std::net::Ipv4Addr;

use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
};

use super::{Netlink, NetlinkError, error::Cause};

/// The kernel's answer to "which way to this address?" (`ip route get`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// The link it leaves by.
    pub ifindex: u32,
    /// The router it goes to; none where the address is on the link itself.
    pub gateway: Option<Ipv4Addr>,
    /// The address this host would speak from.
    pub source: Option<Ipv4Addr>,
    /// The address is one of this host's own.
    pub local: bool,
}

impl Netlink {
    /// Asks the routing tables for the way to `dst`, out of link `oif` where one is given.
    pub async fn next_hop(&self, dst: Ipv4Addr, oif: Option<u32>) -> Result<NextHop, NetlinkError> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.destination_prefix_length = 32;
        message.attributes.push(RouteAttribute::Destination(RouteAddress::Inet(dst)));
        message.attributes.extend(oif.map(RouteAttribute::Oif));
        let answer = self.requests.get(RouteNetlinkMessage::GetRoute(message)).await;
        match answer.and_then(|answer| next_hop(&answer).ok_or(Cause::Unexpected)) {
            Ok(next_hop) => Ok(next_hop),
            Err(cause) => {
                let through = match oif {
                    Some(ifindex) => format!(" dev {}", self.device(ifindex).await),
                    None => String::new(),
                };
                Err(NetlinkError::new(format!("find the route to {dst}{through}"), cause))
            }
        }
    }
}

fn next_hop(answer: &RouteNetlinkMessage) -> Option<NextHop> {
    let RouteNetlinkMessage::NewRoute(message) = answer else { return None };
    let (mut ifindex, mut gateway, mut source) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => ifindex = Some(*index),
            RouteAttribute::Gateway(RouteAddress::Inet(ip)) => gateway = Some(*ip),
            RouteAttribute::PrefSource(RouteAddress::Inet(ip)) => source = Some(*ip),
            _ => {}
        }
    }
    let local = message.header.kind == RouteType::Local;
    Some(NextHop { ifindex: ifindex?, gateway, source, local })
}
