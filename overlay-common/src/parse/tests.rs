use proptest::prelude::*;

use super::*;
use crate::{
    Vni,
    template::{Headers, Macs, Shell, Stamp, Underlay},
};

const VTEP: Mac = Mac([2, 0, 0, 0, 0, 2]);

/// An ICMP echo between containers.
fn echo() -> Vec<u8> {
    let payload = [8_u8, 0, 0xf7, 0xff, 0, 0, 0, 0];
    let mut ip = Ipv4Header {
        version_ihl: Ipv4Header::VERSION_IHL,
        total_len: Be16::new(28),
        ttl: 63,
        protocol: 1,
        src: [172, 17, 0, 2],
        dst: [172, 27, 0, 2],
        ..Ipv4Header::default()
    };
    ip.checksum = Be16::new(ip.compute_checksum());
    [bytemuck::bytes_of(&ip), &payload[..]].concat()
}

/// The same over IPv6.
fn echo_v6() -> Vec<u8> {
    let ip = Ipv6Header {
        version_class_flow: Ipv6Header::first_word(0),
        payload_len: Be16::new(8),
        next_header: 58,
        hop_limit: 63,
        src: [0xfd; 16],
        dst: [0xfc; 16],
    };
    [bytemuck::bytes_of(&ip), &[128_u8, 0, 0, 0, 0, 0, 0, 0][..]].concat()
}

const V4: Underlay = Underlay::V4 { src: [172, 16, 199, 17], dst: [172, 16, 199, 27] };
const V6: Underlay = Underlay::V6 { src: [0x20; 16], dst: [0x21; 16] };

/// A VXLAN packet around `inner`, built by the template that the programs use.
fn carry(underlay: Underlay, carries: Be16, inner: &[u8], inner_dst: Mac) -> Vec<u8> {
    let macs = Macs { src: Mac([2, 0, 0, 0, 0, 1]), dst: inner_dst };
    let shell = Shell::Vxlan { port: 4789, vni: Vni::DEFAULT, macs };
    let template = Headers { underlay, carries, shell }.compile();
    let inner_len = inner.len() as u16;
    let headers = template.stamped(Stamp { inner_len, tos: 0, source_port: 50_000 });
    [&headers[..template.len], inner].concat()
}

fn tunnel_packet(inner_dst: Mac) -> Vec<u8> {
    carry(V4, ETHERTYPE_IPV4, &echo(), inner_dst)
}

fn parse_any<O: IpHeader, const LINK: usize>(packet: &[u8]) -> Option<Result<(VniKey, Inner), DropReason>> {
    let outer =
        outer_udp::<_, O, LINK>(packet, outer_ip::<_, O, LINK>(packet)?).filter(OuterUdp::is_plain)?;
    Some(vxlan(packet, &outer).and_then(|vni| Ok((vni, vxlan_inner(packet, &outer, VTEP)?))))
}

fn parse(packet: &[u8]) -> Option<Result<(VniKey, Ipv4Header), DropReason>> {
    let parsed = parse_any::<Ipv4Header, L3>(packet)?;
    Some(parsed.map(|(vni, inner)| match inner {
        Inner::V4(ip) => (vni, ip),
        Inner::V6(ip) => panic!("{ip:?}"),
    }))
}

#[test]
fn either_version_in_either_version_with_and_without_ethernet() {
    for (carries, inner) in [(ETHERTYPE_IPV4, echo()), (ETHERTYPE_IPV6, echo_v6())] {
        let is_right = |parsed: Option<Result<(VniKey, Inner), DropReason>>| {
            let (vni, ip) = parsed.unwrap().unwrap();
            let bytes = match &ip {
                Inner::V4(ip) => bytemuck::bytes_of(ip),
                Inner::V6(ip) => bytemuck::bytes_of(ip),
            };
            assert_eq!((vni, bytes), (Vni::DEFAULT.key(), &inner[..inner.len() - 8]));
        };
        let (v4, v6) = (carry(V4, carries, &inner, VTEP), carry(V6, carries, &inner, VTEP));
        is_right(parse_any::<Ipv4Header, L3>(&v4));
        is_right(parse_any::<Ipv6Header, L3>(&v6));
        is_right(parse_any::<Ipv4Header, 0>(&v4[L3..]));
        is_right(parse_any::<Ipv6Header, 0>(&v6[L3..]));
        assert_eq!(parse_any::<Ipv6Header, L3>(&v4), None);
        assert_eq!(parse_any::<Ipv4Header, L3>(&v6), None);
        for len in 0..v6.len() {
            let parsed = parse_any::<Ipv6Header, L3>(&v6[..len]);
            match parsed {
                None => assert!(len < VXLAN + 20, "{len}"),
                Some(result) => assert_eq!(result.unwrap_err(), DropReason::OuterMalformed, "{len}"),
            }
        }
    }
}

#[test]
fn a_contradicting_ethertype_is_malformed() {
    let (v4_as_v6, v6_as_v4) =
        (carry(V4, ETHERTYPE_IPV6, &echo(), VTEP), carry(V6, ETHERTYPE_IPV4, &echo_v6(), VTEP));
    assert_eq!(parse_any::<Ipv4Header, L3>(&v4_as_v6), Some(Err(DropReason::InnerMalformed)));
    assert_eq!(parse_any::<Ipv6Header, L3>(&v6_as_v4), Some(Err(DropReason::InnerMalformed)));
}

#[test]
fn lengths_of_ipv6_contradict() {
    let with = |at: usize, bytes: &[u8]| {
        let mut packet = carry(V6, ETHERTYPE_IPV6, &echo_v6(), VTEP);
        packet[at..at + bytes.len()].copy_from_slice(bytes);
        parse_any::<Ipv6Header, L3>(&packet).unwrap().unwrap_err()
    };
    assert_eq!(with(L3 + 4, &[0, 77]), DropReason::OuterMalformed);
    assert_eq!(with(L3 + 4, &[0, 79]), DropReason::OuterMalformed);
    assert_eq!(with(L3 + 40 + 4, &[0, 15]), DropReason::OuterMalformed);
    assert_eq!(with(L3 + 70, &[0x50]), DropReason::InnerMalformed);
    assert_eq!(with(L3 + 74, &[0, 9]), DropReason::InnerMalformed);
}

/// A neighbour message behind these extension headers: kind and length in words of eight bytes.
fn neighbour_message(icmp_type: u8, extensions: &[(u8, u8)]) -> Vec<u8> {
    let mut kinds: Vec<u8> = extensions.iter().map(|(kind, _)| *kind).collect();
    kinds.push(PROTOCOL_ICMPV6);
    let ip = Ipv6Header {
        version_class_flow: Ipv6Header::first_word(0),
        next_header: kinds[0],
        hop_limit: 255,
        src: [1; 16],
        ..Ipv6Header::default()
    };
    let mut packet = vec![0; 12];
    packet.extend([0x86, 0xdd]);
    packet.extend_from_slice(bytemuck::bytes_of(&ip));
    for (n, (_, words)) in extensions.iter().enumerate() {
        let start = packet.len();
        packet.extend([kinds[n + 1], words - 1]);
        packet.resize(start + 8 * usize::from(*words), 0);
    }
    packet.extend([icmp_type, 0, 0, 0, 0, 0, 0, 0]);
    packet.extend([2; 16]);
    packet
}

#[test]
fn nd_claims_are_read() {
    for extensions in [&[][..], &[(60, 1)], &[(0, 1), (43, 3), (60, 2)], &[(60, 1); 7]] {
        let packet = neighbour_message(136, extensions);
        assert_eq!(nd_sender(&packet[..]), Ok(Some([2; 16])), "what is advertised, {extensions:?}");
        for len in 0..packet.len() {
            assert_eq!(nd_sender(&packet[..len]), Ok(None), "cut to {len} bytes");
        }
        let router = neighbour_message(134, extensions);
        assert_eq!(nd_sender(&router[..]), Err(DropReason::GatewayClaimed), "the gateway is the router");
        let asks = neighbour_message(135, extensions);
        assert_eq!(nd_sender(&asks[..]), Ok(Some([1; 16])), "who asks");
        assert_eq!(nd_sender(&neighbour_message(128, extensions)[..]), Ok(None));
        let mut fresh = asks.clone();
        fresh[L3 + 8..L3 + 24].fill(0);
        assert_eq!(nd_sender(&fresh[..]), Ok(None), "who has no address yet");
        let mut routed = packet.clone();
        routed[L3 + 7] = 254;
        assert_eq!(nd_sender(&routed[..]), Ok(None), "no kernel believes it");
    }
    assert_eq!(nd_sender(&neighbour_message(136, &[(44, 1)])[..]), Ok(None), "no kernel believes fragments");
    assert_eq!(nd_sender(&neighbour_message(136, &[(60, 1); 8])[..]), Err(DropReason::ExtensionChain));
}

#[test]
fn a_whole_packet_parses() {
    for dst in [VTEP, Mac::BROADCAST] {
        let (vni, ip) = parse(&tunnel_packet(dst)).unwrap().unwrap();
        assert_eq!(vni, Vni::DEFAULT.key());
        assert_eq!((ip.src, ip.dst), ([172, 17, 0, 2], [172, 27, 0, 2]));
    }
}

#[test]
fn truncation_at_every_byte_is_refused_by_name() {
    let packet = tunnel_packet(VTEP);
    for len in 0..packet.len() {
        match parse(&packet[..len]) {
            // Too short to have a UDP header: nobody's tunnel packet.
            None => assert!(len < VXLAN, "{len}"),
            Some(result) => {
                assert!(len >= VXLAN, "{len}");
                assert_eq!(result.unwrap_err(), DropReason::OuterMalformed, "{len}");
            }
        }
    }
}

#[test]
fn each_inner_fault_has_its_name() {
    let with = |at: usize, bytes: &[u8]| {
        let mut packet = tunnel_packet(VTEP);
        packet[at..at + bytes.len()].copy_from_slice(bytes);
        parse(&packet).unwrap().unwrap_err()
    };
    assert_eq!(with(VXLAN, &[0x00]), DropReason::VxlanFlags);
    assert_eq!(with(VXLAN, &[0x88]), DropReason::VxlanFlags);
    assert_eq!(with(VXLAN + 7, &[1]), DropReason::VxlanFlags);
    assert_eq!(with(INNER_ETH, &[2, 9, 9, 9, 9, 9]), DropReason::InnerDestinationMac);
    assert_eq!(with(INNER_ETH + 12, &[0x08, 0x06]), DropReason::InnerProtocol);
    assert_eq!(with(INNER_L3, &[0x65]), DropReason::InnerMalformed);
    assert_eq!(with(INNER_L3, &[0x44]), DropReason::InnerMalformed);
    assert_eq!(with(INNER_L3 + 2, &[0, 19]), DropReason::InnerMalformed);
    assert_eq!(with(INNER_L3 + 2, &[0, 29]), DropReason::InnerMalformed);
    assert_eq!(with(OUTER_UDP + 4, &[0, 15]), DropReason::OuterMalformed);
    assert_eq!(with(OUTER_UDP + 4, &[0xff, 0xff]), DropReason::OuterMalformed);
}

#[test]
fn fragments_and_options_are_left_to_the_kernel() {
    for (at, byte) in [(L3 + 6, 0x20), (L3 + 7, 0x01), (L3, 0x46), (L3 + 9, 6), (12, 0x86)] {
        let mut packet = tunnel_packet(VTEP);
        packet[at] = byte;
        assert_eq!(parse(&packet), None, "byte {at}");
    }
}

fn v4_frame(packet: &[u8], gso_size: u32) -> Option<Frame<Ipv4Header>> {
    frame(packet, gso_size)
}

#[test]
fn an_aggregate_may_be_longer_than_its_header_can_tell() {
    let mut packet = vec![0; L3 + 70_000];
    packet[12..14].copy_from_slice(&[8, 0]);
    packet[L3] = Ipv4Header::VERSION_IHL;
    assert_eq!(v4_frame(&packet[..], 0), None);
    assert!(v4_frame(&packet[..], 1400).is_some());
    assert_eq!(v4_frame(&packet[..L3 + 19], 1400), None);
}

#[test]
fn ports_of_what_is_left_to_the_kernel() {
    let port = |packet: &[u8]| {
        outer_udp::<_, Ipv4Header, L3>(packet, outer_ip::<_, _, L3>(packet)?)
            .map(|outer| (outer.is_plain(), outer.port().get()))
    };
    let mut first = tunnel_packet(VTEP);
    first[L3 + 6] = 0x20;
    assert_eq!(port(&first), Some((false, 4789)));
    let mut later = first.clone();
    later[L3 + 7] = 1;
    assert_eq!(port(&later), None, "what stands there is no UDP header");
    let mut options = tunnel_packet(VTEP);
    options[L3] = 0x46;
    options.splice(OUTER_UDP..OUTER_UDP, [1, 1, 1, 1]);
    assert_eq!(port(&options), Some((false, 4789)));
    for len in 0..OUTER_UDP + 4 + UdpHeader::LEN {
        assert_eq!(port(&options[..len]), None, "cut to {len} bytes");
    }
    let mut short = tunnel_packet(VTEP);
    short[L3] = 0x44;
    assert_eq!(port(&short), None);
}

#[test]
fn arp_claims_are_read() {
    let mut packet = [0_u8; L3 + ArpPacket::LEN];
    packet[12..14].copy_from_slice(&[8, 6]);
    packet[L3 + 14..L3 + 18].copy_from_slice(&[172, 17, 0, 1]);
    assert_eq!(arp_sender(&packet[..]), Some([172, 17, 0, 1]));
    for len in 0..packet.len() {
        assert_eq!(arp_sender(&packet[..len]), None, "cut to {len} bytes");
    }
    packet[13] = 0;
    assert_eq!(arp_sender(&packet[..]), None);
}

#[test]
fn segments_are_measured_not_aggregates() {
    let mut packet = [0_u8; 14 + 20 + 32];
    packet[12..14].copy_from_slice(&[8, 0]);
    packet[14] = 0x45;
    packet[16..18].copy_from_slice(&52_u16.to_be_bytes());
    packet[23] = PROTOCOL_TCP;
    packet[14 + 20 + 12] = 0x80;
    let frame = v4_frame(&packet[..], 0).unwrap();
    assert_eq!(wire_ip_len(&packet[..], &frame, 0), Some(52));
    assert_eq!(wire_ip_len(&packet[..], &frame, 1398), Some(20 + 32 + 1398));
    // What trails behind the IP packet goes into the tunnel too.
    let trailing = [&packet[..], &[0; 9]].concat();
    assert_eq!(wire_ip_len(&trailing[..], &frame, 0), Some(52 + 9));
    packet[23] = PROTOCOL_UDP;
    let frame = v4_frame(&packet[..], 0).unwrap();
    assert_eq!(wire_ip_len(&packet[..], &frame, 1200), Some(20 + 8 + 1200));
    packet[23] = 132;
    let frame = v4_frame(&packet[..], 0).unwrap();
    assert_eq!(wire_ip_len(&packet[..], &frame, 1200), None);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(packet in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&packet);
        if let Some(frame) = v4_frame(&packet[..], 0) {
            let _ = wire_ip_len(&packet[..], &frame, 1000);
        }
    }

    /// Whatever one corrupted byte does, an accepted inner packet lies inside the datagram.
    #[test]
    fn accepted_lengths_are_covered(at in 0usize..92, value: u8) {
        let mut packet = tunnel_packet(VTEP);
        packet[at] = value;
        if let Some(Ok((_, ip))) = parse(&packet) {
            prop_assert!(INNER_L3 + ip.total_len.get() as usize <= packet.len());
        }
    }
}
