//! ARP for IPv4 over Ethernet (RFC 826).

use bytemuck::{Pod, Zeroable};

use super::eth::ETHERTYPE_IPV4;
use crate::{Be16, Mac};

/// `operation` of a request.
pub const REQUEST: Be16 = Be16::new(1);
/// `operation` of a reply.
pub const REPLY: Be16 = Be16::new(2);

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

    /// A request for an address, from who has another; to be broadcast.
    pub const fn request(sender_mac: Mac, sender: [u8; 4], target: [u8; 4]) -> Self {
        Self {
            hardware: Be16::new(1),
            protocol: ETHERTYPE_IPV4,
            lengths: [6, 4],
            operation: REQUEST,
            sender_mac,
            sender,
            target_mac: Mac([0; 6]),
            target,
        }
    }

    /// True where it is about IPv4 over Ethernet.
    #[inline(always)]
    pub fn is_for_ipv4(&self) -> bool {
        self.hardware == Be16::new(1) && self.protocol == ETHERTYPE_IPV4 && self.lengths == [6, 4]
    }
}

const _: () = assert!(size_of::<ArpPacket>() == ArpPacket::LEN);
