//! What routers of the underlay say about tunnel packets that were too large for them (RFC 1191, RFC 8201).

use crate::{
    Be16,
    addr::MapIp,
    flow::SOURCE_PORTS,
    map::{MIN_PATH_MTU, MIN_PATH_MTU_V6},
    packet::Packet,
    tunnel,
    wire::{
        FragNeededHeader, IpHeader, Ipv4Header, Ipv6Header, TooBigHeader, UdpHeader,
        icmp::{FRAGMENTATION_NEEDED, PACKET_TOO_BIG, UNREACHABLE},
        ipv4::{FLAG_DF, PROTOCOL_UDP},
    },
};

/// A router could not forward a tunnel packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooBig {
    /// The outer destination of what was too large.
    pub peer: MapIp,
    /// Its UDP destination port; `None` for a tunnel without UDP.
    pub port: Option<Be16>,
    /// The largest outer packet that the path takes, bytes; never less than the version's least.
    pub mtu: u32,
}

/// An IP version whose routers tell what is too large for them.
pub trait PathMtuIp: IpHeader {
    /// The version's least path MTU that is believed, bytes.
    const LEAST: u32;

    /// The MTU that an ICMP message at `at` tells; `None` for every other message.
    fn told_mtu<P: Packet + ?Sized>(packet: &P, at: usize) -> Option<u32>;

    /// True for the header of a packet that routers must not cut up.
    fn is_whole(&self) -> bool;
}

impl PathMtuIp for Ipv4Header {
    const LEAST: u32 = MIN_PATH_MTU;

    #[inline(always)]
    fn told_mtu<P: Packet + ?Sized>(packet: &P, at: usize) -> Option<u32> {
        let icmp: FragNeededHeader = packet.read(at)?;
        let told = icmp.icmp_type == UNREACHABLE && icmp.code == FRAGMENTATION_NEEDED;
        told.then_some(u32::from(icmp.mtu.get()))
    }

    #[inline(always)]
    fn is_whole(&self) -> bool {
        self.version_ihl == Self::VERSION_IHL && self.flags_fragment.get() == FLAG_DF
    }
}

impl PathMtuIp for Ipv6Header {
    const LEAST: u32 = MIN_PATH_MTU_V6;

    #[inline(always)]
    fn told_mtu<P: Packet + ?Sized>(packet: &P, at: usize) -> Option<u32> {
        let icmp: TooBigHeader = packet.read(at)?;
        (icmp.icmp_type == PACKET_TOO_BIG).then_some(icmp.mtu.get())
    }

    #[inline(always)]
    fn is_whole(&self) -> bool {
        self.is_sane()
    }
}

/// Bytes of an ICMP header in front of the packet that it quotes, the same in both versions.
const ICMP_LEN: usize = FragNeededHeader::LEN;
const _: () = assert!(TooBigHeader::LEN == ICMP_LEN);

/// Bytes of such a message, behind `link` bytes of link-layer header, up to what is looked at: the quoted packet's UDP
/// header, of which every router quotes all 8 bytes (RFC 792).
#[inline(always)]
pub const fn len<O: IpHeader>(link: usize) -> usize {
    link + 2 * O::LEN + ICMP_LEN + UdpHeader::LEN
}

/// Reads a router's word about a packet that may be a tunnel packet of ours: from `ours`, never to be cut up, larger than
/// the MTU that it did not fit, and UDP with a source port that tunnels use, GRE, or IP in IP. Whether the destination is
/// a peer and the port a tunnel's is left to the caller. The ICMP checksum is not verified: the values are bounded,
/// and Ethernet has its own.
#[inline(always)]
pub fn too_big<P: Packet + ?Sized, O: PathMtuIp, const LINK: usize>(
    packet: &P,
    ip: &O,
    ours: O::Addr,
) -> Option<TooBig> {
    if !ip.is_plain() || ip.protocol() != O::ICMP {
        return None;
    }
    let mtu = O::told_mtu(packet, LINK + O::LEN)?;
    let quoted: O = packet.read(LINK + O::LEN + ICMP_LEN)?;
    let udp: UdpHeader = packet.read(LINK + 2 * O::LEN + ICMP_LEN)?;
    if !quoted.is_whole() || quoted.src() != ours || mtu as usize >= quoted.packet_len() {
        return None;
    }
    let port = match quoted.protocol() {
        PROTOCOL_UDP if udp.src_port.get() >= *SOURCE_PORTS.start() => Some(udp.dst_port),
        protocol if tunnel::is_protocol(protocol) => None,
        _ => return None,
    };
    let mtu = if mtu < O::LEAST { O::LEAST } else { mtu };
    Some(TooBig { peer: O::map_ip(quoted.dst()), port, mtu })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        parse::L3,
        wire::{EthHeader, ipv4::PROTOCOL_ICMP},
    };

    const LEN: usize = len::<Ipv4Header>(L3);

    const OURS: [u8; 4] = [192, 0, 2, 1];
    const PEER: [u8; 4] = [192, 0, 2, 2];

    struct Message {
        icmp: FragNeededHeader,
        quoted: Ipv4Header,
        udp: UdpHeader,
    }

    fn message() -> Message {
        Message {
            icmp: FragNeededHeader { icmp_type: 3, code: 4, mtu: Be16::new(1400), ..Default::default() },
            quoted: Ipv4Header {
                version_ihl: 0x45,
                total_len: Be16::new(1500),
                flags_fragment: Be16::new(FLAG_DF),
                protocol: PROTOCOL_UDP,
                src: OURS,
                dst: PEER,
                ..Ipv4Header::default()
            },
            udp: UdpHeader { src_port: Be16::new(50_000), dst_port: Be16::new(4789), ..Default::default() },
        }
    }

    fn read(message: &Message) -> Option<TooBig> {
        let ip = Ipv4Header { version_ihl: 0x45, protocol: PROTOCOL_ICMP, ..Ipv4Header::default() };
        let mut packet = vec![0; EthHeader::LEN];
        packet.extend_from_slice(bytemuck::bytes_of(&ip));
        packet.extend_from_slice(bytemuck::bytes_of(&message.icmp));
        packet.extend_from_slice(bytemuck::bytes_of(&message.quoted));
        packet.extend_from_slice(bytemuck::bytes_of(&message.udp));
        assert_eq!((packet.len(), L3), (LEN, EthHeader::LEN));
        for len in 0..LEN {
            assert_eq!(too_big::<_, _, L3>(&packet[..len], &ip, OURS), None, "cut to {len} bytes");
        }
        too_big::<_, _, L3>(packet.as_slice(), &ip, OURS)
    }

    #[test]
    fn a_router_tells_its_mtu() {
        let told = TooBig { peer: MapIp::v4(PEER), port: Some(Be16::new(4789)), mtu: 1400 };
        assert_eq!(read(&message()), Some(told));
    }

    #[test]
    fn small_mtus_are_not_believed() {
        for mtu in [0, 68, 551] {
            let mut message = message();
            message.icmp.mtu = Be16::new(mtu);
            assert_eq!(read(&message).unwrap().mtu, MIN_PATH_MTU);
        }
    }

    #[test]
    fn what_we_did_not_send() {
        let changes: [fn(&mut Message); 9] = [
            |m| m.icmp.icmp_type = 11,
            |m| m.icmp.code = 3,
            |m| m.icmp.mtu = Be16::new(1500),
            |m| m.quoted.version_ihl = 0x46,
            |m| m.quoted.protocol = 6,
            |m| m.quoted.src = PEER,
            |m| m.quoted.flags_fragment = Be16::new(0),
            |m| m.quoted.total_len = Be16::new(1400),
            |m| m.udp.src_port = Be16::new(49_151),
        ];
        for (n, change) in changes.iter().enumerate() {
            let mut message = message();
            change(&mut message);
            assert_eq!(read(&message), None, "change {n}");
        }
    }

    #[test]
    fn a_router_tells_its_mtu_over_ipv6() {
        let (ours, peer) = ([0x20; 16], [0x21; 16]);
        let ip = Ipv6Header {
            version_class_flow: Ipv6Header::first_word(0),
            next_header: 58,
            ..Ipv6Header::default()
        };
        let quoted = Ipv6Header { payload_len: Be16::new(1460), next_header: 17, src: ours, dst: peer, ..ip };
        let udp = UdpHeader { src_port: Be16::new(50_000), dst_port: Be16::new(4789), ..Default::default() };
        let told = |mtu: u32, quoted: Ipv6Header| {
            let icmp = TooBigHeader { icmp_type: 2, mtu: crate::Be32::new(mtu), ..Default::default() };
            let headers = [
                bytemuck::bytes_of(&ip),
                bytemuck::bytes_of(&icmp),
                bytemuck::bytes_of(&quoted),
                bytemuck::bytes_of(&udp),
            ];
            let packet = headers.concat();
            assert_eq!(packet.len(), len::<Ipv6Header>(0));
            for len in 0..packet.len() {
                assert_eq!(too_big::<_, _, 0>(&packet[..len], &ip, ours), None, "cut to {len} bytes");
            }
            too_big::<_, _, 0>(packet.as_slice(), &ip, ours)
        };
        let word = |mtu| Some(TooBig { peer: MapIp::new(peer), port: Some(Be16::new(4789)), mtu });
        assert_eq!(told(1400, quoted), word(1400));
        assert_eq!(told(576, quoted), word(1280), "no link of IPv6 carries less");
        assert_eq!(told(1500, quoted), None, "it would have fitted");
        assert_eq!(told(1400, Ipv6Header { src: peer, ..quoted }), None);
        assert_eq!(told(1400, Ipv6Header { next_header: 44, ..quoted }), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let ip = Ipv4Header { version_ihl: 0x45, protocol: PROTOCOL_ICMP, ..Ipv4Header::default() };
            let _ = too_big::<_, _, L3>(bytes.as_slice(), &ip, OURS);
        }
    }
}
