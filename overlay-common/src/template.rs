//! Header templates: userspace compiles everything about a tunnel's outer headers that is the same for
//! every packet, the programs copy it and stamp what differs.
//!
//! A template reaches from the outer Ethernet header to the inner IP header. The outer Ethernet header's
//! addresses stay zero: `bpf_redirect_neigh` writes them from the kernel's neighbour entry. The programs know of a
//! template its length and a few flags; which kind of tunnel it is, this file alone knows.

use bytemuck::Pod;

use crate::{
    Be16, Be32, Encap, Mac, Vni, checksum,
    map::{TEMPLATE_BYTES, TemplateBytes, tunnel_flag},
    parse::L3,
    wire::{
        EthHeader, GeneveHeader, GreHeader, IpHeader, Ipv4Header, Ipv6Header, UdpHeader, VxlanHeader,
        eth::{ETHERTYPE_FRAME, ETHERTYPE_IPV4, ETHERTYPE_IPV6},
        gre::{self, PROTOCOL_GRE},
        ipv4::{FLAG_DF, PROTOCOL_IPV4, PROTOCOL_IPV6, PROTOCOL_UDP},
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
    pub(super) const ENCAP_L4_GRE: u64 = 1 << 3;
    pub(super) const ENCAP_L4_UDP: u64 = 1 << 4;
    pub(super) const NO_CSUM_RESET: u64 = 1 << 5;
    pub(super) const ENCAP_L2_ETH: u64 = 1 << 6;
    /// The inner L2 header's length, in the flags' top byte.
    pub(super) const fn encap_l2(len: usize) -> u64 {
        (len as u64) << 56
    }
}

/// Flags of `bpf_skb_adjust_room` that make room for any tunnel: the kernel then knows the packet as a tunnel's and
/// segments it as its own. FIXED_GSO keeps the segment size, so every refusal comes before the packet is changed.
const ENCAP_FLAGS: u64 = room::FIXED_GSO | room::NO_CSUM_RESET;
/// Besides, where there is an inner Ethernet header (kernel >= 5.13).
const FRAME_FLAGS: u64 = room::ENCAP_L2_ETH | room::encap_l2(EthHeader::LEN);

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

/// The MAC addresses of a carried frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Macs {
    /// Our VTEP's.
    pub src: Mac,
    /// The peer's VTEP's, or broadcast where it is not known: a kernel peer
    /// takes that for itself, but does not forward it to its containers.
    pub dst: Mac,
}

/// What stands between the outer IP header and the inner one. Ports are in host order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shell {
    /// UDP, VXLAN, Ethernet.
    Vxlan {
        /// UDP destination port.
        port: u16,
        /// The VNI on the wire.
        vni: Vni,
        /// The inner frame's addresses.
        macs: Macs,
    },
    /// UDP, Geneve without options, Ethernet.
    Geneve {
        /// UDP destination port.
        port: u16,
        /// The VNI on the wire.
        vni: Vni,
        /// The inner frame's addresses.
        macs: Macs,
    },
    /// GRE, Ethernet.
    Gre {
        /// The key, where both ends have agreed on one.
        key: Option<u32>,
        /// The inner frame's addresses.
        macs: Macs,
    },
    /// GRE.
    GreL3 {
        /// The key, where both ends have agreed on one.
        key: Option<u32>,
    },
    /// Nothing.
    Ipip,
}

/// The constants of a tunnel's headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// The outer addresses.
    pub underlay: Underlay,
    /// EtherType of what is carried.
    pub carries: Be16,
    /// What makes it a tunnel of its kind.
    pub shell: Shell,
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
    /// [`tunnel_flag`]s that say what is to be stamped.
    pub flags: u32,
}

/// A template that grows.
struct Draft {
    template: Template,
}

impl Draft {
    fn append<T: Pod>(&mut self, header: &T) {
        let (header, at) = (bytemuck::bytes_of(header), self.template.len);
        self.template.bytes.bytes[at..at + header.len()].copy_from_slice(header);
        self.template.len += header.len();
    }

    fn flag(&mut self, room_flags: u64, flags: u32) {
        self.template.room_flags |= room_flags;
        self.template.flags |= flags;
    }

    fn underlay(&mut self, underlay: Underlay, protocol: u8) {
        match underlay {
            Underlay::V4 { src, dst } => {
                let ip = outer_v4(src, dst, protocol);
                self.append(&EthHeader { ethertype: ETHERTYPE_IPV4, ..EthHeader::default() });
                self.append(&ip);
                self.template.checksum = checksum::sum(bytemuck::bytes_of(&ip), 0);
                self.flag(room::ENCAP_L3_IPV4, 0);
            }
            Underlay::V6 { src, dst } => {
                self.append(&EthHeader { ethertype: ETHERTYPE_IPV6, ..EthHeader::default() });
                self.append(&outer_v6(src, dst, protocol));
                self.flag(room::ENCAP_L3_IPV6, tunnel_flag::OVER_V6);
            }
        }
    }

    /// No UDP checksum: RFC 7348 section 5 asks for none over IPv4, RFC 6935 allows none over IPv6.
    fn udp(&mut self, port: u16) {
        self.append(&UdpHeader { dst_port: Be16::new(port), ..UdpHeader::default() });
        self.flag(room::ENCAP_L4_UDP, tunnel_flag::UDP);
    }

    fn gre(&mut self, key: Option<u32>, protocol: Be16) {
        let flags = Be16::new(if key.is_some() { gre::FLAG_KEY } else { 0 });
        self.append(&GreHeader { flags, protocol });
        if let Some(key) = key {
            self.append(&Be32::new(key));
        }
        self.flag(room::ENCAP_L4_GRE, 0);
    }

    fn frame(&mut self, Macs { src, dst }: Macs, carries: Be16) {
        self.append(&EthHeader { dst, src, ethertype: carries });
        self.flag(FRAME_FLAGS, tunnel_flag::FRAME);
    }
}

impl Headers {
    /// Compiles the template.
    pub fn compile(&self) -> Template {
        let Self { underlay, carries, shell } = *self;
        let mut draft = Draft { template: Template { len: 0, room_flags: ENCAP_FLAGS, ..DIRECT } };
        draft.underlay(underlay, shell.protocol(carries));
        match shell {
            Shell::Vxlan { port, vni, macs } => {
                draft.udp(port);
                draft.append(&VxlanHeader { flags: FLAG_VNI, vni: vni.to_wire(), ..VxlanHeader::default() });
                draft.frame(macs, carries);
            }
            Shell::Geneve { port, vni, macs } => {
                draft.udp(port);
                let (protocol, vni) = (ETHERTYPE_FRAME, vni.to_wire());
                draft.append(&GeneveHeader { protocol, vni, ..GeneveHeader::default() });
                draft.frame(macs, carries);
            }
            Shell::Gre { key, macs } => {
                draft.gre(key, ETHERTYPE_FRAME);
                draft.frame(macs, carries);
            }
            Shell::GreL3 { key } => draft.gre(key, carries),
            Shell::Ipip => {}
        }
        draft.template
    }
}

/// What a tunnel's ends have agreed on, whatever its kind makes use of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// UDP destination port, host order.
    pub port: u16,
    /// The VNI on the wire.
    pub vni: Vni,
    /// The GRE key.
    pub gre_key: Option<u32>,
    /// The inner frame's addresses.
    pub macs: Macs,
}

impl Shell {
    /// The shell of a kind of tunnel; `None` for none.
    pub const fn of(encap: Encap, ends: Ends) -> Option<Self> {
        let Ends { port, vni, gre_key: key, macs } = ends;
        Some(match encap {
            Encap::Vxlan => Self::Vxlan { port, vni, macs },
            Encap::Geneve => Self::Geneve { port, vni, macs },
            Encap::Gre => Self::Gre { key, macs },
            Encap::GreL3 => Self::GreL3 { key },
            Encap::Ipip => Self::Ipip,
            Encap::Direct => return None,
        })
    }

    /// What the outer IP header says that it carries.
    fn protocol(&self, carries: Be16) -> u8 {
        match self {
            Self::Vxlan { .. } | Self::Geneve { .. } => PROTOCOL_UDP,
            Self::Gre { .. } | Self::GreL3 { .. } => PROTOCOL_GRE,
            Self::Ipip if carries == ETHERTYPE_IPV4 => PROTOCOL_IPV4,
            Self::Ipip => PROTOCOL_IPV6,
        }
    }
}

/// DF, and so no identification (RFC 6864 section 4.1): the overlay never relies on the underlay to fragment.
fn outer_v4(src: [u8; 4], dst: [u8; 4], protocol: u8) -> Ipv4Header {
    Ipv4Header {
        version_ihl: Ipv4Header::VERSION_IHL,
        flags_fragment: Be16::new(FLAG_DF),
        ttl: OUTER_TTL,
        protocol,
        src,
        dst,
        ..Ipv4Header::default()
    }
}

/// The flow label stays zero, as the kernel's tunnels leave it: the UDP source port tells flows apart.
fn outer_v6(src: [u8; 16], dst: [u8; 16], next_header: u8) -> Ipv6Header {
    Ipv6Header {
        version_class_flow: Ipv6Header::first_word(0),
        next_header,
        hop_limit: OUTER_TTL,
        src,
        dst,
        ..Ipv6Header::default()
    }
}

/// Bytes of the template of a packet without a tunnel: its own Ethernet header.
const DIRECT_LEN: usize = L3;

/// Packets go to a host on the same link as they are.
pub const DIRECT: Template = Template {
    bytes: TemplateBytes { bytes: [0; TEMPLATE_BYTES] },
    len: DIRECT_LEN,
    checksum: 0,
    room_flags: 0,
    flags: 0,
};

impl Template {
    /// Bytes that it takes from the uplink's MTU: all but the outer Ethernet header.
    pub const fn overhead(&self) -> usize {
        self.len - L3
    }

    /// The headers of one packet.
    #[cfg(any(test, not(target_arch = "bpf")))]
    pub fn stamped(&self, stamp: Stamp) -> [u8; TEMPLATE_BYTES] {
        let mut headers = *self.bytes;
        stamp.apply(&mut headers, self.len, self.flags, self.checksum);
        headers
    }
}

/// True for a template that puts something in front of the inner packet.
#[inline(always)]
pub const fn is_tunnel(len: usize) -> bool {
    len != DIRECT_LEN
}

/// The inner Ethernet header of a template of `len` bytes; `None` for a kind of tunnel that carries none.
#[inline(always)]
pub fn inner_eth(template: &TemplateBytes, len: usize, flags: u32) -> Option<EthHeader> {
    if flags & tunnel_flag::FRAME == 0 {
        return None;
    }
    let words: &[[u8; 2]; TEMPLATE_BYTES / 2] = bytemuck::must_cast_ref(template);
    let start = (len / 2).wrapping_sub(EthHeader::LEN / 2);
    if start > words.len() - EthHeader::LEN / 2 {
        return None;
    }
    let mut header = [[0; 2]; EthHeader::LEN / 2];
    for (to, from) in header.iter_mut().zip(&words[start..]) {
        *to = *from;
    }
    Some(bytemuck::must_cast(header))
}

/// Gives the inner Ethernet header of a template of `len` bytes, which has one, another destination.
#[inline(always)]
pub fn put_inner_dst(headers: &mut TemplateBytes, len: usize, mac: Mac) {
    let words: &mut [u16; TEMPLATE_BYTES / 2] = bytemuck::must_cast_mut(headers);
    let at = (len / 2).wrapping_sub(EthHeader::LEN / 2);
    if at > words.len() - EthHeader::LEN / 2 {
        return;
    }
    for (to, from) in words[at..].iter_mut().zip(mac.0.chunks_exact(2)) {
        *to = u16::from_ne_bytes([from[0], from[1]]);
    }
}

/// The length of VXLAN's and Geneve's template over IPv4: 26 ns are saved where the compiler knows it.
const USUAL_LEN: usize = 64;

/// Puts the start of the inner IP header behind a template of `len` bytes, so that one call writes both. Every template
/// has an even length, and every start; so they are copied by two bytes, as the verifier wants them on the stack.
#[inline(always)]
pub fn put_inner<T: Pod>(headers: &mut TemplateBytes, len: usize, start: &T) {
    const { assert!(size_of::<T>().is_multiple_of(2)) };
    if len == USUAL_LEN {
        headers.bytes[USUAL_LEN..USUAL_LEN + size_of::<T>()].copy_from_slice(bytemuck::bytes_of(start));
        return;
    }
    let words: &mut [u16; TEMPLATE_BYTES / 2] = bytemuck::must_cast_mut(headers);
    let at = len / 2;
    if at > words.len() - size_of::<T>() / 2 {
        return;
    }
    let start: &[u16] = bytemuck::cast_slice(core::slice::from_ref(start));
    for (to, from) in words[at..].iter_mut().zip(start) {
        *to = *from;
    }
}

/// What differs from packet to packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Bytes of the inner IP packet, and of what trails it.
    pub inner_len: u16,
    /// The outer TOS byte, or traffic class.
    pub tos: u8,
    /// The outer UDP source port, host order.
    pub source_port: u16,
}

impl Stamp {
    /// Stamps the fields into a copy of a template of `len` bytes with its `flags` and its partial `checksum`.
    /// The caller has made sure that it is a tunnel's, and that the outer length fits 16 bits.
    #[inline(always)]
    pub fn apply(&self, headers: &mut [u8; TEMPLATE_BYTES], len: usize, flags: u32, checksum: u32) {
        let total = (len - L3) as u16 + self.inner_len;
        if flags & tunnel_flag::OVER_V6 == 0 {
            let sum = checksum::finish(checksum + u32::from(self.tos) + u32::from(total));
            headers[L3 + 1] = self.tos;
            headers[L3 + 2..L3 + 4].copy_from_slice(&total.to_be_bytes());
            headers[L3 + 10..L3 + 12].copy_from_slice(&sum.to_be_bytes());
            if flags & tunnel_flag::UDP != 0 {
                self.apply_udp::<{ L3 + Ipv4Header::LEN }>(headers, total - Ipv4Header::LEN as u16);
            }
        } else {
            let payload = total - Ipv6Header::LEN as u16;
            let word = Ipv6Header::first_word(self.tos);
            headers[L3..L3 + 4].copy_from_slice(bytemuck::bytes_of(&word));
            headers[L3 + 4..L3 + 6].copy_from_slice(&payload.to_be_bytes());
            if flags & tunnel_flag::UDP != 0 {
                self.apply_udp::<{ L3 + Ipv6Header::LEN }>(headers, payload);
            }
        }
    }

    #[inline(always)]
    fn apply_udp<const UDP: usize>(&self, headers: &mut [u8; TEMPLATE_BYTES], len: u16) {
        headers[UDP..UDP + 2].copy_from_slice(&self.source_port.to_be_bytes());
        headers[UDP + 4..UDP + 6].copy_from_slice(&len.to_be_bytes());
    }
}

#[cfg(test)]
mod tests;
