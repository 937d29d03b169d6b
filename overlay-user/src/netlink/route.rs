//! Routes: those of the overlay, in the main table and in tables of its own, and those of the main table
//! that could be in its way.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::{
    RouteNetlinkMessage,
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteScope,
        RouteType,
    },
};
use nix::errno::Errno;

use super::{Family, Netlink, NetlinkError, error::Cause};

/// The main table, which every packet is looked up in.
pub const MAIN_TABLE: u32 = RouteHeader::RT_TABLE_MAIN as u32;

/// The route to a peer's subnet: `PREFIX via GATEWAY dev IFINDEX onlink src SOURCE mtu MTU table TABLE`.
///
/// An IPv6 gateway has to be a global or unique local address, the prefix's network address say: with one of the
/// link-local kind the kernel would tell containers of it in redirects, and IPv6 has no setting against sending them.
///
/// As read from the kernel, what a route lacks is the unspecified address or 0, so that it differs from every wanted
/// one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OverlayRoute {
    /// The table: the main one, or another above 255.
    pub table: u32,
    /// The peer's subnet.
    pub prefix: IpNet,
    /// The address that stands for the peer on the bridge.
    pub gateway: IpAddr,
    /// The bridge.
    pub ifindex: u32,
    /// The bridge's own address, from which the host speaks to the peer's containers.
    pub source: IpAddr,
    /// The inner MTU towards the peer.
    pub mtu: u32,
}

/// A route of the main table, of any protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RouteEntry {
    /// Where to.
    pub prefix: IpNet,
    /// Through which link: the first of a multipath route; none for blackhole and the like.
    pub ifindex: Option<u32>,
    /// Who made it (RTPROT_*): 2 is the kernel (a connected subnet), 3 `ip route`, 4 an administrator.
    pub protocol: u8,
}

impl Netlink {
    /// The unicast routes of all tables that carry `protocol`, through a link. Those of IPv4 come first.
    pub async fn routes(&self, protocol: u8) -> Result<Vec<OverlayRoute>, NetlinkError> {
        let mut routes = Vec::new();
        for family in Family::BOTH {
            let found = self.table(family, RouteHeader::RT_TABLE_UNSPEC, protocol, |message| {
                let unicast = message.header.kind == RouteType::Unicast;
                unicast.then(|| OverlayRoute::from_message(message)).flatten()
            });
            routes.extend(found.await.map_err(|cause| {
                NetlinkError::new(format!("list {family} routes of protocol {protocol}"), cause)
            })?);
        }
        Ok(routes)
    }

    /// The prefixes of the main table's routes, but for the default one, that another protocol than `ours` has made.
    pub async fn foreign_prefixes(&self, family: Family, ours: u8) -> Result<Vec<IpNet>, NetlinkError> {
        let mut message = RouteMessage::default();
        message.header.address_family = family.message();
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        // Ours may be ten thousands, and the kernel cannot leave them out. `struct rtmsg` has the protocol in its sixth byte.
        let worth = |bytes: &[u8]| bytes.get(5).is_some_and(|protocol| *protocol != ours);
        let found = self.dumps.dump(RouteNetlinkMessage::GetRoute(message), worth, |answer| match answer {
            RouteNetlinkMessage::NewRoute(message)
                if message.header.address_family == family.message()
                    && message.header.table == RouteHeader::RT_TABLE_MAIN =>
            {
                RouteEntry::from_message(message).map(|entry| entry.prefix)
            }
            _ => None,
        });
        match found {
            Ok(found) => Ok(found.into_iter().filter(|prefix| prefix.prefix_len() != 0).collect()),
            // A namespace that never had a route has no main table.
            Err(cause) if cause.is_any(&[Errno::ENOENT]) => Ok(Vec::new()),
            Err(cause) => Err(NetlinkError::new(format!("list {family} routes of others"), cause)),
        }
    }

    /// The routes of the main table that overlap `prefix`, whoever made them. The default route, which
    /// overlaps everything, is left out; the default prefix asks for all others of its family.
    pub async fn covering_routes(&self, prefix: IpNet) -> Result<Vec<RouteEntry>, NetlinkError> {
        let overlaps = |entry: &RouteEntry| {
            entry.prefix.prefix_len() != 0
                && (entry.prefix.contains(&prefix.network()) || prefix.contains(&entry.prefix.network()))
        };
        self.table(prefix.into(), RouteHeader::RT_TABLE_MAIN, 0, |message| {
            RouteEntry::from_message(message).filter(overlaps)
        })
        .await
        .map_err(|cause| NetlinkError::new(format!("list routes that overlap {prefix}"), cause))
    }

    /// Sets a route: `ip route replace P via GW dev D onlink src S mtu M proto N table T`.
    ///
    /// Like that command it takes the place of a route to the same prefix with metric 0, whoever made it:
    /// ask [`Self::covering_routes`] first. (IPv6 takes 1024 for metric 0.)
    pub async fn replace_route(&self, route: &OverlayRoute, protocol: u8) -> Result<(), NetlinkError> {
        let mut message = request(route, protocol);
        message.header.kind = RouteType::Unicast;
        message.header.flags = RouteFlags::Onlink;
        message.attributes.push(RouteAttribute::PrefSource(route.source.into()));
        message.attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(route.mtu)]));
        let message = RouteNetlinkMessage::NewRoute(message);
        let result = self.requests.change(message, NLM_F_CREATE | NLM_F_REPLACE).await;
        self.name_route("set", result, route).await
    }

    /// Deletes a route of `protocol`, whatever its source and MTU. One that is absent counts as deleted.
    pub async fn delete_route(&self, route: &OverlayRoute, protocol: u8) -> Result<(), NetlinkError> {
        let mut message = request(route, protocol);
        // RT_SCOPE_NOWHERE matches every scope.
        message.header.scope = RouteScope::NoWhere;
        match self.requests.change(RouteNetlinkMessage::DelRoute(message), 0).await {
            Err(cause) if cause.is_any(&[Errno::ESRCH, Errno::ENODEV]) => Ok(()),
            result => self.name_route("delete", result, route).await,
        }
    }

    /// Dumps a family's table; table 0 and protocol 0 stand for all. Tables above 255 count as table 0.
    pub(super) async fn table<T>(
        &self,
        family: Family,
        table: u8,
        protocol: u8,
        select: impl Fn(&RouteMessage) -> Option<T>,
    ) -> Result<Vec<T>, Cause> {
        let mut message = RouteMessage::default();
        message.header.address_family = family.message();
        message.header.table = table;
        message.header.protocol = protocol.into();
        // A kernel without this family answers with the other's routes.
        let wanted = |message: &RouteMessage| {
            message.header.address_family == family.message()
                && (table == 0 || message.header.table == table)
                && (protocol == 0 || u8::from(message.header.protocol) == protocol)
        };
        let found = self.dump(RouteNetlinkMessage::GetRoute(message), |answer| match answer {
            RouteNetlinkMessage::NewRoute(message) if wanted(message) => select(message),
            _ => None,
        });
        match found.await {
            // A namespace that never had a route has no main table.
            Err(cause) if cause.is_any(&[Errno::ENOENT]) => Ok(Vec::new()),
            result => result,
        }
    }

    async fn name_route(
        &self,
        verb: &str,
        result: Result<(), Cause>,
        route: &OverlayRoute,
    ) -> Result<(), NetlinkError> {
        match result {
            Ok(()) => Ok(()),
            Err(cause) => {
                let device = self.device(route.ifindex).await;
                let table =
                    if route.table == MAIN_TABLE { String::new() } else { format!(" table {}", route.table) };
                Err(NetlinkError::new(format!("{verb} route {} dev {device}{table}", route.prefix), cause))
            }
        }
    }
}

impl OverlayRoute {
    pub(super) fn from_message(message: &RouteMessage) -> Option<Self> {
        let entry = RouteEntry::from_message(message)?;
        let none = Family::from(entry.prefix).unspecified();
        let mut route = Self {
            table: u32::from(message.header.table),
            prefix: entry.prefix,
            gateway: none,
            ifindex: entry.ifindex?,
            source: none,
            mtu: 0,
        };
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Gateway(gateway) => route.gateway = address(gateway).unwrap_or(none),
                RouteAttribute::PrefSource(source) => route.source = address(source).unwrap_or(none),
                RouteAttribute::Metrics(metrics) => route.mtu = mtu(metrics),
                // The header's field has eight bits only.
                RouteAttribute::Table(table) => route.table = *table,
                _ => {}
            }
        }
        Some(route)
    }
}

impl RouteEntry {
    pub(super) fn from_message(message: &RouteMessage) -> Option<Self> {
        let mut network = Family::of_message(message.header.address_family)?.unspecified();
        let mut ifindex = None;
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(destination) => network = address(destination)?,
                RouteAttribute::Oif(index) => ifindex = Some(*index),
                RouteAttribute::MultiPath(hops) => ifindex = hops.first().map(|hop| hop.interface_index),
                _ => {}
            }
        }
        let prefix = IpNet::new(network, message.header.destination_prefix_length).ok()?;
        Some(Self { prefix, ifindex, protocol: message.header.protocol.into() })
    }
}

/// None for what is no IP address.
pub(super) fn address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}

fn mtu(metrics: &[RouteMetric]) -> u32 {
    metrics
        .iter()
        .find_map(|metric| match metric {
            RouteMetric::Mtu(mtu) => Some(*mtu),
            _ => None,
        })
        .unwrap_or(0)
}

/// What identifies a route, for setting and deleting alike. An unspecified gateway stands for none.
fn request(route: &OverlayRoute, protocol: u8) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = Family::from(route.prefix).message();
    message.header.protocol = protocol.into();
    message.header.destination_prefix_length = route.prefix.prefix_len();
    message.attributes.push(RouteAttribute::Destination(route.prefix.network().into()));
    message.attributes.push(RouteAttribute::Table(route.table));
    message.attributes.push(RouteAttribute::Oif(route.ifindex));
    if !route.gateway.is_unspecified() {
        message.attributes.push(RouteAttribute::Gateway(route.gateway.into()));
    }
    message
}
