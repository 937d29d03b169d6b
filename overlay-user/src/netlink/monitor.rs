//! The kernel's notifications, as they come. The socket is read here and not by a connection task: the
//! queue then is the kernel's, bounded, and its overrun is seen where it has to be acted on.

use std::{collections::VecDeque, io};

use netlink_packet_core::{NetlinkBuffer, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use nix::{
    errno::Errno,
    sys::socket::{setsockopt, sockopt},
};
use rtnetlink::{
    MulticastGroup,
    sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE},
};

use super::{
    event::{Event, Translator},
    nexthop_object::{RTM_DELNEXTHOP, RTM_NEWNEXTHOP},
};

/// Some thousand notifications; the system's default holds about a hundred.
const RECEIVE_BUFFER: usize = 4 << 20;
/// The most that is thrown away at once after an overrun, so that a flood cannot hold the thread.
const DRAIN_MAX: usize = 100_000;

/// Tells what changes in the namespace.
pub struct Monitor {
    socket: TokioSocket,
    translator: Translator,
    pending: VecDeque<Event>,
}

impl Monitor {
    /// Subscribes to links, neighbours (the FDB is among them), and both families' addresses, routes and rules, and
    /// nexthop objects.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        let inner = socket.socket_mut();
        // SO_RCVBUFFORCE needs CAP_NET_ADMIN; without it the system's limit holds, and overruns come sooner.
        setsockopt(inner, sockopt::RcvBufForce, &RECEIVE_BUFFER)
            .or_else(|_| setsockopt(inner, sockopt::RcvBuf, &RECEIVE_BUFFER))?;
        inner.bind(&SocketAddr::new(0, groups()))?;
        Ok(Self { socket, translator: Translator::default(), pending: VecDeque::new() })
    }

    /// The next change; `None` once the socket has failed for good. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some(event);
            }
            match self.socket.recv_from_full().await {
                // Port 0 is the kernel; nobody else has anything to tell here.
                Ok((datagram, sender)) if sender.port_number() == 0 => self.receive(&datagram),
                Ok(_) => {}
                Err(error) => match Errno::from_raw(error.raw_os_error().unwrap_or(0)) {
                    Errno::ENOBUFS => self.overrun(),
                    Errno::EINTR => {}
                    _ => {
                        tracing::error!(%error, "the netlink monitor cannot read its socket");
                        return None;
                    }
                },
            }
        }
    }

    /// The next change, if the kernel has told of one: whatever was changed by requests that are answered, it has.
    /// (A future that is polled once may not know yet that the socket can be read.)
    pub fn try_next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some(event);
            }
            match self.socket.socket_ref().recv_from_full() {
                Ok((datagram, sender)) if sender.port_number() == 0 => self.receive(&datagram),
                Ok(_) => {}
                Err(error) => match Errno::from_raw(error.raw_os_error().unwrap_or(0)) {
                    Errno::ENOBUFS => self.overrun(),
                    Errno::EINTR => {}
                    // What it is, whoever waits for the next one is told.
                    _ => return None,
                },
            }
        }
    }

    /// Takes in what the kernel has told so far, without what `is_known`: so that many changes of our own do not fill
    /// the socket.
    pub fn absorb(&mut self, is_known: impl Fn(&Event) -> bool) {
        let mut events = VecDeque::new();
        while let Some(event) = self.try_next() {
            if !is_known(&event) {
                events.push_back(event);
            }
        }
        self.pending = events;
    }

    fn receive(&mut self, datagram: &[u8]) {
        let messages = messages(datagram);
        self.pending.extend(messages.into_iter().filter_map(|message| match message {
            Notification::Route(message) => self.translator.translate(message),
            Notification::NexthopObject => Some(Event::Routing),
        }));
    }

    /// Notifications were lost. What is still queued is older than the dump that the caller makes next,
    /// and could bring back what that dump shows as gone: it is thrown away.
    fn overrun(&mut self) {
        for _ in 0..DRAIN_MAX {
            match self.socket.socket_ref().recv_from_full() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                _ => {}
            }
        }
        self.translator = Translator::default();
        self.pending.push_back(Event::Overrun);
    }
}

/// The legacy bit mask of bind(2), for the groups up to 32: group N is bit N - 1.
fn groups() -> u32 {
    [
        MulticastGroup::Link,
        MulticastGroup::Neigh,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv4Rule,
        MulticastGroup::Ipv6Ifaddr,
        MulticastGroup::Ipv6Route,
        MulticastGroup::Ipv6Rule,
        MulticastGroup::Nexthop,
    ]
    .into_iter()
    .fold(0, |mask, group| mask | 1 << (group as u32 - 1))
}

/// What a notification may be.
enum Notification {
    /// One that netlink-packet-route knows.
    Route(RouteNetlinkMessage),
    /// A nexthop object came, changed or went, and with it the routes that name it.
    NexthopObject,
}

/// Takes a datagram apart. A message that cannot be decoded is passed over: it is of a kind that this
/// daemon does not use, or of a link whose name is not text.
fn messages(datagram: &[u8]) -> Vec<Notification> {
    let mut messages = Vec::new();
    let mut rest = datagram;
    while let Ok(buffer) = NetlinkBuffer::new_checked(rest) {
        let length = buffer.length() as usize;
        if matches!(buffer.message_type(), RTM_NEWNEXTHOP | RTM_DELNEXTHOP) {
            messages.push(Notification::NexthopObject);
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            continue;
        }
        match NetlinkMessage::<RouteNetlinkMessage>::deserialize(&rest[..length]) {
            Ok(NetlinkMessage { payload: NetlinkPayload::InnerMessage(message), .. }) => {
                messages.push(Notification::Route(message));
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "a netlink notification could not be decoded"),
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    messages
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::NetlinkHeader;
    use netlink_packet_route::link::{LinkAttribute, LinkMessage};

    use super::*;

    fn bytes(name: &str) -> Vec<u8> {
        let mut link = LinkMessage::default();
        link.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let mut message =
            NetlinkMessage::new(NetlinkHeader::default(), RouteNetlinkMessage::NewLink(link).into());
        message.finalize();
        let mut bytes = vec![0; message.buffer_len().next_multiple_of(4)];
        message.serialize(&mut bytes);
        bytes
    }

    #[test]
    fn a_datagram_may_hold_several_messages() {
        let mut datagram = bytes("eth0");
        datagram.extend(bytes("docker0"));
        assert_eq!(messages(&datagram).len(), 2);
    }

    #[test]
    fn broken_datagrams_end_in_nothing() {
        let good = bytes("eth0");
        for length in 0..good.len() {
            assert_eq!(messages(&good[..length]).len(), 0, "cut to {length}");
        }
        assert_eq!(messages(&[0; 64]).len(), 0);
        assert_eq!(messages(&[0xff; 64]).len(), 0);
    }

    #[test]
    fn an_undecodable_message_does_not_hide_the_next() {
        let mut datagram = bytes("eth0");
        let at = datagram.windows(4).position(|window| window == b"eth0").unwrap();
        datagram[at] = 0xff;
        datagram.extend(bytes("docker0"));
        assert_eq!(messages(&datagram).len(), 1);
    }

    #[test]
    fn the_groups_are_link_neigh_nexthop_and_ifaddr_route_and_rule_of_both_families() {
        assert_eq!(groups(), 0x8004_05d5);
    }
}
