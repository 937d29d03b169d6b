//! Header templates: userspace compiles everything about a tunnel's outer headers that is the same for
//! every packet, the programs copy it and stamp what differs.
//!
//! A template reaches from the outer Ethernet header to the inner one. The outer Ethernet header's
//! addresses stay zero: `bpf_redirect_neigh` writes them from the kernel's neighbour entry.

use bytemuck::NoUninit;

use crate::{
    Be16, Mac, Vni, checksum,
    map::{TEMPLATE_BYTES, TemplateBytes},
    parse::{L3, VXLAN_V4_OVERHEAD, VXLAN_V6_OVERHEAD},
    wire::{
        EthHeader, IpHeader, Ipv4Header, Ipv6Header, UdpHeader, VxlanHeader,
        eth::{ETHERTYPE_IPV4, ETHERTYPE_IPV6},
        ipv4::{FLAG_DF, PROTOCOL_UDP},
        vxlan::FLAG_VNI,
    },
};

/// TTL or hop limit of the outer header: the underlay's own hops, as the kernel's tunnels send it.
pub const OUTER_TTL: u8 = 64;

/// `BPF_F_ADJ_ROOM_*` flags (`include/uapi/linux/bpf.h`).
mod room {
    pub(super) const FIXED_GSO: u64 = 1 << 0;
    pub(super) const ENCAP_L3_IPV4: u64 = 1 << 1;
    pub(super) const ENCAP_L3_IPV6: u64 = 1 << 2;
    pub(super) const ENCAP_L4_UDP: u64 = 1 << 4;
    pub(super) const NO_CSUM_RESET: u64 = 1 << 5;
    pub(super) const ENCAP_L2_ETH: u64 = 1 << 6;
    /// The inner L2 header's length, in the flags' top byte.
    pub(super) const fn encap_l2(len: usize) -> u64 {
        (len as u64) << 56
    }
}

/// Flags of `bpf_skb_adjust_room` that make room for VXLAN, but for the outer IP version: the kernel then knows the
/// packet as a UDP tunnel with an inner Ethernet header (>= 5.13) and segments it as its own. FIXED_GSO keeps the
/// segment size, so every refusal comes before the packet is changed.
const VXLAN_ENCAP_FLAGS: u64 = room::FIXED_GSO
    | room::ENCAP_L4_UDP
    | room::NO_CSUM_RESET
    | room::ENCAP_L2_ETH
    | room::encap_l2(EthHeader::LEN);

/// Flags of `bpf_skb_adjust_room` that take the outer headers away again.
pub const DECAP_FLAGS: u64 = room::FIXED_GSO | room::NO_CSUM_RESET;
/// Besides, where what is left is IPv4 and what is taken away was not (kernel >= 6.3).
pub const DECAP_TO_V4: u64 = 1 << 7;
/// Besides, where what is left is IPv6 and what is taken away was not (kernel >= 6.3).
pub const DECAP_TO_V6: u64 = 1 << 8;

/// The addresses of a tunnel's outer headers, of one version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Underlay {
    /// IPv4, network order.
    V4 {
        /// Our address.
        src: [u8; 4],
        /// The peer's.
        dst: [u8; 4],
    },
    /// IPv6, network order.
    V6 {
        /// Our address.
        src: [u8; 16],
        /// The peer's.
        dst: [u8; 16],
    },
}

impl Underlay {
    /// Bytes of the outer IP header.
    pub const fn header_len(&self) -> usize {
        match self {
            Self::V4 { .. } => Ipv4Header::LEN,
            Self::V6 { .. } => Ipv6Header::LEN,
        }
    }

    /// Bytes that VXLAN takes from the uplink's MTU.
    pub const fn vxlan_overhead(&self) -> u32 {
        match self {
            Self::V4 { .. } => VXLAN_V4_OVERHEAD,
            Self::V6 { .. } => VXLAN_V6_OVERHEAD,
        }
    }
}

/// The constants of a VXLAN tunnel. The port is in host order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vxlan {
    /// The outer addresses.
    pub underlay: Underlay,
    /// EtherType of what is carried.
    pub carries: Be16,
    /// UDP destination port.
    pub port: u16,
    /// The VNI on the wire.
    pub vni: Vni,
    /// Our VTEP's MAC address.
    pub inner_src: Mac,
    /// The peer's VTEP's MAC address, or broadcast where it is not known: a kernel peer
    /// takes that for itself, but does not forward it to its containers.
    pub inner_dst: Mac,
}

/// A compiled template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Template {
    /// The headers; zero behind `len`.
    pub bytes: TemplateBytes,
    /// Bytes in use.
    pub len: usize,
    /// Unfolded checksum of the outer IPv4 header without TOS and total length; 0 over IPv6.
    pub checksum: u32,
    /// Flags of `bpf_skb_adjust_room` that make room for it.
    pub room_flags: u64,
}

impl Vxlan {
    /// Compiles the template.
    pub fn compile(&self) -> Template {
        let mut bytes = [0; TEMPLATE_BYTES];
        let mut len = 0;
        let mut append = |header: &[u8]| {
            bytes[len..len + header.len()].copy_from_slice(header);
            len += header.len();
        };
        let (checksum, version_flag) = match self.underlay {
            Underlay::V4 { src, dst } => {
                let ip = outer_v4(src, dst);
                append(bytemuck::bytes_of(&EthHeader { ethertype: ETHERTYPE_IPV4, ..EthHeader::default() }));
                append(bytemuck::bytes_of(&ip));
                (checksum::sum(bytemuck::bytes_of(&ip), 0), room::ENCAP_L3_IPV4)
            }
            Underlay::V6 { src, dst } => {
                append(bytemuck::bytes_of(&EthHeader { ethertype: ETHERTYPE_IPV6, ..EthHeader::default() }));
                append(bytemuck::bytes_of(&outer_v6(src, dst)));
                (0, room::ENCAP_L3_IPV6)
            }
        };
        // No UDP checksum: RFC 7348 section 5 asks for none over IPv4, RFC 6935 allows none over IPv6.
        append(bytemuck::bytes_of(&UdpHeader { dst_port: Be16::new(self.port), ..UdpHeader::default() }));
        let vxlan = VxlanHeader { flags: FLAG_VNI, vni: self.vni.to_wire(), ..VxlanHeader::default() };
        append(bytemuck::bytes_of(&vxlan));
        append(bytemuck::bytes_of(&EthHeader {
            dst: self.inner_dst,
            src: self.inner_src,
            ethertype: self.carries,
        }));
        Template {
            bytes: TemplateBytes { bytes },
            len,
            checksum,
            room_flags: VXLAN_ENCAP_FLAGS | version_flag,
        }
    }
}

/// DF, and so no identification (RFC 6864 section 4.1): the overlay never relies on the underlay to fragment.
fn outer_v4(src: [u8; 4], dst: [u8; 4]) -> Ipv4Header {
    Ipv4Header {
        version_ihl: Ipv4Header::VERSION_IHL,
        flags_fragment: Be16::new(FLAG_DF),
        ttl: OUTER_TTL,
        protocol: PROTOCOL_UDP,
        src,
        dst,
        ..Ipv4Header::default()
    }
}

/// The flow label stays zero, as the kernel's tunnels leave it: the UDP source port tells flows apart.
fn outer_v6(src: [u8; 16], dst: [u8; 16]) -> Ipv6Header {
    Ipv6Header {
        version_class_flow: Ipv6Header::first_word(0),
        next_header: PROTOCOL_UDP,
        hop_limit: OUTER_TTL,
        src,
        dst,
        ..Ipv6Header::default()
    }
}

/// Bytes of a VXLAN template over IPv4.
const VXLAN_V4_LEN: usize = L3 + VXLAN_V4_OVERHEAD as usize;
/// Bytes of a VXLAN template over IPv6.
const VXLAN_V6_LEN: usize = L3 + VXLAN_V6_OVERHEAD as usize;

/// Bytes of the template of a packet without a tunnel: its own Ethernet header.
const DIRECT_LEN: usize = L3;

/// Packets go to a host on the same link as they are.
pub const DIRECT: Template = Template {
    bytes: TemplateBytes { bytes: [0; TEMPLATE_BYTES] },
    len: DIRECT_LEN,
    checksum: 0,
    room_flags: 0,
};

/// True for a template that puts something in front of the inner packet.
#[inline(always)]
pub const fn is_tunnel(len: usize) -> bool {
    len != DIRECT_LEN
}

/// The inner Ethernet header of a VXLAN template of `len` bytes.
#[inline(always)]
pub fn inner_eth(template: &[u8; TEMPLATE_BYTES], len: usize) -> EthHeader {
    if len == VXLAN_V4_LEN {
        bytemuck::pod_read_unaligned(&template[VXLAN_V4_LEN - EthHeader::LEN..VXLAN_V4_LEN])
    } else {
        bytemuck::pod_read_unaligned(&template[VXLAN_V6_LEN - EthHeader::LEN..VXLAN_V6_LEN])
    }
}

/// Puts the start of the inner IP header behind a template of `len` bytes, so that one call writes both.
#[inline(always)]
pub fn put_inner<T: NoUninit>(headers: &mut [u8; TEMPLATE_BYTES], len: usize, start: &T) {
    const { assert!(VXLAN_V6_LEN + size_of::<T>() <= TEMPLATE_BYTES) };
    let start = bytemuck::bytes_of(start);
    if len == VXLAN_V4_LEN {
        headers[VXLAN_V4_LEN..VXLAN_V4_LEN + start.len()].copy_from_slice(start);
    } else {
        headers[VXLAN_V6_LEN..VXLAN_V6_LEN + start.len()].copy_from_slice(start);
    }
}

/// What differs from packet to packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Bytes behind the inner Ethernet header.
    pub inner_len: u16,
    /// The outer TOS byte, or traffic class.
    pub tos: u8,
    /// The outer UDP source port, host order.
    pub source_port: u16,
}

impl Stamp {
    /// Stamps the fields into a copy of a template of `template_len` bytes with its partial `checksum`.
    /// The caller has made sure that it is a tunnel's, and that the outer length fits 16 bits.
    #[inline(always)]
    pub fn apply(&self, headers: &mut [u8; TEMPLATE_BYTES], template_len: usize, checksum: u32) {
        if template_len == VXLAN_V4_LEN {
            let total = VXLAN_V4_OVERHEAD as u16 + self.inner_len;
            let sum = checksum::finish(checksum + u32::from(self.tos) + u32::from(total));
            headers[L3 + 1] = self.tos;
            headers[L3 + 2..L3 + 4].copy_from_slice(&total.to_be_bytes());
            headers[L3 + 10..L3 + 12].copy_from_slice(&sum.to_be_bytes());
            self.apply_udp::<{ L3 + Ipv4Header::LEN }>(headers, total - Ipv4Header::LEN as u16);
        } else {
            let payload = (VXLAN_V6_OVERHEAD as usize - Ipv6Header::LEN) as u16 + self.inner_len;
            let word = Ipv6Header::first_word(self.tos);
            headers[L3..L3 + 4].copy_from_slice(bytemuck::bytes_of(&word));
            headers[L3 + 4..L3 + 6].copy_from_slice(&payload.to_be_bytes());
            self.apply_udp::<{ L3 + Ipv6Header::LEN }>(headers, payload);
        }
    }

    #[inline(always)]
    fn apply_udp<const UDP: usize>(&self, headers: &mut [u8; TEMPLATE_BYTES], len: u16) {
        headers[UDP..UDP + 2].copy_from_slice(&self.source_port.to_be_bytes());
        headers[UDP + 4..UDP + 6].copy_from_slice(&len.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::parse::{INNER_ETH, INNER_L3, OUTER_UDP, VXLAN};

    fn vxlan(underlay: Underlay, carries: Be16) -> Vxlan {
        Vxlan {
            underlay,
            carries,
            port: 4789,
            vni: Vni::new(0x0001_0203).unwrap(),
            inner_src: Mac([2, 0, 0, 0, 0, 1]),
            inner_dst: Mac([2, 0, 0, 0, 0, 2]),
        }
    }

    #[test]
    fn flags_are_the_proven_ones() {
        let flags = |underlay| vxlan(underlay, ETHERTYPE_IPV4).compile().room_flags;
        assert_eq!(flags(Underlay::V4 { src: [1; 4], dst: [2; 4] }), 0x0e00_0000_0000_0073);
        assert_eq!(flags(Underlay::V6 { src: [1; 16], dst: [2; 16] }), 0x0e00_0000_0000_0075);
        assert_eq!(DECAP_FLAGS, 0x21);
    }

    #[test]
    fn literal_bytes() {
        let underlay = Underlay::V4 { src: [172, 16, 199, 17], dst: [172, 16, 199, 27] };
        let template = vxlan(underlay, ETHERTYPE_IPV4).compile();
        let mut bytes = *template.bytes;
        Stamp { inner_len: 84, tos: 0xb8, source_port: 0xc001 }.apply(
            &mut bytes,
            template.len,
            template.checksum,
        );
        #[rustfmt::skip]
        let expected = [
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0,
            0x45, 0xb8, 0, 134, 0, 0, 0x40, 0, 64, 17, 0x53, 0x61, 172, 16, 199, 17, 172, 16, 199, 27,
            0xc0, 0x01, 0x12, 0xb5, 0, 114, 0, 0,
            8, 0, 0, 0, 1, 2, 3, 0,
            2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0,
        ];
        assert_eq!(template.len, 64);
        assert_eq!(bytemuck::bytes_of(&inner_eth(&template.bytes, 64)), &expected[INNER_ETH..INNER_L3]);
        assert_eq!(bytes[..64], expected);
        assert_eq!(bytes[64..], [0; 32]);
    }

    #[test]
    fn the_inner_header_stands_right_behind() {
        for len in [VXLAN_V4_LEN, VXLAN_V6_LEN] {
            let mut headers = [0; TEMPLATE_BYTES];
            put_inner(&mut headers, len, &[1_u32; 3]);
            assert_eq!(headers[len..len + 12], [1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]);
            assert!(headers[..len].iter().chain(&headers[len + 12..]).all(|byte| *byte == 0));
        }
    }

    #[test]
    fn literal_bytes_over_ipv6() {
        let (mut src, mut dst) = ([0; 16], [0; 16]);
        (src[0], src[1], src[15]) = (0xfd, 0x11, 1);
        (dst[0], dst[1], dst[15]) = (0xfd, 0x11, 2);
        let template = vxlan(Underlay::V6 { src, dst }, ETHERTYPE_IPV6).compile();
        let mut bytes = *template.bytes;
        Stamp { inner_len: 84, tos: 0xb9, source_port: 0xc001 }.apply(
            &mut bytes,
            template.len,
            template.checksum,
        );
        #[rustfmt::skip]
        let expected = [
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x86, 0xdd,
            0x6b, 0x90, 0, 0, 0, 114, 17, 64,
            0xfd, 0x11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
            0xfd, 0x11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2,
            0xc0, 0x01, 0x12, 0xb5, 0, 114, 0, 0,
            8, 0, 0, 0, 1, 2, 3, 0,
            2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x86, 0xdd,
        ];
        assert_eq!((template.len, template.checksum), (84, 0));
        assert_eq!(bytemuck::bytes_of(&inner_eth(&template.bytes, 84)), &expected[70..]);
        assert_eq!(bytes[..84], expected);
        assert_eq!(bytes[84..], [0; 12]);
    }

    proptest! {
        #[test]
        fn stamped_headers_verify(src: [u8; 4], dst: [u8; 4], port: u16, inner_len in 20u16..65_000, tos: u8, source_port: u16) {
            let template = Vxlan { port, ..vxlan(Underlay::V4 { src, dst }, ETHERTYPE_IPV4) }.compile();
            let mut bytes = *template.bytes;
            Stamp { inner_len, tos, source_port }.apply(&mut bytes, template.len, template.checksum);
            let ip: Ipv4Header = bytemuck::pod_read_unaligned(&bytes[L3..OUTER_UDP]);
            let udp: UdpHeader = bytemuck::pod_read_unaligned(&bytes[OUTER_UDP..VXLAN]);
            prop_assert_eq!(checksum::fold(checksum::sum(bytemuck::bytes_of(&ip), 0)), 0xffff);
            prop_assert_eq!(ip.total_len.get(), inner_len + 50);
            prop_assert_eq!(udp.len.get() + 20, ip.total_len.get());
            prop_assert_eq!((ip.src, ip.dst, ip.tos), (src, dst, tos));
            prop_assert_eq!((udp.src_port.get(), udp.dst_port.get(), udp.checksum.get()), (source_port, port, 0));
        }

        #[test]
        fn stamped_headers_over_ipv6(src: [u8; 16], dst: [u8; 16], inner_len in 20u16..65_000, tos: u8, source_port: u16) {
            let template = vxlan(Underlay::V6 { src, dst }, ETHERTYPE_IPV4).compile();
            let mut bytes = *template.bytes;
            Stamp { inner_len, tos, source_port }.apply(&mut bytes, template.len, template.checksum);
            let ip: Ipv6Header = bytemuck::pod_read_unaligned(&bytes[L3..L3 + 40]);
            let udp: UdpHeader = bytemuck::pod_read_unaligned(&bytes[L3 + 40..L3 + 48]);
            prop_assert!(ip.is_sane());
            prop_assert_eq!((ip.src, ip.dst, ip.tos(), ip.version_class_flow.get() << 12), (src, dst, tos, 0));
            prop_assert_eq!((ip.payload_len.get(), udp.len.get()), (inner_len + 30, inner_len + 30));
            prop_assert_eq!((udp.src_port.get(), udp.dst_port.get(), udp.checksum.get()), (source_port, 4789, 0));
        }
    }
}
