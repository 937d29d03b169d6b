//! What both versions of IP have in common, as far as a tunnel is concerned. Each function that takes an IP header
//! takes either; the compiler makes one of it for each version, so that IPv4 pays nothing for IPv6.

use bytemuck::Pod;

use crate::{Be16, DropReason, addr::MapIp, packet::Packet};

/// An IP header of either version.
pub trait IpHeader: Pod {
    /// An address, network order.
    type Addr: Pod + PartialEq;

    /// The EtherType.
    const ETHERTYPE: Be16;
    /// Bytes, without options or extension headers.
    const LEN: usize;
    /// Offset of the source address, which the destination address follows.
    const SRC: usize;
    /// Protocol number of the version's ICMP.
    const ICMP: u8;

    /// The source address.
    fn src(&self) -> Self::Addr;

    /// The destination address.
    fn dst(&self) -> Self::Addr;

    /// An address as map keys hold it. What is no address of this version becomes `::`, which no map has.
    fn map_ip(addr: Self::Addr) -> MapIp;

    /// An address as it stands, in 16 bytes: together with the version it tells what it tells.
    fn words(addr: Self::Addr) -> MapIp;

    /// True where version and header length are possible.
    fn is_sane(&self) -> bool;

    /// Bytes of this header, options included, as it claims.
    fn header_len(&self) -> usize;

    /// Bytes of the whole packet, as it claims.
    fn packet_len(&self) -> usize;

    /// DSCP and ECN: the TOS byte, or the traffic class.
    fn tos(&self) -> u8;

    /// This header on its way back, with so many hops left.
    #[must_use]
    fn turned(&self, hops: u8) -> Self;

    /// Gives the header another TOS byte, and the checksum to go with it.
    fn set_tos(&mut self, tos: u8);

    /// Hops that are left.
    fn ttl(&self) -> u8;

    /// What follows this header.
    fn protocol(&self) -> u8;

    /// True where the transport header stands right behind these [`LEN`](Self::LEN) bytes, and the packet is no
    /// fragment.
    fn is_plain(&self) -> bool;

    /// Bytes from the start of this header, which stands at `start`, to the UDP header; `None` where the packet has
    /// none. Further away than [`LEN`](Self::LEN) with options, or in a first fragment.
    fn udp_offset<P: Packet + ?Sized>(&self, packet: &P, start: usize) -> Option<usize>;

    /// What is behind whatever headers a kernel steps over on its way to who takes it, and how many bytes behind the
    /// start of this header, which stands at `start`. `None` where that cannot be seen, as in a later fragment.
    ///
    /// # Errors
    /// [`DropReason::ExtensionChain`] where they are too many to tell.
    fn hidden<P: Packet + ?Sized>(&self, packet: &P, start: usize)
    -> Result<Option<(u8, usize)>, DropReason>;

    /// True for addresses that no packet between hosts has as its source.
    fn is_martian_source(addr: Self::Addr) -> bool;

    /// True for addresses that no packet between hosts has as its destination.
    fn is_martian_destination(addr: Self::Addr) -> bool;

    /// True for multicast and broadcast: nothing a router forwards as unicast.
    fn is_group(addr: Self::Addr) -> bool;
}
