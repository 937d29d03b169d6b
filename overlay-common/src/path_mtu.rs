//! What routers of the underlay say about tunnel packets that were too large for them (RFC 1191).

use crate::{
    Be16,
    flow::SOURCE_PORTS,
    map::MIN_PATH_MTU,
    packet::Packet,
    parse::OUTER_UDP,
    wire::{
        FragNeededHeader, Ipv4Header, UdpHeader,
        icmp::{FRAGMENTATION_NEEDED, UNREACHABLE},
        ipv4::{FLAG_DF, PROTOCOL_ICMP, PROTOCOL_UDP},
    },
};

/// Offset of the ICMP header, behind an IP header without options.
const ICMP: usize = OUTER_UDP;
/// Offset of the quoted packet's IP header.
const QUOTED_IP: usize = ICMP + FragNeededHeader::LEN;
/// Offset of the quoted packet's UDP header, of which every router quotes all 8 bytes (RFC 792).
const QUOTED_UDP: usize = QUOTED_IP + Ipv4Header::LEN;

/// Bytes of such a message up to what is looked at.
pub const LEN: usize = QUOTED_UDP + UdpHeader::LEN;

/// A router could not forward a tunnel packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragNeeded {
    /// The outer destination of what was too large, network order.
    pub peer: [u8; 4],
    /// Its UDP destination port.
    pub port: Be16,
    /// The largest outer packet that the path takes, bytes; never less than [`MIN_PATH_MTU`].
    pub mtu: u32,
}

/// Reads a "fragmentation needed" about a packet that may be a tunnel packet of ours: UDP from `ours` with DF and
/// a source port that tunnels use, larger than the MTU that it did not fit. Whether the destination is a
/// peer and the port a tunnel's is left to the caller. The ICMP checksum is not verified: the values are bounded,
/// and Ethernet has its own.
#[inline(always)]
pub fn frag_needed<P: Packet + ?Sized>(packet: &P, ip: &Ipv4Header, ours: [u8; 4]) -> Option<FragNeeded> {
    if ip.version_ihl != Ipv4Header::VERSION_IHL || ip.protocol != PROTOCOL_ICMP || ip.is_fragment() {
        return None;
    }
    let icmp: FragNeededHeader = packet.read(ICMP)?;
    if icmp.icmp_type != UNREACHABLE || icmp.code != FRAGMENTATION_NEEDED {
        return None;
    }
    let quoted: Ipv4Header = packet.read(QUOTED_IP)?;
    let udp: UdpHeader = packet.read(QUOTED_UDP)?;
    let ours = quoted.version_ihl == Ipv4Header::VERSION_IHL
        && quoted.protocol == PROTOCOL_UDP
        && quoted.src == ours
        && quoted.flags_fragment.get() == FLAG_DF
        && udp.src_port.get() >= *SOURCE_PORTS.start();
    if !ours || icmp.mtu.get() >= quoted.total_len.get() {
        return None;
    }
    let mtu = u32::from(icmp.mtu.get());
    let mtu = if mtu < MIN_PATH_MTU { MIN_PATH_MTU } else { mtu };
    Some(FragNeeded { peer: quoted.dst, port: udp.dst_port, mtu })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{parse::L3, wire::EthHeader};

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

    fn read(message: &Message) -> Option<FragNeeded> {
        let ip = Ipv4Header { version_ihl: 0x45, protocol: PROTOCOL_ICMP, ..Ipv4Header::default() };
        let mut packet = vec![0; EthHeader::LEN];
        packet.extend_from_slice(bytemuck::bytes_of(&ip));
        packet.extend_from_slice(bytemuck::bytes_of(&message.icmp));
        packet.extend_from_slice(bytemuck::bytes_of(&message.quoted));
        packet.extend_from_slice(bytemuck::bytes_of(&message.udp));
        assert_eq!((packet.len(), L3), (LEN, EthHeader::LEN));
        for len in 0..LEN {
            assert_eq!(frag_needed(&packet[..len], &ip, OURS), None, "cut to {len} bytes");
        }
        frag_needed(packet.as_slice(), &ip, OURS)
    }

    #[test]
    fn a_router_tells_its_mtu() {
        let told = FragNeeded { peer: PEER, port: Be16::new(4789), mtu: 1400 };
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

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let ip = Ipv4Header { version_ihl: 0x45, protocol: PROTOCOL_ICMP, ..Ipv4Header::default() };
            let _ = frag_needed(bytes.as_slice(), &ip, OURS);
        }
    }
}
