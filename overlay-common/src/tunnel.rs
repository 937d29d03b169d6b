//! What peers send in tunnels of any kind: from the outer IP header to where the inner packet starts. What `parse` tells of
//! VXLAN is faster, and knows where everything stands.

use crate::{
    Be16, Be32, DropReason, Encap,
    packet::Packet,
    wire::{
        GeneveHeader, GreHeader, IpHeader, UdpHeader, VxlanHeader,
        eth::{ETHERTYPE_FRAME, ETHERTYPE_IPV4, ETHERTYPE_IPV6},
        gre::PROTOCOL_GRE,
        ipv4::{PROTOCOL_IPV4, PROTOCOL_IPV6, PROTOCOL_UDP},
        ipv6::DESTINATION,
    },
};

/// How a tunnel packet's end names the network that it is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Network {
    /// Not at all.
    Unnamed = 0,
    /// By a VNI.
    Vni = 1,
    /// By a GRE key.
    Key = 2,
}

/// The headers between an outer IP header and what the tunnel carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The kind of tunnel.
    pub encap: Encap,
    /// Which of the two `number` is.
    pub network: Network,
    /// The VNI or the key; 0 for neither.
    pub number: u32,
    /// The UDP destination port; 0 for none.
    pub port: Be16,
    /// EtherType of what is carried; [`ETHERTYPE_FRAME`] for a frame.
    pub carries: Be16,
    /// Offset of what is carried.
    pub at: usize,
    /// Offset of the byte behind it.
    pub end: usize,
}

impl Opened {
    /// True where it has a port, and so a UDP header.
    #[inline(always)]
    pub fn is_udp(&self) -> bool {
        self.port != Be16::new(0)
    }
}

/// Which kind of tunnel a UDP port carries.
pub trait Ports {
    /// The kind; `None` for none.
    fn kind(&self, port: Be16) -> Option<Encap>;
}

impl<F: Fn(Be16) -> Option<Encap>> Ports for F {
    #[inline(always)]
    fn kind(&self, port: Be16) -> Option<Encap> {
        self(port)
    }
}

/// A protocol that tunnels without UDP stand behind in an outer IP header.
#[inline(always)]
pub const fn is_protocol(protocol: u8) -> bool {
    matches!(protocol, PROTOCOL_GRE | PROTOCOL_IPV4 | PROTOCOL_IPV6)
}

/// Whether a tunnel may stand behind an outer IP header. Fragments and IP options are the kernel's.
#[inline(always)]
pub fn may_follow<O: IpHeader>(ip: &O) -> bool {
    let protocol = ip.protocol();
    if O::ETHERTYPE == ETHERTYPE_IPV6 && protocol == DESTINATION {
        return true;
    }
    ip.is_plain() && (is_protocol(protocol) || protocol == PROTOCOL_UDP)
}

/// Reads what stands behind the outer header `ip`, which starts `start` bytes into the packet and is no fragment's.
/// `None` for what is no tunnel's.
///
/// # Errors
/// [`DropReason::OuterMalformed`] for lengths that contradict each other on a port of ours, [`DropReason::TunnelHeader`] for a Geneve
/// header that asks for more than to be skipped.
#[inline(always)]
pub fn open<P: Packet + ?Sized, O: IpHeader>(
    packet: &P,
    ip: &O,
    start: usize,
    ports: &impl Ports,
) -> Result<Option<Opened>, DropReason> {
    let (mut protocol, mut at) = (ip.protocol(), start + ip.header_len());
    if protocol == DESTINATION && O::ETHERTYPE == ETHERTYPE_IPV6 {
        // Linux puts a limit to nesting in there (RFC 2473 section 4.1.1).
        let Some([next, words]) = packet.read_at::<[u8; 2]>(at) else { return Ok(None) };
        if words != 0 || !is_protocol(next) {
            return Ok(None);
        }
        (protocol, at) = (next, at + 8);
    }
    let opened = match protocol {
        PROTOCOL_UDP => udp(packet, at, ports)?,
        PROTOCOL_GRE => gre(packet, at),
        PROTOCOL_IPV4 => Some(ipip(ETHERTYPE_IPV4, at)),
        PROTOCOL_IPV6 => Some(ipip(ETHERTYPE_IPV6, at)),
        _ => None,
    };
    let Some(mut opened) = opened else { return Ok(None) };
    let end = start + ip.packet_len();
    opened.end = if opened.end == 0 { end } else { opened.end };
    if end > packet.len() || opened.end > end || opened.at > opened.end {
        // Whose it is without a port, nobody has asked yet.
        return if opened.is_udp() { Err(DropReason::OuterMalformed) } else { Ok(None) };
    }
    Ok(Some(opened))
}

#[inline(always)]
fn udp<P: Packet + ?Sized>(packet: &P, at: usize, ports: &impl Ports) -> Result<Option<Opened>, DropReason> {
    let Some(udp) = packet.read_at::<UdpHeader>(at) else { return Ok(None) };
    let (port, end) = (udp.dst_port, at + udp.len.get() as usize);
    let at = at + UdpHeader::LEN;
    let (encap, network) = (Encap::Geneve, Network::Vni);
    match ports.kind(port) {
        Some(Encap::Geneve) => {
            let header: GeneveHeader = packet.read_at(at).ok_or(DropReason::OuterMalformed)?;
            let at = at + header.len_with_options().ok_or(DropReason::TunnelHeader)?;
            let (number, carries) = (number(header.vni), header.protocol);
            Ok(Some(Opened { encap, network, number, port, carries, at, end }))
        }
        Some(Encap::Vxlan) => {
            let header: VxlanHeader = packet.read_at(at).ok_or(DropReason::OuterMalformed)?;
            let at = at + VxlanHeader::LEN;
            let (encap, number, carries) = (Encap::Vxlan, number(header.vni), ETHERTYPE_FRAME);
            let opened = Opened { encap, network, number, port, carries, at, end };
            Ok(header.is_plain().then_some(opened))
        }
        _ => Ok(None),
    }
}

#[inline(always)]
const fn number([a, b, c]: [u8; 3]) -> u32 {
    u32::from_be_bytes([0, a, b, c])
}

/// `None` for GRE that is no tunnel of packets or frames, or in a form that we do not read: the kernel may.
#[inline(always)]
fn gre<P: Packet + ?Sized>(packet: &P, at: usize) -> Option<Opened> {
    let header: GreHeader = packet.read_at(at)?;
    let len = header.full_len()?;
    let encap = match header.protocol {
        ETHERTYPE_FRAME => Encap::Gre,
        ETHERTYPE_IPV4 | ETHERTYPE_IPV6 => Encap::GreL3,
        _ => return None,
    };
    let (network, number) = match header.key_offset() {
        Some(offset) => (Network::Key, packet.read_at::<Be32>(at + offset)?.get()),
        None => (Network::Unnamed, 0),
    };
    let carries = header.protocol;
    Some(Opened { encap, network, number, port: Be16::new(0), carries, at: at + len, end: 0 })
}

#[inline(always)]
fn ipip(carries: Be16, at: usize) -> Opened {
    let (encap, network) = (Encap::Ipip, Network::Unnamed);
    Opened { encap, network, number: 0, port: Be16::new(0), carries, at, end: 0 }
}

#[cfg(test)]
mod tests;
