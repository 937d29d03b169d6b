//! IPv4 (RFC 791).

use bytemuck::{Pod, Zeroable};

use super::{eth::ETHERTYPE_IPV4, ip::IpHeader};
use crate::{Be16, DropReason, addr::MapIp, checksum, packet::Packet};

/// Protocol number of ICMP.
pub const PROTOCOL_ICMP: u8 = 1;
/// Protocol number of TCP.
pub const PROTOCOL_TCP: u8 = 6;
/// Protocol number of IPv4 in IP (RFC 2003).
pub const PROTOCOL_IPV4: u8 = 4;
/// Protocol number of IPv6 in IP (RFC 4213).
pub const PROTOCOL_IPV6: u8 = 41;
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
#[repr(C, align(4))]
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
    /// `version_ihl` of a header without options.
    pub const VERSION_IHL: u8 = 0x45;

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

impl IpHeader for Ipv4Header {
    type Addr = [u8; 4];

    const ETHERTYPE: Be16 = ETHERTYPE_IPV4;
    const LEN: usize = 20;
    const SRC: usize = 12;
    const ICMP: u8 = PROTOCOL_ICMP;

    #[inline(always)]
    fn src(&self) -> [u8; 4] {
        self.src
    }

    #[inline(always)]
    fn dst(&self) -> [u8; 4] {
        self.dst
    }

    #[inline(always)]
    fn map_ip(addr: [u8; 4]) -> MapIp {
        MapIp::v4(addr)
    }

    #[inline(always)]
    fn words(addr: [u8; 4]) -> MapIp {
        Self::map_ip(addr)
    }

    #[inline(always)]
    fn is_sane(&self) -> bool {
        self.version_ihl >> 4 == 4 && self.header_len() >= Self::LEN
    }

    #[inline(always)]
    fn header_len(&self) -> usize {
        ((self.version_ihl & 0x0f) as usize) * 4
    }

    #[inline(always)]
    fn packet_len(&self) -> usize {
        self.total_len.get() as usize
    }

    #[inline(always)]
    fn tos(&self) -> u8 {
        self.tos
    }

    #[inline(always)]
    fn set_tos(&mut self, tos: u8) {
        let word = |tos: u8| u16::from_be_bytes([self.version_ihl, tos]);
        self.checksum = Be16::new(checksum::update(self.checksum.get(), word(self.tos), word(tos)));
        self.tos = tos;
    }

    #[inline(always)]
    fn ttl(&self) -> u8 {
        self.ttl
    }

    #[inline(always)]
    fn turned(&self, hops: u8) -> Self {
        let word = |ttl: u8| u16::from_be_bytes([ttl, self.protocol]);
        // Whichever of the two addresses comes first, they add up to the same.
        let sum = checksum::update(self.checksum.get(), word(self.ttl), word(hops));
        Self { ttl: hops, checksum: Be16::new(sum), src: self.dst, dst: self.src, ..*self }
    }

    #[inline(always)]
    fn protocol(&self) -> u8 {
        self.protocol
    }

    #[inline(always)]
    fn is_plain(&self) -> bool {
        self.version_ihl == Self::VERSION_IHL && !self.is_fragment()
    }

    #[inline(always)]
    fn udp_offset<P: Packet + ?Sized>(&self, _packet: &P, _start: usize) -> Option<usize> {
        let has_header =
            self.protocol == PROTOCOL_UDP && !self.is_later_fragment() && self.header_len() >= Self::LEN;
        has_header.then_some(self.header_len())
    }

    #[inline(always)]
    fn hidden<P: Packet + ?Sized>(
        &self,
        _packet: &P,
        _start: usize,
    ) -> Result<Option<(u8, usize)>, DropReason> {
        let shown = !self.is_later_fragment() && self.header_len() >= Self::LEN;
        Ok(shown.then_some((self.protocol, self.header_len())))
    }

    /// RFC 1122 section 3.2.1.3: 0.0.0.0/8, loopback, multicast and the reserved addresses above it.
    #[inline(always)]
    fn is_martian_source(addr: [u8; 4]) -> bool {
        addr[0] == 0 || addr[0] == 127 || addr[0] >= 224
    }

    #[inline(always)]
    fn is_martian_destination(addr: [u8; 4]) -> bool {
        addr[0] == 0 || addr[0] == 127
    }

    /// 224.0.0.0/4 and 255.255.255.255.
    #[inline(always)]
    fn is_group(addr: [u8; 4]) -> bool {
        addr[0] & 0xf0 == 0xe0 || u32::from_be_bytes(addr) == u32::MAX
    }
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
            assert!(Ipv4Header::is_martian_source(addr), "{addr:?}");
        }
        for addr in [[1, 0, 0, 1], [10, 0, 0, 1], [126, 255, 0, 1], [128, 0, 0, 1], [223, 255, 255, 254]] {
            assert!(
                !Ipv4Header::is_martian_source(addr) && !Ipv4Header::is_martian_destination(addr),
                "{addr:?}"
            );
        }
        assert!(
            Ipv4Header::is_martian_destination([127, 0, 0, 1]) && Ipv4Header::is_martian_destination([0; 4])
        );
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
        assert!(Ipv4Header::is_group([224, 0, 0, 1]));
        assert!(Ipv4Header::is_group([239, 255, 255, 250]));
        assert!(Ipv4Header::is_group([255; 4]));
        assert!(!Ipv4Header::is_group([223, 255, 255, 255]));
        assert!(!Ipv4Header::is_group([240, 0, 0, 1]));
    }
}
