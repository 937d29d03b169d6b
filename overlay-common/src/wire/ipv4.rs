//! IPv4 (RFC 791).

use bytemuck::{Pod, Zeroable};

use crate::{Be16, checksum};

/// Protocol number of ICMP.
pub const PROTOCOL_ICMP: u8 = 1;
/// Protocol number of TCP.
pub const PROTOCOL_TCP: u8 = 6;
/// Protocol number of UDP.
pub const PROTOCOL_UDP: u8 = 17;

/// "Don't fragment", in [`Ipv4Header::flags_fragment`].
pub const FLAG_DF: u16 = 0x4000;
/// "More fragments", in [`Ipv4Header::flags_fragment`].
pub const FLAG_MF: u16 = 0x2000;
/// The fragment offset's bits, in units of 8 bytes.
pub const FRAGMENT_OFFSET: u16 = 0x1fff;

/// An IPv4 header without options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Ipv4Header {
    /// Version (4) in the high nibble, header length in 32-bit words in the low one.
    pub version_ihl: u8,
    /// DSCP (6 bits) and ECN (2 bits).
    pub tos: u8,
    /// Bytes of header and payload.
    pub total_len: Be16,
    /// Identification, for reassembly.
    pub id: Be16,
    /// [`FLAG_DF`], [`FLAG_MF`] and the fragment offset.
    pub flags_fragment: Be16,
    /// Time to live, in hops.
    pub ttl: u8,
    /// The payload's protocol.
    pub protocol: u8,
    /// Header checksum.
    pub checksum: Be16,
    /// Source address, network order.
    pub src: [u8; 4],
    /// Destination address, network order.
    pub dst: [u8; 4],
}

impl Ipv4Header {
    /// Bytes, without options.
    pub const LEN: usize = 20;
    /// `version_ihl` of a header without options.
    pub const VERSION_IHL: u8 = 0x45;

    /// Header length in bytes, options included, as the header claims.
    #[inline(always)]
    pub const fn header_len(&self) -> usize {
        ((self.version_ihl & 0x0f) as usize) * 4
    }

    /// True for a fragment that is not its datagram's first, and so has no transport header.
    #[inline(always)]
    pub const fn is_later_fragment(&self) -> bool {
        self.flags_fragment.get() & FRAGMENT_OFFSET != 0
    }

    /// True for every fragment of a datagram, the first included.
    #[inline(always)]
    pub const fn is_fragment(&self) -> bool {
        self.flags_fragment.get() & (FLAG_MF | FRAGMENT_OFFSET) != 0
    }

    /// The checksum of these 20 bytes, with the checksum field taken as zero. Host byte order.
    pub fn compute_checksum(&self) -> u16 {
        let header = Self { checksum: Be16::new(0), ..*self };
        checksum::finish(checksum::sum(bytemuck::bytes_of(&header), 0))
    }
}

/// True for 224.0.0.0/4 and 255.255.255.255: nothing a router forwards as unicast.
#[inline(always)]
pub const fn is_multicast_or_broadcast(addr: [u8; 4]) -> bool {
    addr[0] & 0xf0 == 0xe0 || u32::from_be_bytes(addr) == u32::MAX
}

/// True for addresses that no packet between hosts has as its source (RFC 1122 section 3.2.1.3): 0.0.0.0/8,
/// loopback, multicast and the reserved addresses above it.
#[inline(always)]
pub const fn is_martian_source(addr: [u8; 4]) -> bool {
    addr[0] == 0 || addr[0] == 127 || addr[0] >= 224
}

/// True for addresses that no packet between hosts has as its destination: 0.0.0.0/8 and loopback.
#[inline(always)]
pub const fn is_martian_destination(addr: [u8; 4]) -> bool {
    addr[0] == 0 || addr[0] == 127
}

const _: () = assert!(size_of::<Ipv4Header>() == Ipv4Header::LEN);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literal_header() {
        let bytes: [u8; 20] =
            [0x45, 0xb8, 0, 0x54, 0x12, 0x34, 0x40, 0, 0x40, 1, 0xcd, 0x1b, 172, 17, 0, 2, 172, 27, 0, 3];
        let header: Ipv4Header = bytemuck::pod_read_unaligned(&bytes);
        assert_eq!(header.header_len(), 20);
        assert_eq!(header.total_len.get(), 84);
        assert_eq!(header.id.get(), 0x1234);
        assert!(!header.is_fragment());
        assert_eq!(header.ttl, 64);
        assert_eq!(header.src, [172, 17, 0, 2]);
        let fragment = Ipv4Header { flags_fragment: Be16::new(FLAG_MF), ..header };
        assert!(fragment.is_fragment());
    }

    #[test]
    fn martians() {
        for addr in [[0, 0, 0, 0], [0, 1, 2, 3], [127, 0, 0, 1], [224, 0, 0, 1], [240, 0, 0, 1], [255; 4]] {
            assert!(is_martian_source(addr), "{addr:?}");
        }
        for addr in [[1, 0, 0, 1], [10, 0, 0, 1], [126, 255, 0, 1], [128, 0, 0, 1], [223, 255, 255, 254]] {
            assert!(!is_martian_source(addr) && !is_martian_destination(addr), "{addr:?}");
        }
        assert!(is_martian_destination([127, 0, 0, 1]) && is_martian_destination([0; 4]));
    }

    #[test]
    fn fragments() {
        let header = |flags_fragment| Ipv4Header {
            flags_fragment: Be16::new(flags_fragment),
            ..Ipv4Header::default()
        };
        assert!(header(FLAG_MF).is_fragment() && !header(FLAG_MF).is_later_fragment());
        assert!(header(1).is_fragment() && header(1).is_later_fragment());
        assert!(!header(FLAG_DF).is_fragment() && !header(FLAG_DF).is_later_fragment());
    }

    #[test]
    fn group_addresses() {
        assert!(is_multicast_or_broadcast([224, 0, 0, 1]));
        assert!(is_multicast_or_broadcast([239, 255, 255, 250]));
        assert!(is_multicast_or_broadcast([255; 4]));
        assert!(!is_multicast_or_broadcast([223, 255, 255, 255]));
        assert!(!is_multicast_or_broadcast([240, 0, 0, 1]));
    }
}
