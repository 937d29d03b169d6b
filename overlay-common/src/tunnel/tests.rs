use proptest::prelude::*;

use super::*;
use crate::{
    Mac, Vni,
    parse::L3,
    template::{Headers, Macs, Shell, Stamp, Underlay},
    wire::{Ipv4Header, Ipv6Header},
};

const V4: Underlay = Underlay::V4 { src: [192, 0, 2, 1], dst: [192, 0, 2, 2] };
const V6: Underlay = Underlay::V6 { src: [0x20; 16], dst: [0x21; 16] };
const MACS: Macs = Macs { src: Mac([2, 0, 0, 0, 0, 1]), dst: Mac([2, 0, 0, 0, 0, 2]) };

fn geneve() -> Shell {
    Shell::Geneve { port: 6081, vni: Vni::new(7).unwrap(), macs: MACS }
}

/// A packet of a tunnel of ours around 40 bytes.
fn packet(underlay: Underlay, carries: Be16, shell: Shell) -> Vec<u8> {
    let template = Headers { underlay, carries, shell }.compile();
    let headers = template.stamped(Stamp { inner_len: 40, tos: 0, source_port: 50_000 });
    [&headers[..template.len], &[0; 40]].concat()
}

fn opened(packet: &[u8]) -> Result<Option<Opened>, DropReason> {
    let ports = |port: Be16| match port.get() {
        6081 => Some(Encap::Geneve),
        4789 => Some(Encap::Vxlan),
        _ => None,
    };
    match Be16::new(u16::from_be_bytes([packet[12], packet[13]])) {
        ETHERTYPE_IPV4 => open(packet, &packet.read::<Ipv4Header>(L3).unwrap(), L3, &ports),
        _ => open(packet, &packet.read::<Ipv6Header>(L3).unwrap(), L3, &ports),
    }
}

#[test]
fn what_templates_put_on_is_read() {
    for (underlay, len) in [(V4, 34), (V6, 54)] {
        let vxlan = Shell::Vxlan { port: 4789, vni: Vni::new(7).unwrap(), macs: MACS };
        for (shell, encap, network, number, more, carries) in [
            (vxlan, Encap::Vxlan, Network::Vni, 7, 16, ETHERTYPE_FRAME),
            (geneve(), Encap::Geneve, Network::Vni, 7, 16, ETHERTYPE_FRAME),
            (Shell::Gre { key: None, macs: MACS }, Encap::Gre, Network::Unnamed, 0, 4, ETHERTYPE_FRAME),
            (Shell::Gre { key: Some(9), macs: MACS }, Encap::Gre, Network::Key, 9, 8, ETHERTYPE_FRAME),
            (Shell::GreL3 { key: None }, Encap::GreL3, Network::Unnamed, 0, 4, ETHERTYPE_IPV4),
            (Shell::GreL3 { key: Some(9) }, Encap::GreL3, Network::Key, 9, 8, ETHERTYPE_IPV4),
            (Shell::Ipip, Encap::Ipip, Network::Unnamed, 0, 0, ETHERTYPE_IPV4),
        ] {
            let bytes = packet(underlay, ETHERTYPE_IPV4, shell);
            let port = Be16::new(encap.assigned_port().unwrap_or_default());
            let (at, end) = (len + more, bytes.len());
            let expected = Opened { encap, network, number, port, carries, at, end };
            assert_eq!(opened(&bytes), Ok(Some(expected)));
        }
    }
    let bytes = packet(V4, ETHERTYPE_IPV6, Shell::Ipip);
    assert_eq!(opened(&bytes).unwrap().unwrap().carries, ETHERTYPE_IPV6);
}

#[test]
fn other_packets_are_not_ours() {
    let mut other_port = packet(V4, ETHERTYPE_IPV4, geneve());
    other_port[37] ^= 1;
    let mut icmp = packet(V4, ETHERTYPE_IPV4, Shell::Ipip);
    icmp[L3 + 9] = 1;
    let mut pptp = packet(V4, ETHERTYPE_IPV4, Shell::GreL3 { key: None });
    pptp[35] = 1;
    let mut mpls = packet(V4, ETHERTYPE_IPV4, Shell::GreL3 { key: None });
    (mpls[36], mpls[37]) = (0x88, 0x47);
    for bytes in [other_port, icmp, pptp, mpls] {
        assert_eq!(opened(&bytes), Ok(None));
    }
}

#[test]
fn options_of_geneve_are_skipped_unless_they_are_critical() {
    let plain = packet(V4, ETHERTYPE_IPV4, geneve());
    let with = |words: u8, flags: u8| {
        let mut bytes = plain.clone();
        (bytes[42], bytes[43]) = (words, flags);
        let more = usize::from(words & 0x3f) * 4;
        bytes.splice(50..50, vec![0xee; more]);
        let grow = |bytes: &mut [u8], at: usize| {
            let len = u16::from_be_bytes([bytes[at], bytes[at + 1]]) + more as u16;
            bytes[at..at + 2].copy_from_slice(&len.to_be_bytes());
        };
        grow(&mut bytes, L3 + 2);
        grow(&mut bytes, 38);
        bytes
    };
    for words in [0, 1, 5, 63] {
        let found = opened(&with(words, 0)).unwrap().unwrap();
        assert_eq!(found.at, 50 + usize::from(words) * 4);
    }
    assert_eq!(opened(&with(1, 0x40)), Err(DropReason::TunnelHeader));
    assert_eq!(opened(&with(0, 0x80)), Err(DropReason::TunnelHeader));
    assert_eq!(opened(&with(0x40, 0)), Err(DropReason::TunnelHeader));
    // Options that end behind the datagram.
    let mut long = plain;
    long[42] = 63;
    assert_eq!(opened(&long), Err(DropReason::OuterMalformed));
}

/// As Linux's ip6tnl and ip6gre send it unless told otherwise.
#[test]
fn a_limit_to_nesting_is_stepped_over() {
    let mut bytes = packet(V6, ETHERTYPE_IPV4, Shell::Gre { key: None, macs: MACS });
    let inside = bytes[L3 + 6];
    bytes[L3 + 6] = DESTINATION;
    bytes.splice(54..54, [inside, 0, 4, 1, 4, 1, 0, 0]);
    let len = u16::from_be_bytes([bytes[L3 + 4], bytes[L3 + 5]]) + 8;
    bytes[L3 + 4..L3 + 6].copy_from_slice(&len.to_be_bytes());
    let found = opened(&bytes).unwrap().unwrap();
    assert_eq!((found.encap, found.at, found.end), (Encap::Gre, 54 + 8 + 4, bytes.len()));
    bytes[54] = PROTOCOL_UDP;
    assert_eq!(opened(&bytes), Ok(None));
}

#[test]
fn lengths_that_contradict_each_other() {
    let mut bytes = packet(V4, ETHERTYPE_IPV4, Shell::Ipip);
    bytes.pop();
    assert_eq!(opened(&bytes), Ok(None), "it may be somebody else's");
    let mut bytes = packet(V4, ETHERTYPE_IPV4, geneve());
    bytes[39] += 1;
    assert_eq!(opened(&bytes), Err(DropReason::OuterMalformed));
}

proptest! {
    #[test]
    fn nothing_panics_and_nothing_reaches_outside(bytes in proptest::collection::vec(any::<u8>(), 54..200), protocol in prop::sample::select(vec![4_u8, 17, 41, 47, 60])) {
        let mut v4 = bytes.clone();
        (v4[12], v4[13], v4[L3], v4[L3 + 9]) = (8, 0, 0x45, protocol);
        let mut v6 = bytes;
        (v6[12], v6[13], v6[L3], v6[L3 + 6]) = (0x86, 0xdd, 0x60, protocol);
        for bytes in [v4, v6] {
            if let Ok(Some(found)) = opened(&bytes) {
                prop_assert!(found.at <= found.end && found.end <= bytes.len());
            }
        }
    }
}
