use proptest::prelude::*;

use super::*;
use crate::parse::{INNER_ETH, INNER_L3, OUTER_UDP, VXLAN};

const MACS: Macs = Macs { src: Mac([2, 0, 0, 0, 0, 1]), dst: Mac([2, 0, 0, 0, 0, 2]) };
const V4: Underlay = Underlay::V4 { src: [172, 16, 199, 17], dst: [172, 16, 199, 27] };
const V6: Underlay = Underlay::V6 {
    src: [0xfd, 0x11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    dst: [0xfd, 0x11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2],
};

fn vni() -> Vni {
    Vni::new(0x0001_0203).unwrap()
}

fn vxlan(port: u16) -> Shell {
    Shell::Vxlan { port, vni: vni(), macs: MACS }
}

fn compile(underlay: Underlay, carries: Be16, shell: Shell) -> Template {
    Headers { underlay, carries, shell }.compile()
}

#[test]
fn flags_are_the_proven_ones() {
    let flags = |underlay, shell| compile(underlay, ETHERTYPE_IPV4, shell).room_flags;
    let geneve = Shell::Geneve { port: 6081, vni: vni(), macs: MACS };
    let gre = Shell::Gre { key: None, macs: MACS };
    assert_eq!(flags(V4, vxlan(4789)), 0x0e00_0000_0000_0073);
    assert_eq!(flags(V6, vxlan(4789)), 0x0e00_0000_0000_0075);
    assert_eq!(flags(V4, geneve), 0x0e00_0000_0000_0073);
    assert_eq!(flags(V4, gre), 0x0e00_0000_0000_006b);
    assert_eq!(flags(V4, Shell::GreL3 { key: Some(1) }), 0x2b);
    assert_eq!(flags(V4, Shell::Ipip), 0x23);
    assert_eq!(flags(V6, Shell::Ipip), 0x25);
    assert_eq!(DECAP_FLAGS, 0x21);
}

#[test]
fn literal_bytes() {
    let template = compile(V4, ETHERTYPE_IPV4, vxlan(4789));
    let bytes = template.stamped(Stamp { inner_len: 84, tos: 0xb8, source_port: 0xc001 });
    #[rustfmt::skip]
    let expected = [
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0,
        0x45, 0xb8, 0, 134, 0, 0, 0x40, 0, 64, 17, 0x53, 0x61, 172, 16, 199, 17, 172, 16, 199, 27,
        0xc0, 0x01, 0x12, 0xb5, 0, 114, 0, 0,
        8, 0, 0, 0, 1, 2, 3, 0,
        2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0,
    ];
    assert_eq!(template.len, 64);
    let inner = inner_eth(&template.bytes, 64, template.flags).unwrap();
    assert_eq!(bytemuck::bytes_of(&inner), &expected[INNER_ETH..INNER_L3]);
    assert_eq!(bytes[..64], expected);
    assert_eq!(bytes[64..], [0; 32]);
}

#[test]
fn literal_bytes_over_ipv6() {
    let template = compile(V6, ETHERTYPE_IPV6, vxlan(4789));
    let bytes = template.stamped(Stamp { inner_len: 84, tos: 0xb9, source_port: 0xc001 });
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
    let inner = inner_eth(&template.bytes, 84, template.flags).unwrap();
    assert_eq!(bytemuck::bytes_of(&inner), &expected[70..]);
    assert_eq!(bytes[..84], expected);
    assert_eq!(bytes[84..], [0; 12]);
}

/// What stands behind the outer IP header, and which protocol that header names.
#[test]
fn literal_shells() {
    const ETH: [u8; 14] = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    let macs = MACS;
    let table: [(Shell, u8, &[&[u8]]); 6] = [
        (
            Shell::Geneve { port: 6081, vni: vni(), macs },
            17,
            &[&[0xc0, 1, 0x17, 0xc1, 0, 114, 0, 0], &[0, 0, 0x65, 0x58, 1, 2, 3, 0], &ETH],
        ),
        (Shell::Gre { key: None, macs }, 47, &[&[0, 0, 0x65, 0x58], &ETH]),
        (Shell::Gre { key: Some(0xab_cdef), macs }, 47, &[&[0x20, 0, 0x65, 0x58, 0, 0xab, 0xcd, 0xef], &ETH]),
        (Shell::GreL3 { key: None }, 47, &[&[0, 0, 8, 0]]),
        (Shell::GreL3 { key: Some(7) }, 47, &[&[0x20, 0, 8, 0, 0, 0, 0, 7]]),
        (Shell::Ipip, 4, &[]),
    ];
    for (shell, protocol, rest) in table {
        for (underlay, l4, at) in [(V4, L3 + 20, L3 + 9), (V6, L3 + 40, L3 + 6)] {
            let template = compile(underlay, ETHERTYPE_IPV4, shell);
            let bytes = template.stamped(Stamp { inner_len: 84, tos: 0, source_port: 0xc001 });
            assert_eq!(bytes[at], protocol, "{shell:?}");
            assert_eq!(bytes[l4..template.len], rest.concat(), "{shell:?}");
            assert!(bytes[template.len..].iter().all(|byte| *byte == 0));
            let inner = inner_eth(&template.bytes, template.len, template.flags);
            assert_eq!(inner.is_some(), rest.last() == Some(&&ETH[..]), "{shell:?}");
            assert!(inner.is_none_or(|inner| bytemuck::bytes_of(&inner) == ETH));
        }
    }
    assert_eq!(compile(V6, ETHERTYPE_IPV6, Shell::Ipip).bytes[L3 + 6], 41);
    assert_eq!(compile(V4, ETHERTYPE_IPV6, Shell::GreL3 { key: None }).bytes[36..38], [0x86, 0xdd]);
}

#[test]
fn the_inner_destination_is_put_where_it_belongs() {
    for shell in [vxlan(4789), Shell::Gre { key: None, macs: MACS }, Shell::Gre { key: Some(1), macs: MACS }]
    {
        let template = compile(V6, ETHERTYPE_IPV4, shell);
        let mut headers = template.bytes;
        put_inner_dst(&mut headers, template.len, Mac([8, 9, 10, 11, 12, 13]));
        let inner = inner_eth(&headers, template.len, template.flags).unwrap();
        assert_eq!(
            inner,
            EthHeader { dst: Mac([8, 9, 10, 11, 12, 13]), src: MACS.src, ethertype: ETHERTYPE_IPV4 }
        );
        let at = template.len - EthHeader::LEN;
        assert_eq!((&headers[..at], &headers[at + 6..]), (&template.bytes[..at], &template.bytes[at + 6..]));
    }
}

#[test]
fn the_inner_header_stands_right_behind() {
    let mut last = 0;
    for (len, fits) in [(34, true), (38, true), (64, true), (84, true), (86, false)] {
        let mut headers = TemplateBytes { bytes: [0; TEMPLATE_BYTES] };
        put_inner(&mut headers, len, &[1_u32; 3]);
        let expected = if fits { [1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0] } else { [0; 12] };
        assert_eq!(headers[len..(len + 12).min(TEMPLATE_BYTES)], expected[..(TEMPLATE_BYTES - len).min(12)]);
        assert!(headers[..len].iter().chain(headers.iter().skip(len + 12)).all(|byte| *byte == 0));
        last = len;
    }
    assert_eq!(last, 86);
}

proptest! {
    #[test]
    fn stamped_headers_verify(src: [u8; 4], dst: [u8; 4], port: u16, inner_len in 20u16..65_000, tos: u8, source_port: u16) {
        let template = compile(Underlay::V4 { src, dst }, ETHERTYPE_IPV4, vxlan(port));
        let bytes = template.stamped(Stamp { inner_len, tos, source_port });
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
        let template = compile(Underlay::V6 { src, dst }, ETHERTYPE_IPV4, vxlan(4789));
        let bytes = template.stamped(Stamp { inner_len, tos, source_port });
        let ip: Ipv6Header = bytemuck::pod_read_unaligned(&bytes[L3..L3 + 40]);
        let udp: UdpHeader = bytemuck::pod_read_unaligned(&bytes[L3 + 40..L3 + 48]);
        prop_assert_eq!((ip.src, ip.dst), (src, dst));
        prop_assert_eq!(ip.payload_len.get(), inner_len + 30);
        prop_assert_eq!((udp.len.get(), udp.src_port.get()), (inner_len + 30, source_port));
        prop_assert_eq!(bytes[L3..L3 + 2].to_vec(), vec![0x60 | tos >> 4, tos << 4]);
    }

    #[test]
    fn every_kind_tells_its_length(v6: bool, key: Option<u32>, kind in 0usize..5, inner_len in 20u16..65_000, tos: u8) {
        let macs = MACS;
        let shell = [
            vxlan(4789),
            Shell::Geneve { port: 6081, vni: vni(), macs },
            Shell::Gre { key, macs },
            Shell::GreL3 { key },
            Shell::Ipip,
        ][kind];
        let template = compile(if v6 { V6 } else { V4 }, ETHERTYPE_IPV4, shell);
        let bytes = template.stamped(Stamp { inner_len, tos, source_port: 50_000 });
        let total = inner_len as usize + template.overhead();
        if v6 {
            let ip: Ipv6Header = bytemuck::pod_read_unaligned(&bytes[L3..L3 + 40]);
            prop_assert_eq!(ip.payload_len.get() as usize + 40, total);
        } else {
            let ip: Ipv4Header = bytemuck::pod_read_unaligned(&bytes[L3..L3 + 20]);
            prop_assert_eq!(checksum::fold(checksum::sum(bytemuck::bytes_of(&ip), 0)), 0xffff);
            prop_assert_eq!(ip.total_len.get() as usize, total);
        }
        prop_assert!(template.len.is_multiple_of(2) && template.len + 12 <= TEMPLATE_BYTES);
    }
}
