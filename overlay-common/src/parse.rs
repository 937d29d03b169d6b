//! From bytes to what the programs act on. Every function takes a [`Packet`] and constant offsets, so that
//! the verifier, the host tests and a fuzzer see the same code.

use crate::{
    Be16, DropReason, Mac,
    packet::Packet,
    vni::VniKey,
    wire::{
        ArpPacket, EthHeader, Ipv4Header, UdpHeader, VxlanHeader,
        eth::{ETHERTYPE_ARP, ETHERTYPE_IPV4},
        ipv4::{PROTOCOL_TCP, PROTOCOL_UDP},
    },
};

/// Offset of the IP header behind an Ethernet header.
pub const L3: usize = EthHeader::LEN;
/// Offset of the UDP header of a tunnel packet without IP options.
pub const OUTER_UDP: usize = L3 + Ipv4Header::LEN;
/// Offset of the VXLAN header.
pub const VXLAN: usize = OUTER_UDP + UdpHeader::LEN;
/// Offset of the inner Ethernet header.
pub const INNER_ETH: usize = VXLAN + VxlanHeader::LEN;
/// Offset of the inner IP header.
pub const INNER_L3: usize = INNER_ETH + EthHeader::LEN;
/// Bytes that VXLAN over IPv4 puts in front of the inner IP header, and takes from the uplink's MTU: outer
/// IP, UDP, VXLAN, inner Ethernet.
pub const VXLAN_V4_OVERHEAD: u32 = (INNER_L3 - EthHeader::LEN) as u32;

/// An Ethernet frame with IPv4 in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The Ethernet header.
    pub eth: EthHeader,
    /// The first 20 bytes of the IPv4 header.
    pub ip: Ipv4Header,
}

/// Reads an IPv4 frame; `None` for anything else, malformed IPv4 included: judging that is the kernel's
/// business until the packet turns out to be ours. An aggregate (`gso_size` not 0) may be longer than its total
/// length can tell, which is zero then (BIG TCP, kernel >= 6.3).
#[inline(always)]
pub fn ipv4_frame<P: Packet + ?Sized>(packet: &P, gso_size: u32) -> Option<Frame> {
    let eth: EthHeader = packet.read(0)?;
    if eth.ethertype != ETHERTYPE_IPV4 {
        return None;
    }
    let ip: Ipv4Header = packet.read(L3)?;
    let total = match ip.total_len.get() as usize {
        0 if gso_size != 0 => packet.len() - L3,
        total => total,
    };
    if ip.version_ihl >> 4 != 4 || ip.header_len() < Ipv4Header::LEN || total < ip.header_len() {
        return None;
    }
    (L3 + total <= packet.len()).then_some(Frame { eth, ip })
}

/// The outer headers of a UDP datagram that may be a tunnel packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OuterUdp {
    /// The outer IPv4 header.
    pub ip: Ipv4Header,
    /// The outer UDP header.
    pub udp: UdpHeader,
}

impl OuterUdp {
    /// True where these headers are all there is to judge. Fragments and IP options are the kernel's, which
    /// reassembles and judges them.
    #[inline(always)]
    pub const fn is_plain(&self) -> bool {
        self.ip.version_ihl == Ipv4Header::VERSION_IHL && !self.ip.is_fragment()
    }

    /// The UDP destination port.
    #[inline(always)]
    pub const fn port(&self) -> Be16 {
        self.udp.dst_port
    }
}

/// Reads the first 20 bytes of an outer IPv4 header; `None` for everything else.
#[inline(always)]
pub fn outer_ipv4<P: Packet + ?Sized>(packet: &P) -> Option<Ipv4Header> {
    let eth: EthHeader = packet.read(0)?;
    if eth.ethertype != ETHERTYPE_IPV4 {
        return None;
    }
    packet.read::<Ipv4Header>(L3).filter(|ip| ip.version_ihl >> 4 == 4)
}

/// Reads the UDP header behind `ip`, which may be a first fragment or have options. `None` for everything that
/// shows no UDP ports.
#[inline(always)]
pub fn outer_udp<P: Packet + ?Sized>(packet: &P, ip: Ipv4Header) -> Option<OuterUdp> {
    if ip.protocol != PROTOCOL_UDP || ip.is_later_fragment() {
        return None;
    }
    let udp = match ip.version_ihl {
        Ipv4Header::VERSION_IHL => packet.read(OUTER_UDP)?,
        _ if ip.header_len() > Ipv4Header::LEN => packet.read_at(L3 + ip.header_len())?,
        _ => return None,
    };
    Some(OuterUdp { ip, udp })
}

/// The VXLAN header of a first fragment, if it is all in there: what can be refused now need not be reassembled.
#[inline(always)]
pub fn first_vxlan<P: Packet + ?Sized>(packet: &P, outer: &OuterUdp) -> Option<VxlanHeader> {
    if outer.ip.version_ihl == Ipv4Header::VERSION_IHL { packet.read(VXLAN) } else { None }
}

/// Checks the outer lengths and the VXLAN header of a datagram on one of our ports.
///
/// # Errors
/// [`DropReason::OuterMalformed`] for lengths that contradict each other or leave no room for a VXLAN
/// header, [`DropReason::VxlanFlags`] for a header this network does not use.
#[inline(always)]
pub fn vxlan<P: Packet + ?Sized>(packet: &P, outer: &OuterUdp) -> Result<VniKey, DropReason> {
    let ip_len = outer.ip.total_len.get() as usize;
    let udp_len = outer.udp.len.get() as usize;
    if L3 + ip_len > packet.len()
        || udp_len + Ipv4Header::LEN > ip_len
        || udp_len < UdpHeader::LEN + VxlanHeader::LEN
    {
        return Err(DropReason::OuterMalformed);
    }
    let header: VxlanHeader = packet.read(VXLAN).ok_or(DropReason::OuterMalformed)?;
    if header.is_plain() { Ok(VniKey::from_wire(header.vni)) } else { Err(DropReason::VxlanFlags) }
}

/// Checks the inner frame of a VXLAN packet: see [`inner`]. The outer lengths have been checked by [`vxlan`].
///
/// # Errors
/// As [`inner`].
#[inline(always)]
pub fn vxlan_inner<P: Packet + ?Sized>(
    packet: &P,
    outer: &OuterUdp,
    vtep_mac: Mac,
) -> Result<Ipv4Header, DropReason> {
    inner::<P, INNER_ETH>(packet, OUTER_UDP + outer.udp.len.get() as usize, vtep_mac)
}

/// Checks the frame that starts `ETH` bytes into a packet and was carried by a tunnel up to the byte `end`:
/// addressed to this VTEP or to broadcast, IPv4, and as long as it says.
///
/// # Errors
/// [`DropReason::InnerMalformed`], [`DropReason::InnerDestinationMac`] or [`DropReason::InnerProtocol`].
#[inline(always)]
pub fn inner<P: Packet + ?Sized, const ETH: usize>(
    packet: &P,
    end: usize,
    vtep_mac: Mac,
) -> Result<Ipv4Header, DropReason> {
    let eth: EthHeader = packet.read(ETH).ok_or(DropReason::InnerMalformed)?;
    if eth.dst != vtep_mac && eth.dst != Mac::BROADCAST {
        return Err(DropReason::InnerDestinationMac);
    }
    if eth.ethertype != ETHERTYPE_IPV4 {
        return Err(DropReason::InnerProtocol);
    }
    let l3 = ETH + EthHeader::LEN;
    let ip: Ipv4Header = packet.read(l3).ok_or(DropReason::InnerMalformed)?;
    let total = ip.total_len.get() as usize;
    if ip.version_ihl >> 4 != 4
        || ip.header_len() < Ipv4Header::LEN
        || total < ip.header_len()
        || l3 + total > end
    {
        return Err(DropReason::InnerMalformed);
    }
    Ok(ip)
}

/// The address that a frame claims by ARP to be its sender's own; `None` for any other frame.
#[inline(always)]
pub fn arp_sender<P: Packet + ?Sized>(packet: &P) -> Option<[u8; 4]> {
    let eth: EthHeader = packet.read(0)?;
    if eth.ethertype != ETHERTYPE_ARP {
        return None;
    }
    let arp: ArpPacket = packet.read(L3)?;
    Some(arp.sender)
}

/// The size of the IP packets that a frame will be on the wire: its own, or that of one segment where the
/// device will cut it (`gso_size` bytes of payload each, 0 for no aggregate). What trails behind the IP
/// packet counts, since it is encapsulated with it. `None` where the transport header cannot be read, or
/// the aggregate is of a kind we do not know.
#[inline(always)]
pub fn wire_ip_len<P: Packet + ?Sized>(packet: &P, frame: &Frame, gso_size: u32) -> Option<u32> {
    if gso_size == 0 {
        return u32::try_from(packet.len().checked_sub(L3)?).ok();
    }
    if frame.ip.version_ihl != Ipv4Header::VERSION_IHL {
        return None;
    }
    let transport = match frame.ip.protocol {
        PROTOCOL_TCP => {
            // Data offset: the high nibble of byte 12, in 32-bit words (RFC 9293 section 3.1).
            let offset: u8 = packet.read(L3 + Ipv4Header::LEN + 12)?;
            u32::from(offset >> 4) * 4
        }
        PROTOCOL_UDP => UdpHeader::LEN as u32,
        _ => return None,
    };
    Some(Ipv4Header::LEN as u32 + transport + gso_size)
}

/// The four bytes of `addr` under `mask`.
#[inline(always)]
pub const fn masked(addr: [u8; 4], mask: [u8; 4]) -> [u8; 4] {
    (u32::from_ne_bytes(addr) & u32::from_ne_bytes(mask)).to_ne_bytes()
}

#[cfg(test)]
mod tests;
