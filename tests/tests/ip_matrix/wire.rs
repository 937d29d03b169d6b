//! Tunnel packets as they are on the wire, read by hand.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use harness::{Topology, traffic::Sniffer};

use crate::bed::Version;

/// The UDP port of the tunnels.
pub(crate) const PORT: u16 = 4789;

/// UDP's number.
pub(crate) const UDP: u8 = 17;

/// An IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ip {
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) protocol: u8,
    /// Of the whole packet, as it says.
    pub(crate) len: u32,
}

/// A tunnel packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet {
    pub(crate) outer: Ip,
    /// The outer UDP checksum, 0 for none.
    pub(crate) checksum: u16,
    pub(crate) inner: Ip,
}

impl Packet {
    /// Reads a frame; `None` for what is no tunnel packet.
    pub(crate) fn of(frame: &[u8]) -> Option<Self> {
        let (outer, udp) = ip(frame)?;
        if outer.protocol != UDP || word(udp, 2)? != PORT {
            return None;
        }
        let (inner, _) = ip(udp.get(16..)?)?;
        Some(Self { outer, checksum: word(udp, 6)?, inner })
    }
}

/// The IP header in an Ethernet frame, and what follows it.
fn ip(frame: &[u8]) -> Option<(Ip, &[u8])> {
    let packet = frame.get(14..)?;
    match word(frame, 12)? {
        0x0800 => {
            let address = |at: usize| Some(Ipv4Addr::from(*packet.get(at..)?.first_chunk::<4>()?).into());
            let (len, protocol) = (word(packet, 2)?.into(), *packet.get(9)?);
            let header = usize::from(packet[0] & 0x0f) * 4;
            Some((Ip { src: address(12)?, dst: address(16)?, protocol, len }, packet.get(header..)?))
        }
        0x86dd => {
            let address = |at: usize| Some(Ipv6Addr::from(*packet.get(at..)?.first_chunk::<16>()?).into());
            let (len, protocol) = (40 + u32::from(word(packet, 4)?), *packet.get(6)?);
            Some((Ip { src: address(8)?, dst: address(24)?, protocol, len }, packet.get(40..)?))
        }
        _ => None,
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
}

/// Eyes on the first host's link, which every packet between it and the others passes once.
pub(crate) fn watch(topology: &Topology) -> Sniffer {
    Sniffer::on(topology.wire.ns().unwrap(), "h1").unwrap()
}

/// The tunnel packets that passed.
pub(crate) fn packets(sniffer: Sniffer) -> Vec<Packet> {
    let frames = sniffer.finish().unwrap();
    frames.iter().filter_map(|frame| Packet::of(&frame.bytes)).collect()
}

/// The version of a packet's inside.
pub(crate) fn inner_version(packet: &Packet) -> Version {
    Version::of(packet.inner.src)
}
