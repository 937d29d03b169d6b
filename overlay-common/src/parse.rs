//! From bytes to what the programs act on. Every function takes a [`Packet`] and constant offsets, so that
//! the verifier, the host tests and a fuzzer see the same code.

use bytemuck::Pod;

use crate::{
    Be16, DropReason, Mac,
    addr::MapIp,
    packet::Packet,
    tunnel,
    vni::VniKey,
    wire::{
        ArpPacket, EthHeader, IpHeader, Ipv4Header, Ipv6Header, NeighbourMessage, UdpHeader, VxlanHeader,
        eth::{ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6},
        ipv4::{PROTOCOL_TCP, PROTOCOL_UDP},
        ipv6::{ON_LINK, PROTOCOL_ICMPV6},
        nd::{NEIGHBOUR_ADVERTISEMENT, NEIGHBOUR_SOLICITATION, ROUTER_ADVERTISEMENT},
    },
};

/// Offset of the IP header behind an Ethernet header.
pub const L3: usize = EthHeader::LEN;
/// Offset of the UDP header of a tunnel packet over Ethernet and IPv4 without options.
pub const OUTER_UDP: usize = OuterUdp::<Ipv4Header, L3>::UDP;
/// Offset of the VXLAN header.
pub const VXLAN: usize = OuterUdp::<Ipv4Header, L3>::VXLAN;
/// Offset of the inner Ethernet header.
pub const INNER_ETH: usize = OuterUdp::<Ipv4Header, L3>::INNER_ETH;
/// Offset of the inner IP header.
pub const INNER_L3: usize = OuterUdp::<Ipv4Header, L3>::INNER_L3;
/// Bytes that VXLAN over IPv4 puts in front of the inner IP header, and takes from the uplink's MTU: outer
/// IP, UDP, VXLAN, inner Ethernet.
pub const VXLAN_V4_OVERHEAD: u32 = vxlan_overhead::<Ipv4Header>() as u32;
/// The same over IPv6.
pub const VXLAN_V6_OVERHEAD: u32 = vxlan_overhead::<Ipv6Header>() as u32;

/// Bytes that VXLAN over `O` puts in front of the inner IP header, and takes from the uplink's MTU.
#[inline(always)]
pub const fn vxlan_overhead<O: IpHeader>() -> usize {
    O::LEN + UdpHeader::LEN + VxlanHeader::LEN + EthHeader::LEN
}

/// An Ethernet frame with IP in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<H> {
    /// The Ethernet header.
    pub eth: EthHeader,
    /// The IP header, without options.
    pub ip: H,
}

/// Reads a frame with an IP header of type `H`; `None` for anything else, malformed IP included: judging that is the
/// kernel's business until the packet turns out to be ours. An aggregate (`gso_size` not 0) may be longer than its
/// header can tell, which then claims no payload at all (BIG TCP; kernel >= 6.3 for IPv4, >= 5.19 for IPv6).
#[inline(always)]
pub fn frame<P: Packet + ?Sized, H: IpHeader>(packet: &P, gso_size: u32) -> Option<Frame<H>> {
    let eth: EthHeader = packet.read(0)?;
    if eth.ethertype != H::ETHERTYPE {
        return None;
    }
    let ip: H = packet.read(L3)?;
    let claimed = ip.packet_len();
    let total = if gso_size != 0 && is_unknown::<H>(claimed) { packet.len() - L3 } else { claimed };
    if !ip.is_sane() || total < ip.header_len() {
        return None;
    }
    (L3 + total <= packet.len()).then_some(Frame { eth, ip })
}

/// True for the length of a packet that does not tell it: IPv4 says 0, IPv6 that nothing follows its header.
#[inline(always)]
fn is_unknown<H: IpHeader>(packet_len: usize) -> bool {
    packet_len == 0 || (packet_len == H::LEN && H::ETHERTYPE == ETHERTYPE_IPV6)
}

/// The outer headers of a UDP datagram that may be a tunnel packet, behind `LINK` bytes of link-layer header: those of
/// Ethernet, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OuterUdp<O, const LINK: usize> {
    /// The outer IP header.
    pub ip: O,
    /// The outer UDP header.
    pub udp: UdpHeader,
}

impl<O: IpHeader, const LINK: usize> OuterUdp<O, LINK> {
    /// True where these headers are all there is to judge. Fragments and IP options are the kernel's, which
    /// reassembles and judges them.
    #[inline(always)]
    pub fn is_plain(&self) -> bool {
        self.ip.is_plain()
    }

    /// The UDP destination port.
    #[inline(always)]
    pub const fn port(&self) -> Be16 {
        self.udp.dst_port
    }

    /// Offset of the UDP header of a plain packet.
    const UDP: usize = LINK + O::LEN;
    /// Offset of its VXLAN header.
    pub const VXLAN: usize = Self::UDP + UdpHeader::LEN;
    /// Offset of its inner Ethernet header.
    pub const INNER_ETH: usize = Self::VXLAN + VxlanHeader::LEN;
    /// Offset of its inner IP header.
    pub const INNER_L3: usize = Self::INNER_ETH + EthHeader::LEN;
}

/// Reads an outer IP header behind `LINK` bytes of link-layer header; `None` for everything else.
#[inline(always)]
pub fn outer_ip<P: Packet + ?Sized, O: IpHeader, const LINK: usize>(packet: &P) -> Option<O> {
    if LINK != 0 && packet.read::<EthHeader>(0)?.ethertype != O::ETHERTYPE {
        return None;
    }
    packet.read::<O>(LINK).filter(O::is_sane)
}

/// Reads the UDP header behind `ip`, which may be a first fragment or have options. `None` for everything that
/// shows no UDP ports.
#[inline(always)]
pub fn outer_udp<P: Packet + ?Sized, O: IpHeader, const LINK: usize>(
    packet: &P,
    ip: O,
) -> Option<OuterUdp<O, LINK>> {
    let offset = ip.udp_offset(packet, LINK)?;
    let udp = read_behind::<_, O, _>(packet, LINK, offset, 0)?;
    Some(OuterUdp { ip, udp })
}

/// Reads what stands `more` bytes behind the end of an IP header at `start`, whose payload is `offset` bytes from there:
/// directly where that is the usual place, which the verifier can follow.
#[inline(always)]
fn read_behind<P: Packet + ?Sized, H: IpHeader, T: Pod>(
    packet: &P,
    start: usize,
    offset: usize,
    more: usize,
) -> Option<T> {
    if offset == H::LEN { packet.read(start + H::LEN + more) } else { packet.read_at(start + offset + more) }
}

/// The VXLAN header of a first fragment, if it is all in there: what can be refused now need not be reassembled.
#[inline(always)]
pub fn first_vxlan<P: Packet + ?Sized, O: IpHeader, const LINK: usize>(
    packet: &P,
    outer: &OuterUdp<O, LINK>,
) -> Option<VxlanHeader> {
    let offset = outer.ip.udp_offset(packet, LINK)?;
    read_behind::<_, O, _>(packet, LINK, offset, UdpHeader::LEN)
}

/// Checks the outer lengths and the VXLAN header of a datagram on one of our ports.
///
/// # Errors
/// [`DropReason::OuterMalformed`] for lengths that contradict each other or leave no room for a VXLAN
/// header, [`DropReason::VxlanFlags`] for a header this network does not use.
#[inline(always)]
pub fn vxlan<P: Packet + ?Sized, O: IpHeader, const LINK: usize>(
    packet: &P,
    outer: &OuterUdp<O, LINK>,
) -> Result<VniKey, DropReason> {
    let ip_len = outer.ip.packet_len();
    let udp_len = outer.udp.len.get() as usize;
    if LINK + ip_len > packet.len()
        || udp_len + O::LEN > ip_len
        || udp_len < UdpHeader::LEN + VxlanHeader::LEN
    {
        return Err(DropReason::OuterMalformed);
    }
    let header: VxlanHeader = packet.read(OuterUdp::<O, LINK>::VXLAN).ok_or(DropReason::OuterMalformed)?;
    if header.is_plain() { Ok(VniKey::from_wire(header.vni)) } else { Err(DropReason::VxlanFlags) }
}

/// An inner IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inner {
    /// IPv4.
    V4(Ipv4Header),
    /// IPv6.
    V6(Ipv6Header),
}

impl Inner {
    /// The TOS byte, or the traffic class.
    #[inline(always)]
    pub fn tos(&self) -> u8 {
        match self {
            Self::V4(ip) => ip.tos(),
            Self::V6(ip) => ip.tos(),
        }
    }
}

/// Checks the inner frame of a VXLAN packet: see [`inner`]. The outer lengths have been checked by [`vxlan`].
///
/// # Errors
/// As [`inner`].
#[inline(always)]
pub fn vxlan_inner<P: Packet + ?Sized, O: IpHeader, const LINK: usize>(
    packet: &P,
    outer: &OuterUdp<O, LINK>,
    vtep_mac: Mac,
) -> Result<Inner, DropReason> {
    let end = OuterUdp::<O, LINK>::UDP + outer.udp.len.get() as usize;
    inner(packet, OuterUdp::<O, LINK>::INNER_ETH, end, vtep_mac)
}

/// True for a frame that resolves an address and starts `eth` bytes into a packet: ARP, or neighbour discovery that no
/// router was in the way of.
#[inline(always)]
pub fn resolves<P: Packet + ?Sized>(packet: &P, eth: usize) -> bool {
    packet.read_at(eth).is_some_and(|header| is_resolution(packet, eth, &header))
}

/// As [`resolves`], of a frame that was refused as none of IP, to a group, or from or to a link-local address: as such
/// frames are. Others are refused as what they are.
#[inline(always)]
pub fn resolves_after_all<P: Packet + ?Sized>(packet: &P, eth: usize, reason: DropReason) -> bool {
    matches!(reason, DropReason::InnerProtocol | DropReason::InnerMulticast | DropReason::InnerMartian)
        && resolves(packet, eth)
}

/// As [`resolves`], of a frame whose header has been read.
#[inline(always)]
pub fn is_resolution<P: Packet + ?Sized>(packet: &P, eth: usize, header: &EthHeader) -> bool {
    const NEXT_HEADER: usize = 6;
    let l3 = eth + EthHeader::LEN;
    match header.ethertype {
        ETHERTYPE_ARP => return true,
        ETHERTYPE_IPV6 => {}
        _ => return false,
    }
    matches!(packet.read_at::<[u8; 2]>(l3 + NEXT_HEADER), Some([PROTOCOL_ICMPV6, ON_LINK]))
        && matches!(
            packet.read_at::<u8>(l3 + Ipv6Header::LEN),
            Some(NEIGHBOUR_SOLICITATION | NEIGHBOUR_ADVERTISEMENT)
        )
}

/// Source and destination of the packet whose IP header starts `l3` bytes into this one, unchecked: to look for it
/// among those of its version that were found right, and no more.
#[inline(always)]
pub fn ends<P: Packet + ?Sized, H: IpHeader>(packet: &P, l3: usize) -> Option<(MapIp, MapIp)> {
    let [src, dst] = packet.read::<[H::Addr; 2]>(l3 + H::SRC)?;
    Some((H::words(src), H::words(dst)))
}

/// Checks the frame that starts `eth` bytes into a packet and was carried by a tunnel up to the byte `end`:
/// addressed to this VTEP or to broadcast, IP, and as long as it says.
///
/// # Errors
/// [`DropReason::InnerMalformed`], [`DropReason::InnerDestinationMac`], [`DropReason::InnerMulticast`] or
/// [`DropReason::InnerProtocol`].
#[inline(always)]
pub fn inner<P: Packet + ?Sized>(
    packet: &P,
    eth: usize,
    end: usize,
    vtep_mac: Mac,
) -> Result<Inner, DropReason> {
    let header: EthHeader = packet.read(eth).ok_or(DropReason::InnerMalformed)?;
    if header.dst != vtep_mac && header.dst != Mac::BROADCAST {
        return Err(not_for_us(header.dst));
    }
    let l3 = eth + EthHeader::LEN;
    match header.ethertype {
        ETHERTYPE_IPV4 => inner_ip(packet, l3, end).map(Inner::V4),
        ETHERTYPE_IPV6 => inner_ip(packet, l3, end).map(Inner::V6),
        _ => Err(DropReason::InnerProtocol),
    }
}

/// Why a frame with this destination is refused.
#[inline(always)]
pub const fn not_for_us(dst: Mac) -> DropReason {
    if dst.is_multicast() { DropReason::InnerMulticast } else { DropReason::InnerDestinationMac }
}

#[inline(always)]
fn inner_ip<P: Packet + ?Sized, H: IpHeader>(packet: &P, l3: usize, end: usize) -> Result<H, DropReason> {
    within(packet.read::<H>(l3), l3, end)
}

/// Checks the IP packet that starts `l3` bytes into this one, wherever a tunnel's headers say, and was carried up to
/// the byte `end`.
///
/// # Errors
/// [`DropReason::InnerMalformed`].
#[inline(always)]
pub fn inner_at<P: Packet + ?Sized, H: IpHeader>(packet: &P, l3: usize, end: usize) -> Result<H, DropReason> {
    within(packet.read_at::<H>(l3), l3, end)
}

#[inline(always)]
fn within<H: IpHeader>(ip: Option<H>, l3: usize, end: usize) -> Result<H, DropReason> {
    let ip = ip.ok_or(DropReason::InnerMalformed)?;
    let total = ip.packet_len();
    if !ip.is_sane() || total < ip.header_len() || l3 + total > end {
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

/// The address that a frame claims by neighbour discovery (RFC 4861) to be its sender's own: the one that it
/// advertises, or asks from. `None` for any other frame. Kernels believe a message behind extension headers, too; but
/// no fragments (RFC 6980), and nothing whose hop limit is not 255.
///
/// # Errors
/// [`DropReason::GatewayClaimed`] for a router advertisement: on a bridge the gateway is the router, and no port is
/// (RFC 6105). [`DropReason::ExtensionChain`] where it cannot be told.
#[inline(always)]
pub fn nd_sender<P: Packet + ?Sized>(packet: &P) -> Result<Option<[u8; 16]>, DropReason> {
    let Some(ip) = packet.read::<Ipv6Header>(L3) else { return Ok(None) };
    if ip.hop_limit != ON_LINK {
        return Ok(None);
    }
    let Some((PROTOCOL_ICMPV6, offset)) = ip.behind_extensions(packet, L3)? else { return Ok(None) };
    let Some(icmp_type) = packet.read_at::<u8>(L3 + offset) else { return Ok(None) };
    match icmp_type {
        ROUTER_ADVERTISEMENT => Err(DropReason::GatewayClaimed),
        NEIGHBOUR_ADVERTISEMENT => {
            Ok(packet.read_at::<NeighbourMessage>(L3 + offset).map(|message| message.target))
        }
        // Who has no address yet asks from none.
        NEIGHBOUR_SOLICITATION => Ok(Some(ip.src).filter(|src| *src != [0; 16])),
        _ => Ok(None),
    }
}

/// What a frame may be to the host that it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// A datagram for this UDP port.
    Udp(Be16),
    /// A tunnel packet that has no port: GRE, or IP in IP.
    Tunnel,
    /// Nothing that could be a tunnel packet.
    Other,
}

/// What a frame is, behind whatever headers a kernel steps over.
///
/// # Errors
/// [`DropReason::ExtensionChain`] where it cannot be told.
#[inline(always)]
pub fn carrier<P: Packet + ?Sized, H: IpHeader>(packet: &P, ip: &H) -> Result<Carrier, DropReason> {
    let Some((protocol, offset)) = ip.hidden(packet, L3)? else { return Ok(Carrier::Other) };
    if tunnel::is_protocol(protocol) {
        return Ok(Carrier::Tunnel);
    }
    if protocol != PROTOCOL_UDP {
        return Ok(Carrier::Other);
    }
    let udp = read_behind::<_, H, UdpHeader>(packet, L3, offset, 0);
    Ok(udp.map_or(Carrier::Other, |udp| Carrier::Udp(udp.dst_port)))
}

/// The size of the IP packets that a frame will be on the wire: its own, or that of one segment where the
/// device will cut it (`gso_size` bytes of payload each, 0 for no aggregate). What trails behind the IP
/// packet counts, since it is encapsulated with it. `None` where the transport header cannot be read, or
/// the aggregate is of a kind we do not know.
#[inline(always)]
pub fn wire_ip_len<P: Packet + ?Sized, H: IpHeader>(
    packet: &P,
    frame: &Frame<H>,
    gso_size: u32,
) -> Option<u32> {
    if gso_size == 0 {
        return u32::try_from(packet.len().checked_sub(L3)?).ok();
    }
    if frame.ip.header_len() != H::LEN {
        return None;
    }
    let transport = match frame.ip.protocol() {
        PROTOCOL_TCP => {
            // Data offset: the high nibble of byte 12, in 32-bit words (RFC 9293 section 3.1).
            let offset: u8 = packet.read(L3 + H::LEN + 12)?;
            u32::from(offset >> 4) * 4
        }
        PROTOCOL_UDP => UdpHeader::LEN as u32,
        _ => return None,
    };
    Some(H::LEN as u32 + transport + gso_size)
}

/// The four bytes of `addr` under `mask`.
#[inline(always)]
pub const fn masked(addr: [u8; 4], mask: [u8; 4]) -> [u8; 4] {
    (u32::from_ne_bytes(addr) & u32::from_ne_bytes(mask)).to_ne_bytes()
}

/// The sixteen bytes of `addr` under `mask`.
#[inline(always)]
pub const fn masked_v6(addr: [u8; 16], mask: [u8; 16]) -> [u8; 16] {
    (u128::from_ne_bytes(addr) & u128::from_ne_bytes(mask)).to_ne_bytes()
}

#[cfg(test)]
mod tests;
