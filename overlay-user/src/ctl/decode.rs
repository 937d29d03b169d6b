//! What the first bytes of a dropped packet say. Whatever they are, reading them fails softly: a dropped
//! packet is often one that lies about itself.

use std::{fmt, net::Ipv4Addr};

use overlay_common::{
    Mac,
    packet::Packet,
    parse::L3,
    vni::VniKey,
    wire::{
        EthHeader, IpHeader, Ipv4Header, UdpHeader, VxlanHeader,
        eth::{ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6},
        ipv4::{FRAGMENT_OFFSET, PROTOCOL_ICMP, PROTOCOL_TCP, PROTOCOL_UDP},
    },
};
use serde::Serialize;

/// Bytes of a VLAN tag (IEEE 802.1Q), and the EtherTypes that announce one.
const TAG: usize = 4;
const TAGS: [u16; 2] = [0x8100, 0x88a8];

/// A packet, as far as its bytes tell.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// The outer headers, where it is a tunnel packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<Tunnel>,
    /// The frame: the inner one of a tunnel packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frame: Option<Frame>,
    /// The IPv4 packet in the frame.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<Ip>,
    /// The ARP packet in the frame.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arp: Option<Arp>,
}

/// Outer headers.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Tunnel {
    /// The host that sent it.
    pub src: Ipv4Addr,
    /// The host it is for.
    pub dst: Ipv4Addr,
    /// The UDP port it is for.
    pub port: u16,
    /// The VNI; `null` where the packet ends before it.
    pub vni: Option<u32>,
}

/// An Ethernet header.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Frame {
    /// The sender.
    #[serde(serialize_with = "text")]
    pub src: Mac,
    /// The receiver.
    #[serde(serialize_with = "text")]
    pub dst: Mac,
    /// The VLAN, where it is tagged.
    pub vlan: Option<u16>,
    /// The payload's protocol.
    pub ethertype: u16,
}

/// An IPv4 header and what follows.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Ip {
    /// The sender.
    pub src: Ipv4Addr,
    /// The receiver.
    pub dst: Ipv4Addr,
    /// The payload's protocol, by number.
    pub protocol: u8,
    /// The source port of TCP and UDP.
    pub src_port: Option<u16>,
    /// The destination port of TCP and UDP.
    pub dst_port: Option<u16>,
    /// Whether it is a fragment.
    pub fragment: bool,
}

/// An ARP packet for IPv4 over Ethernet (RFC 826).
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Arp {
    /// 1 asks, 2 answers.
    pub operation: u16,
    /// The MAC address it claims to be sent from.
    #[serde(serialize_with = "text")]
    pub sender_mac: Mac,
    /// The address it claims.
    pub sender: Ipv4Addr,
    /// The address it is about.
    pub target: Ipv4Addr,
}

fn text<S: serde::Serializer>(mac: &Mac, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(mac)
}

impl Summary {
    /// Reads a packet. Only what comes in from the underlay is looked into for a tunnel: a container's VXLAN is
    /// its own payload.
    pub fn of(bytes: &[u8], from_underlay: bool) -> Self {
        match from_underlay.then(|| Tunnel::of(bytes)).flatten() {
            Some((tunnel, inner)) => Self { tunnel: Some(tunnel), ..Self::of_frame(inner) },
            None => Self::of_frame(bytes),
        }
    }

    fn of_frame(bytes: &[u8]) -> Self {
        let Some(eth) = bytes.read::<EthHeader>(0) else { return Self::default() };
        let mut frame = Frame { src: eth.src, dst: eth.dst, vlan: None, ethertype: eth.ethertype.get() };
        let mut l3 = L3;
        if TAGS.contains(&frame.ethertype)
            && let Some([high, low, a, b]) = bytes.read::<[u8; TAG]>(L3)
        {
            frame.vlan = Some(u16::from_be_bytes([high & 0x0f, low]));
            frame.ethertype = u16::from_be_bytes([a, b]);
            l3 += TAG;
        }
        let payload = bytes.get(l3..).unwrap_or(&[]);
        let is = |ethertype: overlay_common::Be16| frame.ethertype == ethertype.get();
        let ip = is(ETHERTYPE_IPV4).then(|| Ip::of(payload)).flatten();
        let arp = is(ETHERTYPE_ARP).then(|| Arp::of(payload)).flatten();
        Self { tunnel: None, frame: Some(frame), ip, arp }
    }
}

impl Tunnel {
    /// The outer headers and the inner frame. IP options and a first fragment are no hindrance.
    fn of(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let eth = bytes.read::<EthHeader>(0).filter(|eth| eth.ethertype == ETHERTYPE_IPV4)?;
        let ip = Ip::of(bytes.get(size_of_val(&eth)..)?).filter(|ip| ip.protocol == PROTOCOL_UDP)?;
        let vxlan = L3 + bytes.read::<Ipv4Header>(L3)?.header_len() + UdpHeader::LEN;
        let vni = bytes.read::<VxlanHeader>(vxlan).map(|header| VniKey::from_wire(header.vni).get());
        let inner = bytes.get(vxlan + VxlanHeader::LEN..).unwrap_or(&[]);
        Some((Self { src: ip.src, dst: ip.dst, port: ip.dst_port?, vni }, inner))
    }
}

impl Ip {
    fn of(bytes: &[u8]) -> Option<Self> {
        let header = bytes.read::<Ipv4Header>(0)?;
        let first = header.flags_fragment.get() & FRAGMENT_OFFSET == 0;
        let has_ports = first && matches!(header.protocol, PROTOCOL_TCP | PROTOCOL_UDP);
        let ports = has_ports.then(|| bytes.read::<[u8; 4]>(header.header_len())).flatten();
        Some(Self {
            src: header.src.into(),
            dst: header.dst.into(),
            protocol: header.protocol,
            src_port: ports.map(|[a, b, ..]| u16::from_be_bytes([a, b])),
            dst_port: ports.map(|[.., a, b]| u16::from_be_bytes([a, b])),
            fragment: header.is_fragment(),
        })
    }
}

impl Arp {
    fn of(bytes: &[u8]) -> Option<Self> {
        /// Hardware and protocol types, and the lengths of their addresses: Ethernet and IPv4.
        const ETHERNET_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
        let fixed = bytes.read::<[u8; 28]>(0)?;
        let (kind, rest) = fixed.split_first_chunk::<6>()?;
        let (operation, rest) = rest.split_first_chunk::<2>()?;
        let (sender_mac, rest) = rest.split_first_chunk::<6>()?;
        let (sender, rest) = rest.split_first_chunk::<4>()?;
        let target = rest.last_chunk::<4>()?;
        (*kind == ETHERNET_IPV4).then(|| Self {
            operation: u16::from_be_bytes(*operation),
            sender_mac: Mac(*sender_mac),
            sender: (*sender).into(),
            target: (*target).into(),
        })
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Tunnel { src, dst, port, vni }) = &self.tunnel {
            write!(f, "{src} > {dst} udp {port} ")?;
            match vni {
                Some(vni) => write!(f, "vni {vni}: ")?,
                None => write!(f, "cut off: ")?,
            }
        }
        let Some(frame) = &self.frame else { return f.write_str("no frame") };
        match (&self.ip, &self.arp) {
            // Behind the outer headers the MAC addresses are VTEPs'.
            (Some(ip), _) if self.tunnel.is_some() => ip.fmt(f),
            (Some(ip), _) => write!(f, "{} {ip}", frame.src),
            (None, Some(arp)) => write!(f, "{} {arp}", frame.src),
            (None, None) => write!(f, "{} > {}", frame.src, frame.dst),
        }?;
        if let Some(vlan) = frame.vlan {
            write!(f, " vlan {vlan}")?;
        }
        match frame.ethertype {
            _ if self.ip.is_some() || self.arp.is_some() => Ok(()),
            ethertype if ethertype == ETHERTYPE_IPV4.get() => f.write_str(" ipv4, cut off"),
            ethertype if ethertype == ETHERTYPE_IPV6.get() => f.write_str(" ipv6"),
            ethertype if ethertype == ETHERTYPE_ARP.get() => f.write_str(" arp, cut off"),
            ethertype => write!(f, " ethertype {ethertype:#06x}"),
        }
    }
}

impl fmt::Display for Ip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} > {} ", self.src, self.dst)?;
        match self.protocol {
            PROTOCOL_ICMP => f.write_str("icmp"),
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

impl fmt::Display for Arp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operation, sender_mac, sender, target } = self;
        match operation {
            1 => write!(f, "arp who has {target}, tell {sender} at {sender_mac}"),
            2 => write!(f, "arp {sender} is at {sender_mac}"),
            other => write!(f, "arp operation {other} of {sender} at {sender_mac}"),
        }
    }
}

#[cfg(test)]
mod tests;
