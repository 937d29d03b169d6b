//! Neighbour discovery (RFC 4861), as far as it resolves addresses.

use bytemuck::{Pod, Zeroable};

use super::ipv6::PROTOCOL_ICMPV6;
use crate::{Be16, Be32, Mac, checksum};

/// Type 134 of ICMPv6, "router advertisement" (section 4.2).
pub const ROUTER_ADVERTISEMENT: u8 = 134;
/// Type 135 of ICMPv6, "neighbour solicitation" (section 4.3).
pub const NEIGHBOUR_SOLICITATION: u8 = 135;
/// Type 136 of ICMPv6, "neighbour advertisement" (section 4.4).
pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;

/// Option 1, the link-layer address of who solicits (section 4.6.1).
const SOURCE_ADDRESS: u8 = 1;
/// Option 2, the link-layer address of who is advertised.
const TARGET_ADDRESS: u8 = 2;

/// Flags of who routes, answers, and means it.
const ROUTER_SOLICITED_OVERRIDE: Be32 = Be32::new(0xe000_0000);

/// A neighbour solicitation or advertisement, without its options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct NeighbourMessage {
    /// [`NEIGHBOUR_SOLICITATION`] or [`NEIGHBOUR_ADVERTISEMENT`].
    pub icmp_type: u8,
    /// Zero.
    pub code: u8,
    /// Checksum of the message, and of a pseudo-header.
    pub checksum: Be16,
    /// Flags of an advertisement.
    pub flags: Be32,
    /// The address asked for, or advertised; network order.
    pub target: [u8; 16],
}

/// One whose only option is a MAC address, as everybody sends it who has one (section 7.2.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Resolution {
    /// What is asked or said.
    pub message: NeighbourMessage,
    /// 1 in a solicitation, 2 in an advertisement.
    pub option: u8,
    /// The option's length in units of 8 bytes: 1.
    pub option_len: u8,
    /// The MAC address of who solicits, or of who is advertised.
    pub mac: Mac,
}

impl NeighbourMessage {
    /// Bytes.
    pub const LEN: usize = 24;
    /// Offset of the checksum.
    pub const CHECKSUM: usize = core::mem::offset_of!(Self, checksum);
}

impl Resolution {
    /// Bytes.
    pub const LEN: usize = 32;

    /// The sum over the pseudo-header, but for its addresses.
    pub const PSEUDO: u32 = Self::LEN as u32 + PROTOCOL_ICMPV6 as u32;

    /// A solicitation of an address. The checksum is right for a packet from `src` to [`solicited_node`].
    pub fn solicitation(mac: Mac, src: [u8; 16], target: [u8; 16]) -> Self {
        let message =
            NeighbourMessage { icmp_type: NEIGHBOUR_SOLICITATION, target, ..NeighbourMessage::default() };
        let mut asked = Self { message, option: SOURCE_ADDRESS, option_len: 1, mac };
        asked.message.checksum = Be16::new(checksum::finish(asked.sum(src, solicited_node(target))));
        asked
    }

    /// What answers a solicitation; without its checksum.
    #[inline(always)]
    pub fn answer(mac: Mac, target: [u8; 16]) -> Self {
        let message = NeighbourMessage {
            icmp_type: NEIGHBOUR_ADVERTISEMENT,
            flags: ROUTER_SOLICITED_OVERRIDE,
            target,
            ..NeighbourMessage::default()
        };
        Self { message, option: TARGET_ADDRESS, option_len: 1, mac }
    }

    /// Whether it is one of the two, as its sender made it: `sum` is over all of it and its pseudo-header.
    #[inline(always)]
    pub fn is_sound(&self, sum: u32) -> bool {
        let option = match self.message.icmp_type {
            NEIGHBOUR_SOLICITATION => SOURCE_ADDRESS,
            NEIGHBOUR_ADVERTISEMENT => TARGET_ADDRESS,
            _ => return false,
        };
        // Over what carries its checksum the sum is all ones.
        let is_whole = checksum::fold(sum) == 0xffff;
        self.message.code == 0 && self.option == option && self.option_len == 1 && is_whole
    }

    /// The sum over the message and its pseudo-header (RFC 8200 section 8.1), not folded.
    pub fn sum(&self, src: [u8; 16], dst: [u8; 16]) -> u32 {
        checksum::sum(bytemuck::bytes_of(self), checksum::sum(&dst, checksum::sum(&src, Self::PSEUDO)))
    }
}

/// The multicast address of all who may have an address (RFC 4291 section 2.7.1).
pub const fn solicited_node(ip: [u8; 16]) -> [u8; 16] {
    [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, ip[13], ip[14], ip[15]]
}

/// The MAC address to which packets for a multicast address go (RFC 2464 section 7).
pub const fn multicast_mac(ip: [u8; 16]) -> Mac {
    Mac([0x33, 0x33, ip[12], ip[13], ip[14], ip[15]])
}

/// The link-local address that is made of a MAC address (RFC 2464 section 5).
pub const fn link_local(mac: Mac) -> [u8; 16] {
    let [a, b, c, d, e, f] = mac.0;
    [0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f]
}

/// True for an address that is good on its own link only (RFC 4291 section 2.5.6).
#[inline(always)]
pub const fn is_link_local(ip: [u8; 16]) -> bool {
    ip[0] == 0xfe && ip[1] & 0xc0 == 0x80
}

const _: () = assert!(size_of::<NeighbourMessage>() == NeighbourMessage::LEN);
const _: () = assert!(size_of::<Resolution>() == Resolution::LEN);

#[cfg(test)]
mod tests {
    use core::net::Ipv6Addr;

    use super::*;

    const MAC: Mac = Mac([0x02, 0x42, 0xac, 0x11, 0, 2]);

    fn ip(text: &str) -> [u8; 16] {
        text.parse::<Ipv6Addr>().unwrap().octets()
    }

    #[test]
    fn the_addresses_of_the_rfcs() {
        // The example of RFC 4291 section 2.7.1.
        let group = solicited_node(ip("4037::01:800:200e:8c6c"));
        assert_eq!(group, ip("ff02::1:ff0e:8c6c"));
        assert_eq!(multicast_mac(group), Mac([0x33, 0x33, 0xff, 0x0e, 0x8c, 0x6c]));
        // The example of RFC 2464 section 4, as a link-local address.
        assert_eq!(link_local(Mac([0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde])), ip("fe80::3656:78ff:fe9a:bcde"));
        assert!(is_link_local(ip("fe80::1")) && is_link_local(ip("febf::1")));
        assert!(!is_link_local(ip("fec0::1")) && !is_link_local(ip("fd00::1")));
    }

    #[test]
    fn what_is_made_is_sound_and_what_is_changed_is_not() {
        let (src, target) = (link_local(MAC), ip("fd00:27::2"));
        let asked = Resolution::solicitation(MAC, src, target);
        assert!(asked.is_sound(asked.sum(src, solicited_node(target))));
        let mut answer = Resolution::answer(MAC, target);
        answer.message.checksum = Be16::new(checksum::finish(answer.sum(target, src)));
        assert!(answer.is_sound(answer.sum(target, src)) && !answer.is_sound(answer.sum(src, src)));
        for at in 0..Resolution::LEN {
            let mut changed = answer;
            bytemuck::bytes_of_mut(&mut changed)[at] ^= 0x10;
            assert!(!changed.is_sound(changed.sum(target, src)), "byte {at}");
        }
    }
}
