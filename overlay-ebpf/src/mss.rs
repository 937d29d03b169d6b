//! Clamping the TCP maximum segment size: neither side of a connection through a tunnel shall send what does
//! not fit it, whatever the MTU of its interface. On the way out this binds the far side, on the way in ours, so
//! that one overlayd is enough where the peer is something else.

use overlay_common::{
    mss,
    packet::Packet,
    parse::L3,
    wire::{IpHeader, Ipv6Header, TcpHeader, ipv4::PROTOCOL_TCP, tcp::FLAG_SYN},
};

use crate::packet::Skb;

/// Offset of the checksum in a TCP header.
const CHECKSUM: usize = 16;
/// Offset of the flags in it.
const FLAGS: usize = 13;

/// Bytes of a packet that [`is_syn`] reads, in whichever IP version.
pub(crate) const LEN: usize = tcp::<Ipv6Header>() + FLAGS + 1;

/// Offset of the TCP header behind an IP header without options.
#[inline(always)]
const fn tcp<H: IpHeader>() -> usize {
    L3 + H::LEN
}

/// True for a SYN whose IP header, which is `ip`, stands at the usual place and has no options.
#[inline(always)]
pub(crate) fn is_syn<H: IpHeader>(skb: &Skb<'_>, ip: &H) -> bool {
    ip.protocol() == PROTOCOL_TCP
        && ip.is_plain()
        && skb.read::<u8>(tcp::<H>() + FLAGS).is_some_and(|flags| flags & FLAG_SYN != 0)
}

/// Lowers the MSS of a SYN to what packets of `mtu` bytes carry. What cannot be read or written stays as it is:
/// the ICMP message that follows then says the same, later.
#[inline(always)]
pub(crate) fn clamp<H: IpHeader>(skb: &Skb<'_>, mtu: u32) {
    let _ = lower(skb, tcp::<H>(), mss::for_mtu::<H>(mtu));
}

#[inline(always)]
fn lower(skb: &Skb<'_>, tcp: usize, limit: u16) -> Option<()> {
    let header: TcpHeader = skb.read_at(tcp)?;
    let len = header.header_len().checked_sub(TcpHeader::LEN)?;
    let mut options = [0; TcpHeader::MAX_OPTIONS];
    skb.load_bytes(tcp + TcpHeader::LEN, &mut options, len).ok()?;
    let found = mss::find(&options, len)?;
    if found.value > limit {
        let at = tcp + TcpHeader::LEN + found.offset;
        skb.replace_word(at, tcp + CHECKSUM, found.value.to_be_bytes(), limit.to_be_bytes()).ok()?;
    }
    Some(())
}
