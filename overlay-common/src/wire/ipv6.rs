//! IPv6 (RFC 8200).

use bytemuck::{Pod, Zeroable};

use super::{
    eth::ETHERTYPE_IPV6,
    ip::IpHeader,
    ipv4::{PROTOCOL_TCP, PROTOCOL_UDP},
};
use crate::{Be16, Be32, DropReason, addr::MapIp, packet::Packet};

/// Protocol number of ICMPv6.
pub const PROTOCOL_ICMPV6: u8 = 58;
/// The smallest MTU of a link that carries IPv6 (section 5), bytes.
pub const MIN_MTU: u32 = 1280;

/// Extension headers that are looked behind, and one more: nobody sends so many.
const MAX_EXTENSIONS: usize = 8;

/// The hop limit that proves that no router was on the way (RFC 4861 section 7.1).
pub const ON_LINK: u8 = 255;

// Next headers that are no transport: something else stands between (RFC 7045).
/// Hop-by-hop options.
pub const HOP_BY_HOP: u8 = 0;
/// A routing header.
pub const ROUTING: u8 = 43;
/// A fragment header.
pub const FRAGMENT: u8 = 44;
/// Destination options.
pub const DESTINATION: u8 = 60;
const MOBILITY: u8 = 135;
const HOST_IDENTITY: u8 = 139;
const SHIM: u8 = 140;

/// An IPv6 header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C, align(4))]
pub struct Ipv6Header {
    /// Version (4 bits), traffic class (8 bits) and flow label (20 bits).
    pub version_class_flow: Be32,
    /// Bytes behind this header; zero where they are too many to tell (jumbograms, BIG TCP).
    pub payload_len: Be16,
    /// What follows.
    pub next_header: u8,
    /// Hops that are left.
    pub hop_limit: u8,
    /// Source address, network order.
    pub src: [u8; 16],
    /// Destination address, network order.
    pub dst: [u8; 16],
}

/// A fragment header (section 4.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct FragmentHeader {
    /// What follows.
    pub next_header: u8,
    /// Zero.
    pub reserved: u8,
    /// The offset in units of 8 bytes in the upper 13 bits; the lowest bit says that more follow.
    pub offset_flags: Be16,
    /// Identification, for reassembly.
    pub id: Be32,
}

impl FragmentHeader {
    /// Bytes.
    pub const LEN: usize = 8;

    /// True where the datagram does not start here.
    #[inline(always)]
    pub const fn is_later(&self) -> bool {
        self.offset_flags.get() >> 3 != 0
    }
}

impl Ipv6Header {
    /// Offset of the length of what follows.
    pub const PAYLOAD_LEN: usize = core::mem::offset_of!(Self, payload_len);

    /// The first word of a header with this traffic class, and no flow label.
    #[inline(always)]
    pub const fn first_word(class: u8) -> Be32 {
        Be32::new(6 << 28 | (class as u32) << 20)
    }

    /// What stands behind the extension headers, and how many bytes behind the start of this one, which is `start` bytes
    /// into the packet. A fragment header is not stepped over. `None` where the packet ends before.
    ///
    /// # Errors
    /// [`DropReason::ExtensionChain`] for more than are looked behind.
    #[inline(always)]
    pub fn behind_extensions<P: Packet + ?Sized>(
        &self,
        packet: &P,
        start: usize,
    ) -> Result<Option<(u8, usize)>, DropReason> {
        let (mut next, mut offset) = (self.next_header, Self::LEN);
        for _ in 0..MAX_EXTENSIONS {
            if !matches!(next, HOP_BY_HOP | ROUTING | DESTINATION) {
                return Ok(Some((next, offset)));
            }
            let Some([following, words]) = packet.read_at::<[u8; 2]>(start + offset) else { return Ok(None) };
            // They count eight bytes less than there are (section 4.3).
            (next, offset) = (following, offset + (words as usize + 1) * 8);
        }
        Err(DropReason::ExtensionChain)
    }

    /// The version that the header claims.
    #[inline(always)]
    pub const fn version(&self) -> u8 {
        (self.version_class_flow.get() >> 28) as u8
    }
}

impl IpHeader for Ipv6Header {
    type Addr = [u8; 16];

    const ETHERTYPE: Be16 = ETHERTYPE_IPV6;
    const LEN: usize = 40;
    const SRC: usize = 8;
    const ICMP: u8 = PROTOCOL_ICMPV6;

    #[inline(always)]
    fn src(&self) -> [u8; 16] {
        self.src
    }

    #[inline(always)]
    fn dst(&self) -> [u8; 16] {
        self.dst
    }

    /// A v4-mapped address on the wire is nobody's: as a key it would be that of an IPv4 host.
    #[inline(always)]
    fn map_ip(addr: [u8; 16]) -> MapIp {
        if is_low(addr) { MapIp::new([0; 16]) } else { MapIp::new(addr) }
    }

    #[inline(always)]
    fn words(addr: [u8; 16]) -> MapIp {
        MapIp::new(addr)
    }

    #[inline(always)]
    fn is_sane(&self) -> bool {
        self.version() == 6
    }

    #[inline(always)]
    fn header_len(&self) -> usize {
        Self::LEN
    }

    #[inline(always)]
    fn packet_len(&self) -> usize {
        Self::LEN + self.payload_len.get() as usize
    }

    #[inline(always)]
    fn tos(&self) -> u8 {
        (self.version_class_flow.get() >> 20) as u8
    }

    #[inline(always)]
    fn set_tos(&mut self, tos: u8) {
        const CLASS: u32 = 0xff << 20;
        let word = self.version_class_flow.get() & !CLASS;
        self.version_class_flow = Be32::new(word | (tos as u32) << 20);
    }

    #[inline(always)]
    fn ttl(&self) -> u8 {
        self.hop_limit
    }

    #[inline(always)]
    fn turned(&self, hops: u8) -> Self {
        Self { hop_limit: hops, src: self.dst, dst: self.src, ..*self }
    }

    #[inline(always)]
    fn protocol(&self) -> u8 {
        self.next_header
    }

    #[inline(always)]
    fn is_plain(&self) -> bool {
        // What almost every packet is, before the questions.
        matches!(self.next_header, PROTOCOL_TCP | PROTOCOL_UDP)
            || !matches!(
                self.next_header,
                HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION | MOBILITY | HOST_IDENTITY | SHIM
            )
    }

    #[inline(always)]
    fn udp_offset<P: Packet + ?Sized>(&self, packet: &P, start: usize) -> Option<usize> {
        match self.next_header {
            PROTOCOL_UDP => Some(Self::LEN),
            FRAGMENT => {
                let fragment: FragmentHeader = packet.read(start + Self::LEN)?;
                let first = !fragment.is_later() && fragment.next_header == PROTOCOL_UDP;
                first.then_some(Self::LEN + FragmentHeader::LEN)
            }
            _ => None,
        }
    }

    #[inline(always)]
    fn hidden<P: Packet + ?Sized>(
        &self,
        packet: &P,
        start: usize,
    ) -> Result<Option<(u8, usize)>, DropReason> {
        let Some((next, offset)) = self.behind_extensions(packet, start)? else { return Ok(None) };
        if next != FRAGMENT {
            return Ok(Some((next, offset)));
        }
        let fragment: Option<FragmentHeader> = packet.read_at(start + offset);
        let Some(fragment) = fragment.filter(|fragment| !fragment.is_later()) else { return Ok(None) };
        // What may follow is part of what is fragmented: options, as before.
        let inner = Self { next_header: fragment.next_header, ..*self };
        let start = start + offset + FragmentHeader::LEN - Self::LEN;
        let behind = inner.behind_extensions(packet, start)?;
        Ok(behind.map(|(next, more)| (next, offset + FragmentHeader::LEN + more - Self::LEN)))
    }

    /// ::/80, where unspecified, loopback, v4-mapped and v4-compatible addresses are; multicast; link-local, which
    /// no router forwards (RFC 4291 section 2.5.6).
    #[inline(always)]
    fn is_martian_source(addr: [u8; 16]) -> bool {
        Self::is_group(addr) || Self::is_martian_destination(addr)
    }

    #[inline(always)]
    fn is_martian_destination(addr: [u8; 16]) -> bool {
        is_low(addr) || (addr[0] == 0xfe && addr[1] & 0xc0 == 0x80)
    }

    #[inline(always)]
    fn is_group(addr: [u8; 16]) -> bool {
        addr[0] == 0xff
    }
}

/// True for ::/80.
#[inline(always)]
fn is_low(addr: [u8; 16]) -> bool {
    let [a, b, c, d, e, f, g, h, i, j, ..] = addr;
    u64::from_ne_bytes([a, b, c, d, e, f, g, h]) == 0 && i | j == 0
}

const _: () = assert!(size_of::<Ipv6Header>() == Ipv6Header::LEN);
const _: () = assert!(size_of::<FragmentHeader>() == FragmentHeader::LEN);

#[cfg(test)]
mod tests {
    use core::net::Ipv6Addr;

    use super::*;

    fn addr(text: &str) -> [u8; 16] {
        text.parse::<Ipv6Addr>().unwrap().octets()
    }

    #[test]
    fn literal_header() {
        let mut bytes = [0; 40];
        bytes[..8].copy_from_slice(&[0x6b, 0x81, 0x23, 0x45, 0x05, 0xdc, 17, 64]);
        bytes[8..24].copy_from_slice(&addr("2001:db8::1"));
        bytes[24..].copy_from_slice(&addr("2001:db8::2"));
        let mut header: Ipv6Header = bytemuck::pod_read_unaligned(&bytes);
        assert!(header.is_sane() && header.is_plain());
        assert_eq!((header.tos(), header.packet_len(), header.ttl()), (0xb8, 1540, 64));
        header.set_tos(0x03);
        assert_eq!(bytemuck::bytes_of(&header)[..4], [0x60, 0x31, 0x23, 0x45], "the flow label stays");
        assert_eq!((header.src, header.dst), (addr("2001:db8::1"), addr("2001:db8::2")));
    }

    #[test]
    fn martians() {
        for text in ["::", "::1", "::ffff:192.0.2.1", "::192.0.2.1", "fe80::1", "febf::1", "ff02::1"] {
            assert!(Ipv6Header::is_martian_source(addr(text)), "{text}");
        }
        for text in ["2001:db8::1", "fd00::1", "64:ff9b::192.0.2.1", "fec0::1", "0:0:0:0:1::"] {
            assert!(!Ipv6Header::is_martian_source(addr(text)), "{text}");
            assert!(!Ipv6Header::is_martian_destination(addr(text)), "{text}");
        }
        assert!(
            Ipv6Header::is_group(addr("ff02::1")) && !Ipv6Header::is_martian_destination(addr("ff02::1"))
        );
    }

    #[test]
    fn a_mapped_address_is_no_ipv4_host() {
        assert_eq!(Ipv6Header::map_ip(addr("::ffff:192.0.2.1")), MapIp::default());
        assert_eq!(Ipv6Header::map_ip(addr("2001:db8::1")).bytes(), addr("2001:db8::1"));
    }

    #[test]
    fn extension_headers_are_not_plain() {
        let header = |next_header| Ipv6Header { next_header, ..Ipv6Header::default() };
        for plain in [6, 17, 58, 50, 51, 132, 59] {
            assert!(header(plain).is_plain(), "{plain}");
        }
        for extension in [0, 43, 44, 60, 135, 139, 140] {
            assert!(!header(extension).is_plain(), "{extension}");
        }
    }

    #[test]
    fn the_udp_header_of_a_first_fragment() {
        let mut packet = [0_u8; 64];
        let offset = |packet: &[u8], next_header| {
            Ipv6Header { next_header, ..Ipv6Header::default() }.udp_offset(packet, 0)
        };
        assert_eq!(offset(&packet, 17), Some(40));
        assert_eq!(offset(&packet, 58), None);
        packet[40..44].copy_from_slice(&[17, 0, 0, 1]);
        assert_eq!(offset(&packet, 44), Some(48));
        packet[43] = 9;
        assert_eq!(offset(&packet, 44), None, "a later fragment");
        assert_eq!(offset(&packet[..47], 44), None);
    }
}
