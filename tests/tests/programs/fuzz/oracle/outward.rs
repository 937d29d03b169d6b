//! Into the overlay: what a container or the host sends.

use super::{
    Dropped, Frame, Judgement, May, Must, Never, Passed,
    claim::{self, Claim},
    expected::{Expected, Free},
};
use crate::{
    fuzz::{
        hosts::{GATEWAYS, HOMES, RESERVED, Way, is_local},
        input::Input,
        ip::outgoing,
    },
    world::{GATEWAY_MAC, OVERLAY_NEIGHBOUR, PORT_NUMBER, TO_HOST_MARK, VTEP_MAC, dev},
};

/// The bridge and its ports.
const OURS: [u32; 3] = [dev::BRIDGE, dev::PORT, dev::OTHER_PORT];

/// Over what a packet would go.
pub(super) fn way(input: &Input) -> Option<Way> {
    Way::to(Frame::of(input)?.ip.dst())
}

pub(super) fn workload(input: &Input) -> Judgement {
    let on_bridge = input.ifindex == dev::BRIDGE;
    if !OURS.contains(&input.ifindex) {
        return Passed("no container is behind that device");
    }
    if on_bridge && input.mark == TO_HOST_MARK {
        return Passed("it is for this host");
    }
    match claim::of_gateway(&input.packet) {
        Claim::Yes => return Dropped("no container is the gateway"),
        Claim::Unclear => return Never("it says that it is the gateway"),
        Claim::No => {}
    }
    let Some(frame) = Frame::of(input) else { return Passed("it is not a whole IP packet") };
    let sender = Sender::of(&frame, input.ifindex);
    if frame.mac(0) != GATEWAY_MAC {
        return local(input, &frame, &sender);
    }
    let Some(way) = Way::to(frame.ip.dst()) else {
        return match claim::of_peer(&frame) {
            Claim::Yes => Dropped("a container makes a tunnel packet of its own"),
            Claim::Unclear => Never("it looks like a tunnel packet"),
            Claim::No => Passed("no peer has the destination"),
        };
    };
    match sender {
        Sender::Lies => Dropped("the source is not the sender's"),
        Sender::Unknown => match to_peer(input, &frame, &way) {
            Must(expected) => May(expected),
            Passed(reason) => Never(reason),
            other => other,
        },
        Sender::Known => to_peer(input, &frame, &way),
    }
}

/// Whether the sender of a frame may use its source address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sender {
    Known,
    /// Nobody was known to have the address in the beginning.
    Unknown,
    Lies,
}

impl Sender {
    fn of(frame: &Frame<'_>, ifindex: u32) -> Self {
        let (src, on_bridge) = (frame.ip.src(), ifindex == dev::BRIDGE);
        if !is_local(src) || GATEWAYS.contains(&src) {
            return Self::Lies;
        }
        // On the bridge only the subnet can be checked.
        if on_bridge {
            return Self::Known;
        }
        match HOMES.iter().find(|(addr, ..)| *addr == src) {
            Some((_, mac, port)) if *port == ifindex && *mac == frame.mac(6) => Self::Known,
            None if !RESERVED.contains(&src) => Self::Unknown,
            _ => Self::Lies,
        }
    }
}

/// A packet for a peer's subnet, from who may send it.
fn to_peer(input: &Input, frame: &Frame<'_>, way: &Way) -> Judgement {
    if frame.ip.hops() < 2 || !frame.ip.is_plain() {
        return Passed("the kernel has to answer it");
    }
    match on_the_wire(input, frame) {
        Some(len) if len <= way.mtu() => Must(encapsulated(frame.ip.one_hop_less(), frame, way, input.mark)),
        Some(_) => Passed("it does not fit"),
        None => Passed("nobody knows what it will measure"),
    }
}

/// Bytes of a packet, or of each segment of an aggregate, with what trails behind it.
fn on_the_wire(input: &Input, frame: &Frame<'_>) -> Option<usize> {
    if input.gso_size == 0 { Some(frame.bytes.len() - 14) } else { frame.ip.segment(input.gso_size) }
}

/// As it leaves for a peer: the outer header has the inner one's DSCP and ECN (RFC 6040, normal mode).
fn encapsulated(inner: Vec<u8>, frame: &Frame<'_>, way: &Way, mark: u32) -> Expected {
    let udp = if way.over_v6 { 14 + 40 } else { 14 + 20 };
    Expected {
        bytes: outgoing(way, frame.ip.tos(), frame.ip.ethertype(), &inner),
        free: Free::SourcePort(udp),
        mark,
        ip: udp + 8 + 8 + 14,
        fits: Some(way.mtu()),
    }
}

/// From one container to another, past the bridge: untouched, and only to who has both addresses. Over the bridge where
/// that is not plain, and always in IPv6.
fn local(input: &Input, frame: &Frame<'_>, sender: &Sender) -> Judgement {
    let dst = frame.ip.dst();
    if input.ifindex == dev::BRIDGE || frame.ip.is_v6() || *sender == Sender::Lies {
        return Passed("the bridge forwards it");
    }
    if !is_local(dst) || GATEWAYS.contains(&dst) || RESERVED.contains(&dst) {
        return Passed("no container has the destination");
    }
    let expected = Expected::as_it_came(input);
    match HOMES.iter().find(|(addr, ..)| *addr == dst) {
        Some((_, mac, port)) if frame.mac(0) != *mac || *port == input.ifindex => {
            Passed("it is for another MAC address, or its own port")
        }
        Some(_) if *sender == Sender::Known => Must(expected),
        // Learned, or not.
        _ => May(expected),
    }
}

pub(super) fn bridge(input: &Input) -> Judgement {
    if !OURS.contains(&input.ifindex) {
        return Passed("it is no bridge of ours");
    }
    if input.packet[..6] != OVERLAY_NEIGHBOUR {
        return Passed("the kernel did not route it to a peer");
    }
    let Some(frame) = Frame::of(input) else { return Never("it is not a whole IP packet") };
    let Some(way) = Way::to(frame.ip.dst()) else { return Dropped("no peer has the destination") };
    if !is_local(frame.ip.src()) {
        return Dropped("the source is not ours");
    }
    match on_the_wire(input, &frame) {
        Some(len) if len > way.mtu() => Dropped("it does not fit"),
        _ if input.gso_size != 0 => through_device(input, &way),
        _ => Must(encapsulated(frame.ip.to_vec(), &frame, &way, input.mark)),
    }
}

/// An aggregate for which the kernel makes no room: the tunnel device encapsulates it, where there is one.
fn through_device(input: &Input, way: &Way) -> Judgement {
    if way.peer.port != PORT_NUMBER {
        return Dropped("there is no tunnel device on the peer's port");
    }
    let bytes = [&way.peer.vtep_mac[..], &VTEP_MAC, &input.packet[12..]].concat();
    May(Expected { bytes, fits: Some(way.mtu()), ..Expected::as_it_came(input) })
}
