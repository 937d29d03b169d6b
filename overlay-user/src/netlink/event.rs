//! What the monitor reports, and how the kernel's notifications become that.

use std::{collections::HashMap, net::IpAddr};

use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage},
    route::{RouteAttribute, RouteMessage},
};

use super::{FdbEntry, Link, Neighbour, OverlayRoute, RouteEntry, address::own_address};

/// Something changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A link appeared or changed in any way: state, name, MTU, master, its peer's namespace.
    Link(Link),
    /// A link is gone: deleted, or moved to another namespace.
    LinkGone {
        /// Its index, which may be given to another link later.
        index: u32,
        /// Its last name.
        name: String,
        /// The bridge whose port it was until it was deleted.
        was_port_of: Option<u32>,
    },
    /// A neighbour appeared or changed state or address.
    Neighbour(Neighbour),
    /// A neighbour was removed from the table.
    NeighbourGone(Neighbour),
    /// A bridge learned an address, or saw it move to another port.
    Fdb(FdbEntry),
    /// A bridge forgot an address.
    FdbGone(FdbEntry),
    /// An address of a link came, went or changed: an IPv6 one also where it stops being tentative or becomes
    /// deprecated.
    Address {
        /// The link.
        ifindex: u32,
        /// The address.
        ip: IpAddr,
    },
    /// A route changed.
    Route(RouteChange),
    /// A rule or a nexthop object changed, and with it any number of routes' meaning.
    Routing,
    /// Events were lost: dump everything again.
    Overrun,
}

/// A route that appeared, changed or went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteChange {
    /// What it is now, or was.
    pub entry: RouteEntry,
    /// The table that it is in.
    pub table: u32,
    /// As one of the overlay's; none for what leads through no link.
    pub route: Option<OverlayRoute>,
    /// It went.
    pub gone: bool,
}

impl RouteChange {
    /// None for what cannot be told apart.
    fn of(message: &RouteMessage, gone: bool) -> Option<Self> {
        let table = message.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Table(table) => Some(*table),
            _ => None,
        });
        Some(Self {
            entry: RouteEntry::from_message(message)?,
            table: table.unwrap_or(message.header.table.into()),
            route: OverlayRoute::from_message(message),
            gone,
        })
    }
}

/// Turns notifications into events.
#[derive(Debug, Default)]
pub(super) struct Translator {
    /// Ports that left their bridge, and which, until it is known whether they live on. A deleted port's
    /// RTM_DELLINK no longer names its bridge; the bridge's own message, which comes first, does.
    departed: HashMap<u32, u32>,
}

impl Translator {
    /// None for what nobody here needs to know.
    pub(super) fn translate(&mut self, message: RouteNetlinkMessage) -> Option<Event> {
        match message {
            RouteNetlinkMessage::NewLink(link) => self.new_link(&link),
            RouteNetlinkMessage::DelLink(link) => self.del_link(&link),
            RouteNetlinkMessage::NewNeighbour(entry) => Neighbour::from_message(&entry)
                .map(Event::Neighbour)
                .or_else(|| FdbEntry::from_message(&entry).map(Event::Fdb)),
            RouteNetlinkMessage::DelNeighbour(entry) => Neighbour::from_message(&entry)
                .map(Event::NeighbourGone)
                .or_else(|| FdbEntry::from_message(&entry).map(Event::FdbGone)),
            RouteNetlinkMessage::NewAddress(address) | RouteNetlinkMessage::DelAddress(address) => {
                own_address(&address).map(|ip| Event::Address { ifindex: address.header.index, ip })
            }
            RouteNetlinkMessage::NewRoute(route) => {
                Some(RouteChange::of(&route, false).map_or(Event::Routing, Event::Route))
            }
            RouteNetlinkMessage::DelRoute(route) => {
                Some(RouteChange::of(&route, true).map_or(Event::Routing, Event::Route))
            }
            RouteNetlinkMessage::NewRule(_) | RouteNetlinkMessage::DelRule(_) => Some(Event::Routing),
            _ => None,
        }
    }

    /// A bridge reports its ports' states in messages of its own (AF_BRIDGE), which lack the link's kind.
    /// Whatever matters here, the master above all, the link's own message says as well.
    fn new_link(&mut self, message: &LinkMessage) -> Option<Event> {
        if message.header.interface_family != AddressFamily::Unspec {
            return None;
        }
        self.departed.remove(&message.header.index);
        Link::from_message(message).map(Event::Link)
    }

    /// In a bridge's message RTM_DELLINK means that a port left. If the link lives on, its own RTM_NEWLINK
    /// without master follows; if it does not, its own RTM_DELLINK.
    fn del_link(&mut self, message: &LinkMessage) -> Option<Event> {
        let index = message.header.index;
        match message.header.interface_family {
            AddressFamily::Unspec => Some(Event::LinkGone {
                index,
                name: name(message),
                was_port_of: master(message).or(self.departed.remove(&index)),
            }),
            AddressFamily::Bridge => {
                self.departed.extend(master(message).map(|master| (index, master)));
                None
            }
            _ => None,
        }
    }
}

fn master(message: &LinkMessage) -> Option<u32> {
    message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Controller(master) => Some(*master),
        _ => None,
    })
}

fn name(message: &LinkMessage) -> String {
    let name = message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    });
    name.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourMessage};

    use super::*;

    fn port(family: AddressFamily, master: Option<u32>) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.interface_family = family;
        message.header.index = 7;
        message.attributes.push(LinkAttribute::IfName("veth7".to_owned()));
        message.attributes.extend(master.map(LinkAttribute::Controller));
        message
    }

    fn gone(was_port_of: Option<u32>) -> Option<Event> {
        Some(Event::LinkGone { index: 7, name: "veth7".to_owned(), was_port_of })
    }

    #[test]
    fn a_deleted_port_is_gone_once_and_names_its_bridge() {
        let mut translator = Translator::default();
        let left = port(AddressFamily::Bridge, Some(3));
        assert_eq!(translator.translate(RouteNetlinkMessage::DelLink(left)), None);
        let deleted = RouteNetlinkMessage::DelLink(port(AddressFamily::Unspec, None));
        assert_eq!(translator.translate(deleted.clone()), gone(Some(3)));
        assert_eq!(translator.translate(deleted), gone(None));
    }

    #[test]
    fn a_port_that_lives_on_is_a_port_no_more() {
        let mut translator = Translator::default();
        let left = port(AddressFamily::Bridge, Some(3));
        assert_eq!(translator.translate(RouteNetlinkMessage::DelLink(left)), None);
        let freed = RouteNetlinkMessage::NewLink(port(AddressFamily::Unspec, None));
        assert!(
            matches!(translator.translate(freed), Some(Event::Link(link)) if link.index == 7 && link.master.is_none())
        );
        let deleted = RouteNetlinkMessage::DelLink(port(AddressFamily::Unspec, None));
        assert_eq!(translator.translate(deleted), gone(None));
    }

    #[test]
    fn a_bridges_own_port_states_are_not_reported() {
        let state = RouteNetlinkMessage::NewLink(port(AddressFamily::Bridge, Some(3)));
        assert_eq!(Translator::default().translate(state), None);
    }

    #[test]
    fn a_devices_own_fdb_is_not_a_bridges() {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, 1]));
        let own = RouteNetlinkMessage::NewNeighbour(message.clone());
        assert_eq!(Translator::default().translate(own), None);
        message.attributes.push(NeighbourAttribute::Controller(3));
        let bridged = RouteNetlinkMessage::NewNeighbour(message);
        assert!(
            matches!(Translator::default().translate(bridged), Some(Event::Fdb(entry)) if entry.bridge == 3)
        );
    }
}
