//! Header templates: userspace compiles everything about a tunnel's outer headers that is the same for
//! every packet, the programs copy it and stamp what differs.
//!
//! A template reaches from the outer Ethernet header to the inner one. The outer Ethernet header's
//! addresses stay zero: `bpf_redirect_neigh` writes them from the kernel's neighbour entry.

use crate::{
    Be16, Mac, Vni, checksum,
    map::TEMPLATE_BYTES,
    parse::{INNER_ETH, INNER_L3, L3, OUTER_UDP, VXLAN},
    wire::{
        EthHeader, Ipv4Header, UdpHeader, VxlanHeader,
        eth::ETHERTYPE_IPV4,
        ipv4::{FLAG_DF, PROTOCOL_UDP},
        vxlan::FLAG_VNI,
    },
};

/// TTL of the outer header: the underlay's own hops, as the kernel's tunnels send it.
pub const OUTER_TTL: u8 = 64;

/// `BPF_F_ADJ_ROOM_*` flags (`include/uapi/linux/bpf.h`).
mod room {
    pub(super) const FIXED_GSO: u64 = 1 << 0;
    pub(super) const ENCAP_L3_IPV4: u64 = 1 << 1;
    pub(super) const ENCAP_L4_UDP: u64 = 1 << 4;
    pub(super) const NO_CSUM_RESET: u64 = 1 << 5;
    pub(super) const ENCAP_L2_ETH: u64 = 1 << 6;
    /// The inner L2 header's length, in the flags' top byte.
    pub(super) const fn encap_l2(len: usize) -> u64 {
        (len as u64) << 56
    }
}

/// Flags of `bpf_skb_adjust_room` that make room for VXLAN over IPv4: the kernel then knows the packet as a
/// UDP tunnel with an inner Ethernet header (>= 5.13) and segments it as its own. FIXED_GSO keeps the
/// segment size, so every refusal comes before the packet is changed.
pub const VXLAN_V4_ENCAP_FLAGS: u64 = room::FIXED_GSO
    | room::ENCAP_L3_IPV4
    | room::ENCAP_L4_UDP
    | room::NO_CSUM_RESET
    | room::ENCAP_L2_ETH
    | room::encap_l2(EthHeader::LEN);

/// Flags of `bpf_skb_adjust_room` that take the outer headers away again.
pub const DECAP_FLAGS: u64 = room::FIXED_GSO | room::NO_CSUM_RESET;

/// The constants of a VXLAN tunnel over IPv4. Addresses in network order, the port in host order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VxlanV4 {
    /// Our underlay address.
    pub src: [u8; 4],
    /// The peer's underlay address.
    pub dst: [u8; 4],
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
    pub bytes: [u8; TEMPLATE_BYTES],
    /// Bytes in use.
    pub len: usize,
    /// Unfolded checksum of the outer IPv4 header without TOS and total length.
    pub checksum: u32,
}

impl VxlanV4 {
    /// Bytes of the template.
    pub const LEN: usize = INNER_L3;

    /// Compiles the template.
    pub fn compile(&self) -> Template {
        let ip = Ipv4Header {
            version_ihl: Ipv4Header::VERSION_IHL,
            // DF, and so no identification (RFC 6864 section 4.1): the overlay never relies on the underlay
            // to fragment.
            flags_fragment: Be16::new(FLAG_DF),
            ttl: OUTER_TTL,
            protocol: PROTOCOL_UDP,
            src: self.src,
            dst: self.dst,
            ..Ipv4Header::default()
        };
        let udp = UdpHeader { dst_port: Be16::new(self.port), ..UdpHeader::default() };
        let vxlan = VxlanHeader { flags: FLAG_VNI, vni: self.vni.to_wire(), ..VxlanHeader::default() };
        let outer = EthHeader { ethertype: ETHERTYPE_IPV4, ..EthHeader::default() };
        let inner = EthHeader { dst: self.inner_dst, src: self.inner_src, ethertype: ETHERTYPE_IPV4 };
        let mut bytes = [0; TEMPLATE_BYTES];
        bytes[..L3].copy_from_slice(bytemuck::bytes_of(&outer));
        bytes[L3..OUTER_UDP].copy_from_slice(bytemuck::bytes_of(&ip));
        bytes[OUTER_UDP..VXLAN].copy_from_slice(bytemuck::bytes_of(&udp));
        bytes[VXLAN..INNER_ETH].copy_from_slice(bytemuck::bytes_of(&vxlan));
        bytes[INNER_ETH..INNER_L3].copy_from_slice(bytemuck::bytes_of(&inner));
        Template { bytes, len: Self::LEN, checksum: checksum::sum(bytemuck::bytes_of(&ip), 0) }
    }
}

/// The inner Ethernet header of a VXLAN template.
#[inline(always)]
pub fn inner_eth(template: &[u8; TEMPLATE_BYTES]) -> EthHeader {
    bytemuck::pod_read_unaligned(&template[INNER_ETH..INNER_L3])
}

/// What differs from packet to packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Bytes behind the inner Ethernet header.
    pub inner_len: u16,
    /// The outer TOS byte.
    pub tos: u8,
    /// The outer UDP source port, host order.
    pub source_port: u16,
}

impl Stamp {
    /// Stamps the fields into a copy of a template of `template_len` bytes with its partial `checksum`.
    /// The caller has made sure that the outer length fits 16 bits.
    #[inline(always)]
    pub fn apply(&self, headers: &mut [u8; TEMPLATE_BYTES], template_len: usize, checksum: u32) {
        let total = (template_len - L3) as u16 + self.inner_len;
        let udp = total - Ipv4Header::LEN as u16;
        let sum = checksum::finish(checksum + u32::from(self.tos) + u32::from(total));
        headers[L3 + 1] = self.tos;
        [headers[L3 + 2], headers[L3 + 3]] = total.to_be_bytes();
        [headers[L3 + 10], headers[L3 + 11]] = sum.to_be_bytes();
        [headers[OUTER_UDP], headers[OUTER_UDP + 1]] = self.source_port.to_be_bytes();
        [headers[OUTER_UDP + 4], headers[OUTER_UDP + 5]] = udp.to_be_bytes();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn flags_are_the_proven_ones() {
        assert_eq!(VXLAN_V4_ENCAP_FLAGS, 0x0e00_0000_0000_0073);
        assert_eq!(DECAP_FLAGS, 0x21);
    }

    #[test]
    fn literal_bytes() {
        let template = VxlanV4 {
            src: [172, 16, 199, 17],
            dst: [172, 16, 199, 27],
            port: 4789,
            vni: Vni::new(0x0001_0203).unwrap(),
            inner_src: Mac([2, 0, 0, 0, 0, 1]),
            inner_dst: Mac([2, 0, 0, 0, 0, 2]),
        }
        .compile();
        let mut bytes = template.bytes;
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
        assert_eq!(bytemuck::bytes_of(&inner_eth(&template.bytes)), &expected[50..64]);
        assert_eq!(bytes[..64], expected);
        assert_eq!(bytes[64..], [0; 32]);
    }

    proptest! {
        #[test]
        fn stamped_headers_verify(src: [u8; 4], dst: [u8; 4], port: u16, inner_len in 20u16..65_000, tos: u8, source_port: u16) {
            let tunnel = VxlanV4 { src, dst, port, vni: Vni::DEFAULT, inner_src: Mac::BROADCAST, inner_dst: Mac::BROADCAST };
            let template = tunnel.compile();
            let mut bytes = template.bytes;
            Stamp { inner_len, tos, source_port }.apply(&mut bytes, template.len, template.checksum);
            let ip: Ipv4Header = bytemuck::pod_read_unaligned(&bytes[L3..OUTER_UDP]);
            let udp: UdpHeader = bytemuck::pod_read_unaligned(&bytes[OUTER_UDP..VXLAN]);
            prop_assert_eq!(checksum::fold(checksum::sum(bytemuck::bytes_of(&ip), 0)), 0xffff);
            prop_assert_eq!(ip.total_len.get(), inner_len + 50);
            prop_assert_eq!(udp.len.get() + 20, ip.total_len.get());
            prop_assert_eq!((ip.src, ip.dst, ip.tos), (src, dst, tos));
            prop_assert_eq!((udp.src_port.get(), udp.dst_port.get(), udp.checksum.get()), (source_port, port, 0));
        }
    }
}
