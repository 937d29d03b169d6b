//! IP headers of either version, and what follows them.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use overlay_common::{
    Be16,
    packet::Packet,
    wire::{
        IpHeader, Ipv4Header, Ipv6Header, NeighbourMessage,
        eth::{ETHERTYPE_IPV4, ETHERTYPE_IPV6},
        ipv4::{FRAGMENT_OFFSET, PROTOCOL_ICMP, PROTOCOL_TCP, PROTOCOL_UDP},
        ipv6::{FragmentHeader, PROTOCOL_ICMPV6},
        nd::{NEIGHBOUR_ADVERTISEMENT, NEIGHBOUR_SOLICITATION},
    },
};
use serde::Serialize;

/// Extension headers that are stepped over (RFC 8200 section 4): a sample has no room for more.
const MOST_EXTENSIONS: usize = 4;

/// An IP header and what follows.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Ip {
    /// The sender.
    pub src: IpAddr,
    /// The receiver.
    pub dst: IpAddr,
    /// The payload's protocol, by number; an extension header's where the packet ends before its payload.
    pub protocol: u8,
    /// The source port of TCP and UDP.
    pub src_port: Option<u16>,
    /// The destination port of TCP and UDP.
    pub dst_port: Option<u16>,
    /// Whether it is a fragment.
    pub fragment: bool,
}

impl Ip {
    /// Reads a packet, and returns what stands behind its headers: nothing of a later fragment.
    pub(super) fn of(ethertype: Be16, bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (mut ip, payload) = match ethertype {
            ETHERTYPE_IPV4 => Self::v4(bytes)?,
            ETHERTYPE_IPV6 => Self::v6(bytes)?,
            _ => return None,
        };
        let has_ports = matches!(ip.protocol, PROTOCOL_TCP | PROTOCOL_UDP);
        let ports = has_ports.then(|| payload.read::<[Be16; 2]>(0)).flatten();
        (ip.src_port, ip.dst_port) = ports.map(|[src, dst]| (src.get(), dst.get())).unzip();
        Some((ip, payload))
    }

    fn v4(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let header = bytes.read::<Ipv4Header>(0)?;
        let (src, dst) = (Ipv4Addr::from(header.src), Ipv4Addr::from(header.dst));
        let ip = Self::between(src.into(), dst.into(), header.protocol, header.is_fragment());
        let first = header.flags_fragment.get() & FRAGMENT_OFFSET == 0;
        let payload = if first { bytes.get(header.header_len()..) } else { None };
        Some((ip, payload.unwrap_or(&[])))
    }

    fn v6(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let header = bytes.read::<Ipv6Header>(0)?;
        let (src, dst) = (Ipv6Addr::from(header.src), Ipv6Addr::from(header.dst));
        let mut ip = Self::between(src.into(), dst.into(), header.next_header, false);
        let mut payload = bytes.get(Ipv6Header::LEN..).unwrap_or(&[]);
        for _ in 0..MOST_EXTENSIONS {
            let Some(extension) = Extension::of(ip.protocol, payload) else { break };
            ip.protocol = extension.next_header;
            ip.fragment |= extension.fragment;
            payload = if extension.later { &[] } else { payload.get(extension.len..).unwrap_or(&[]) };
        }
        Some((ip, payload))
    }

    fn between(src: IpAddr, dst: IpAddr, protocol: u8, fragment: bool) -> Self {
        Self { src, dst, protocol, src_port: None, dst_port: None, fragment }
    }
}

/// A header between IPv6's own and its payload.
struct Extension {
    next_header: u8,
    len: usize,
    fragment: bool,
    later: bool,
}

impl Extension {
    /// The extension header of this number at the start of the bytes; `None` for a payload.
    fn of(number: u8, bytes: &[u8]) -> Option<Self> {
        const HOP_BY_HOP: u8 = 0;
        const ROUTING: u8 = 43;
        const FRAGMENT: u8 = 44;
        const DESTINATION: u8 = 60;
        match number {
            FRAGMENT => {
                let header = bytes.read::<FragmentHeader>(0)?;
                let (next_header, later) = (header.next_header, header.is_later());
                Some(Self { next_header, len: FragmentHeader::LEN, fragment: true, later })
            }
            HOP_BY_HOP | ROUTING | DESTINATION => {
                // The length counts units of 8 bytes, without the first.
                let [next_header, units] = bytes.read::<[u8; 2]>(0)?;
                let len = 8 * (usize::from(units) + 1);
                Some(Self { next_header, len, fragment: false, later: false })
            }
            _ => None,
        }
    }
}

impl fmt::Display for Ip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} > {} ", self.src, self.dst)?;
        match self.protocol {
            PROTOCOL_ICMP => f.write_str("icmp"),
            PROTOCOL_ICMPV6 => f.write_str("icmpv6"),
            PROTOCOL_TCP => f.write_str("tcp"),
            PROTOCOL_UDP => f.write_str("udp"),
            other => write!(f, "protocol {other}"),
        }?;
        if let (Some(src), Some(dst)) = (self.src_port, self.dst_port) {
            write!(f, " {src} > {dst}")?;
        }
        if self.fragment { f.write_str(" fragment") } else { Ok(()) }
    }
}

/// A message of neighbour discovery (RFC 4861): IPv6's ARP.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Neighbour {
    /// The type of ICMPv6: 135 asks, 136 answers.
    pub icmp_type: u8,
    /// The address asked for, or claimed by an answer.
    pub target: Ipv6Addr,
}

impl Neighbour {
    /// The message behind an IP packet's headers.
    pub(super) fn of(ip: &Ip, payload: &[u8]) -> Option<Self> {
        if ip.src.is_ipv4() || ip.protocol != PROTOCOL_ICMPV6 {
            return None;
        }
        let message = payload.read::<NeighbourMessage>(0)?;
        matches!(message.icmp_type, NEIGHBOUR_SOLICITATION | NEIGHBOUR_ADVERTISEMENT)
            .then(|| Self { icmp_type: message.icmp_type, target: message.target.into() })
    }
}

impl fmt::Display for Neighbour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let does = if self.icmp_type == NEIGHBOUR_SOLICITATION { "who has" } else { "claims" };
        write!(f, "{does} {}", self.target)
    }
}
