//! Where the kernel would send a packet.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::{
    RouteNetlinkMessage,
    route::{RouteAttribute, RouteFlags, RouteMessage, RouteNextHop, RouteNextHopFlags, RouteType, RouteVia},
};

use super::{Family, Netlink, NetlinkError, error::Cause, route::address};

/// One way to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NextHop {
    /// The link it leaves by.
    pub ifindex: u32,
    /// The router it goes to; none where the address is on the link itself. A router of an IPv4 route may have an
    /// IPv6 address (RFC 8950).
    pub gateway: Option<IpAddr>,
    /// Its share of the route's flows, compared with the other hops': 1 to 256.
    pub weight: u32,
    /// The address this host would speak from. [`Netlink::next_hops`] knows it only where the route names it.
    pub source: Option<IpAddr>,
    /// The address is one of this host's own.
    pub local: bool,
}

impl Netlink {
    /// Asks the routing tables for the way to `dst`, out of link `oif` where one is given: of several hops the one
    /// that the kernel picks for packets without ports.
    pub async fn next_hop(&self, dst: IpAddr, oif: Option<u32>) -> Result<NextHop, NetlinkError> {
        let message = request(dst, oif, RouteFlags::empty());
        let answer = self.requests.get(RouteNetlinkMessage::GetRoute(message)).await;
        let hop = answer.and_then(|answer| match answer {
            RouteNetlinkMessage::NewRoute(route) => one_hop(&route).ok_or(Cause::Unexpected),
            _ => Err(Cause::Unexpected),
        });
        match hop {
            Ok(hop) => Ok(hop),
            Err(cause) => {
                let through = match oif {
                    Some(ifindex) => format!(" dev {}", self.device(ifindex).await),
                    None => String::new(),
                };
                Err(NetlinkError::new(format!("find the route to {dst}{through}"), cause))
            }
        }
    }

    /// Every hop of the route that the kernel has for `dst` (`ip route get fibmatch`), in the order of their links:
    /// the kernel's own, of IPv6 routes, is another each time. Hops that are dead, or whose link has no carrier, are
    /// left out: where all are, the answer is empty.
    pub async fn next_hops(&self, dst: IpAddr) -> Result<Vec<NextHop>, NetlinkError> {
        let hops = self.hops(dst).await;
        let mut hops = hops.map_err(|cause| NetlinkError::new(format!("find the route to {dst}"), cause))?;
        hops.sort_by_key(|hop| (hop.ifindex, hop.gateway));
        Ok(hops)
    }

    async fn hops(&self, dst: IpAddr) -> Result<Vec<NextHop>, Cause> {
        let message = request(dst, None, RouteFlags::FibMatch);
        let answer = self.requests.get(RouteNetlinkMessage::GetRoute(message)).await?;
        let RouteNetlinkMessage::NewRoute(mut route) = answer else { return Err(Cause::Unexpected) };
        if dst.is_ipv6() && object(&route).is_some() {
            route = self.route_with_object(dst, &route).await?.unwrap_or(route);
        }
        let Some(id) = object(&route) else { return hops(&route).ok_or(Cause::Unexpected) };
        let source = source(&route.attributes);
        let hop = |(ifindex, gateway, weight)| NextHop { ifindex, gateway, weight, source, local: false };
        Ok(self.object_hops(id).await?.into_iter().map(hop).collect())
    }

    /// The IPv6 route to `dst` in the table of `told`, which may be another: routes that name the same nexthop object
    /// share its cached entries, and for them the kernel (6.18) tells of the route that was looked up first.
    async fn route_with_object(
        &self,
        dst: IpAddr,
        told: &RouteMessage,
    ) -> Result<Option<RouteMessage>, Cause> {
        let table = table(told);
        let small = u8::try_from(table).unwrap_or(0);
        let covers = |route: &RouteMessage| {
            let covers = prefix(route).is_some_and(|prefix| prefix.contains(&dst));
            (covers && self::table(route) == table).then(|| route.clone())
        };
        let routes = self.table(Family::V6, small, 0, covers).await?;
        Ok(routes.into_iter().max_by_key(|route| {
            (route.header.destination_prefix_length, std::cmp::Reverse(metric(&route.attributes)))
        }))
    }
}

fn prefix(route: &RouteMessage) -> Option<IpNet> {
    let destination = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(destination) => address(destination),
        _ => None,
    });
    let default = Family::of_message(route.header.address_family)?.unspecified();
    IpNet::new(destination.unwrap_or(default), route.header.destination_prefix_length).ok()
}

fn table(route: &RouteMessage) -> u32 {
    let table = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    table.unwrap_or_else(|| route.header.table.into())
}

fn metric(attributes: &[RouteAttribute]) -> u32 {
    let metric = attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Priority(metric) => Some(*metric),
        _ => None,
    });
    metric.unwrap_or(0)
}

fn object(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::NhId(id) => Some(*id),
        _ => None,
    })
}

fn request(dst: IpAddr, oif: Option<u32>, flags: RouteFlags) -> RouteMessage {
    let family = Family::from(dst);
    let mut message = RouteMessage::default();
    message.header.address_family = family.message();
    message.header.destination_prefix_length = family.bits();
    message.header.flags = flags;
    message.attributes.push(RouteAttribute::Destination(dst.into()));
    message.attributes.extend(oif.map(RouteAttribute::Oif));
    message
}

/// All hops of a route; None where there is no saying where it leads.
fn hops(route: &RouteMessage) -> Option<Vec<NextHop>> {
    let multipath = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::MultiPath(hops) => Some(hops),
        _ => None,
    });
    let Some(multipath) = multipath else {
        let gone = route.header.flags.intersects(RouteFlags::Dead | RouteFlags::Linkdown);
        let hop = one_hop(route)?;
        return Some(if gone { Vec::new() } else { vec![hop] });
    };
    let (local, source) = (route.header.kind == RouteType::Local, source(&route.attributes));
    let living =
        |hop: &&RouteNextHop| !hop.flags.intersects(RouteNextHopFlags::Dead | RouteNextHopFlags::Linkdown);
    let hop = |hop: &RouteNextHop| NextHop {
        ifindex: hop.interface_index,
        gateway: gateway(&hop.attributes),
        weight: u32::from(hop.hops) + 1,
        source,
        local,
    };
    Some(multipath.iter().filter(living).map(hop).collect())
}

fn one_hop(route: &RouteMessage) -> Option<NextHop> {
    let ifindex = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })?;
    let (gateway, source) = (gateway(&route.attributes), source(&route.attributes));
    Some(NextHop { ifindex, gateway, weight: 1, source, local: route.header.kind == RouteType::Local })
}

fn gateway(attributes: &[RouteAttribute]) -> Option<IpAddr> {
    attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(gateway) => address(gateway),
        RouteAttribute::Via(RouteVia::Inet(ip)) => Some(IpAddr::V4(*ip)),
        RouteAttribute::Via(RouteVia::Inet6(ip)) => Some(IpAddr::V6(*ip)),
        _ => None,
    })
}

fn source(attributes: &[RouteAttribute]) -> Option<IpAddr> {
    attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::PrefSource(source) => address(source),
        _ => None,
    })
}
