//! Clamping the TCP maximum segment size: neither side of a connection through a tunnel shall send what does
//! not fit it, whatever the MTU of its interface. On the way out this binds the far side, on the way in ours, so
//! that one overlayd is enough where the peer is something else.

use overlay_common::{
    mss,
    packet::Packet,
    parse::L3,
    wire::{Ipv4Header, TcpHeader, ipv4::PROTOCOL_TCP, tcp::FLAG_SYN},
};

use crate::packet::Skb;

/// Offset of the TCP header behind an IP header without options.
const TCP: usize = L3 + Ipv4Header::LEN;
/// Offset of the checksum in it.
const CHECKSUM: usize = TCP + 16;
/// Offset of the flags in it.
const FLAGS: usize = TCP + 13;

/// Bytes of a packet that [`is_syn`] reads.
pub(crate) const LEN: usize = FLAGS + 1;

/// True for a SYN whose IP header, which is `ip`, stands at the usual place and has no options.
#[inline(always)]
pub(crate) fn is_syn(skb: &Skb<'_>, ip: &Ipv4Header) -> bool {
    ip.protocol == PROTOCOL_TCP
        && ip.version_ihl == Ipv4Header::VERSION_IHL
        && !ip.is_later_fragment()
        && skb.read::<u8>(FLAGS).is_some_and(|flags| flags & FLAG_SYN != 0)
}

/// Lowers the MSS of a SYN to what packets of `mtu` bytes carry. What cannot be read or written stays as it is:
/// the ICMP message that follows then says the same, later.
#[inline(always)]
pub(crate) fn clamp(skb: &Skb<'_>, mtu: u32) {
    let _ = lower(skb, mss::for_mtu(mtu));
}

#[inline(always)]
fn lower(skb: &Skb<'_>, limit: u16) -> Option<()> {
    let header: TcpHeader = skb.read_at(TCP)?;
    let len = header.header_len().checked_sub(TcpHeader::LEN)?;
    let mut options = [0; TcpHeader::MAX_OPTIONS];
    skb.load_bytes(TCP + TcpHeader::LEN, &mut options, len).ok()?;
    let found = mss::find(&options, len)?;
    if found.value > limit {
        let at = TCP + TcpHeader::LEN + found.offset;
        skb.replace_word(at, CHECKSUM, found.value.to_be_bytes(), limit.to_be_bytes()).ok()?;
    }
    Some(())
}
