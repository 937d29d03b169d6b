//! ARP for IPv4 over Ethernet (RFC 826).

use bytemuck::{Pod, Zeroable};

use crate::{Be16, Mac};

/// An ARP packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct ArpPacket {
    /// 1 for Ethernet.
    pub hardware: Be16,
    /// The EtherType of IPv4.
    pub protocol: Be16,
    /// 6 and 4: bytes of the two kinds of address.
    pub lengths: [u8; 2],
    /// 1 for a request, 2 for a reply.
    pub operation: Be16,
    /// Who says it.
    pub sender_mac: Mac,
    /// The address that the sender says is its own; network order.
    pub sender: [u8; 4],
    /// Whom it is said to.
    pub target_mac: Mac,
    /// The address asked for; network order.
    pub target: [u8; 4],
}

impl ArpPacket {
    /// Bytes.
    pub const LEN: usize = 28;
}

const _: () = assert!(size_of::<ArpPacket>() == ArpPacket::LEN);
