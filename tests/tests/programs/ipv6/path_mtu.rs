//! A router's word that a tunnel packet over IPv6 was too large for it (RFC 8201): noted, told, and passed on.

use overlay_common::{addr::MapIp, map::program::UPLINK_INGRESS};

use super::{
    packet::{Addr6, ICMPV6, Ipv6, addr},
    world::{B6, OF_B, UNDERLAY6, fill},
};
use crate::{
    bed::{Bed, with_bed},
    packet::{IPV6, UDP, eth, pattern, udp},
    skb::Context,
    world::{PORT_NUMBER, UPLINK_MAC, dev},
};

const ROUTER: Addr6 = addr([0xfd00, 0x10, 0, 0, 0, 0, 0, 0xff]);

/// What a router says of a tunnel packet that was `len` bytes long.
fn too_big(kind: u8, mtu: u32, src: Addr6, dst: Addr6, port: u16, len: u16) -> Vec<u8> {
    let quoted = Ipv6 {
        next_header: UDP,
        payload_len: Some(len - 40),
        payload: udp(50_000, port, &pattern(64)),
        ..Ipv6::udp(src, dst)
    };
    let message = [&[kind, 0, 0, 0], &mtu.to_be_bytes()[..], &quoted.bytes()].concat();
    let ip = Ipv6 { next_header: ICMPV6, payload: message, ..Ipv6::udp(ROUTER, UNDERLAY6) };
    eth(UPLINK_MAC, [0x02, 0, 0, 0, 0, 0x20], IPV6, &ip.bytes())
}

/// The path MTU to B after a message, and whether the daemon was told.
fn heard(bed: &mut Bed, packet: &[u8]) -> (Option<u32>, bool) {
    bed.reset();
    fill(&mut bed.maps).unwrap();
    let ran = bed.run(UPLINK_INGRESS, Context { ifindex: dev::UPLINK, ..Context::default() }, packet);
    assert_eq!((ran.verdict, ran.packet.as_slice()), (-1, packet), "the kernel gets it in any case");
    let entries = bed.maps.path_mtus().unwrap();
    assert!(entries.iter().all(|(ip, _)| *ip == MapIp::new(B6)), "{entries:?}");
    (entries.first().map(|(_, entry)| entry.mtu), !bed.events().is_empty())
}

#[test]
fn a_router_is_believed_about_packets_of_ours() {
    with_bed(|bed| {
        let ours = |mtu| too_big(2, mtu, UNDERLAY6, B6, PORT_NUMBER, 1500);
        assert_eq!(heard(bed, &ours(1400)), (Some(1400), true));
        assert_eq!(heard(bed, &ours(600)), (Some(1280), true), "no link of IPv6 carries less");
        for (name, packet) in [
            ("it would have fitted", ours(1500)),
            ("another message", too_big(1, 1400, UNDERLAY6, B6, PORT_NUMBER, 1500)),
            ("not our packet", too_big(2, 1400, ROUTER, B6, PORT_NUMBER, 1500)),
            ("not to a peer", too_big(2, 1400, UNDERLAY6, OF_B, PORT_NUMBER, 1500)),
            ("not a tunnel's", too_big(2, 1400, UNDERLAY6, B6, 53, 1500)),
        ] {
            assert_eq!(heard(bed, &packet), (None, false), "{name}");
        }
        let whole = ours(1400);
        for len in 54..14 + 40 + 8 + 40 + 8 {
            assert_eq!(heard(bed, &whole[..len]), (None, false), "cut to {len} bytes");
        }
    });
}
