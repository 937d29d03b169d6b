//! What the first bytes of a dropped packet say. Whatever they are, reading them fails softly: a dropped
//! packet is often one that lies about itself.

mod ip;

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use overlay_common::{
    Be16, Mac,
    packet::Packet,
    parse::L3,
    vni::VniKey,
    wire::{
        EthHeader, UdpHeader, VxlanHeader,
        eth::{ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6},
        ipv4::PROTOCOL_UDP,
    },
};
use serde::Serialize;

use self::ip::{Ip, Neighbour};

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
    /// The IP packet in the frame.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<Ip>,
    /// What the IP packet says of IPv6 neighbours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub neighbour: Option<Neighbour>,
    /// The ARP packet in the frame.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arp: Option<Arp>,
}

/// Where a packet was met, and so how it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On this host, or stripped of its outer headers: a frame.
    Inside,
    /// On an uplink: a frame, perhaps with a tunnel packet in it.
    Underlay,
    /// On an uplink without Ethernet headers: an IP packet, perhaps one of a tunnel.
    BareUnderlay,
}

/// Outer headers.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Tunnel {
    /// The host that sent it.
    pub src: IpAddr,
    /// The host it is for.
    pub dst: IpAddr,
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
    pub fn of(bytes: &[u8], place: Place) -> Self {
        let outer = match place {
            Place::Inside => None,
            Place::Underlay => of_ethernet(bytes),
            Place::BareUnderlay => of_version(bytes),
        };
        if let Some((tunnel, inner)) = outer.as_ref().and_then(|(ip, behind)| Tunnel::of(ip, behind)) {
            return Self { tunnel: Some(tunnel), ..Self::of_frame(inner) };
        }
        match place {
            Place::BareUnderlay => Self { ip: outer.map(|(ip, _)| ip), ..Self::default() },
            _ => Self::of_frame(bytes),
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
        let (ip, behind) = match Ip::of(Be16::new(frame.ethertype), payload) {
            Some((ip, behind)) => (Some(ip), behind),
            None => (None, &[][..]),
        };
        let neighbour = ip.as_ref().and_then(|ip| Neighbour::of(ip, behind));
        let arp = (frame.ethertype == ETHERTYPE_ARP.get()).then(|| Arp::of(payload)).flatten();
        Self { tunnel: None, frame: Some(frame), ip, neighbour, arp }
    }
}

impl Tunnel {
    /// The outer headers and the inner frame, of an IP packet and what is behind its headers.
    fn of<'a>(ip: &Ip, udp: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let port = ip.dst_port.filter(|_| ip.protocol == PROTOCOL_UDP)?;
        let vni = udp.read::<VxlanHeader>(UdpHeader::LEN).map(|header| VniKey::from_wire(header.vni).get());
        let inner = udp.get(UdpHeader::LEN + VxlanHeader::LEN..).unwrap_or(&[]);
        Some((Self { src: ip.src, dst: ip.dst, port, vni }, inner))
    }
}

/// The IP packet in a frame without tags.
fn of_ethernet(bytes: &[u8]) -> Option<(Ip, &[u8])> {
    let eth = bytes.read::<EthHeader>(0)?;
    Ip::of(eth.ethertype, bytes.get(L3..)?)
}

/// The IP packet that starts here, of the version that it says.
fn of_version(bytes: &[u8]) -> Option<(Ip, &[u8])> {
    match bytes.first()? >> 4 {
        4 => Ip::of(ETHERTYPE_IPV4, bytes),
        6 => Ip::of(ETHERTYPE_IPV6, bytes),
        _ => None,
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
        let Some(frame) = &self.frame else {
            return match &self.ip {
                Some(ip) => ip.fmt(f),
                None => f.write_str("no frame"),
            };
        };
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
        if let Some(neighbour) = &self.neighbour {
            write!(f, " {neighbour}")?;
        }
        match frame.ethertype {
            _ if self.ip.is_some() || self.arp.is_some() => Ok(()),
            ethertype if ethertype == ETHERTYPE_IPV4.get() => f.write_str(" ipv4, cut off"),
            ethertype if ethertype == ETHERTYPE_IPV6.get() => f.write_str(" ipv6, cut off"),
            ethertype if ethertype == ETHERTYPE_ARP.get() => f.write_str(" arp, cut off"),
            ethertype => write!(f, " ethertype {ethertype:#06x}"),
        }
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
