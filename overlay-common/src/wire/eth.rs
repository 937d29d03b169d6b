//! Ethernet II.

use bytemuck::{Pod, Zeroable};

use crate::{Be16, Mac};

/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: Be16 = Be16::new(0x0800);
/// EtherType of ARP.
pub const ETHERTYPE_ARP: Be16 = Be16::new(0x0806);
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: Be16 = Be16::new(0x86dd);

/// EtherType of Ethernet frames inside GRE and Geneve (Transparent Ethernet Bridging, RFC 1701).
pub const ETHERTYPE_FRAME: Be16 = Be16::new(0x6558);

/// An Ethernet II header without VLAN tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C, align(2))]
pub struct EthHeader {
    /// Destination address.
    pub dst: Mac,
    /// Source address.
    pub src: Mac,
    /// The payload's protocol.
    pub ethertype: Be16,
}

impl EthHeader {
    /// Bytes.
    pub const LEN: usize = 14;
}

const _: () = assert!(size_of::<EthHeader>() == EthHeader::LEN);
