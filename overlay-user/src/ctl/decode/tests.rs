//! Packets written out byte by byte, and bytes that are no packets.

use proptest::prelude::*;

use super::*;

const ETH: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0x42, 0xac, 0x11, 0, 2, 8, 0];
/// UDP 1111 to 2222, from 172.17.0.2 to 172.27.0.9.
#[rustfmt::skip]
const UDP: [u8; 28] = [
    0x45, 0, 0, 28, 0, 0, 0x40, 0, 64, 17, 0, 0, 172, 17, 0, 2, 172, 27, 0, 9,
    0x04, 0x57, 0x08, 0xae, 0, 8, 0, 0,
];
/// To UDP port 4789 from 10.0.0.2 to 10.0.0.1, VNI 0x010203.
#[rustfmt::skip]
const OUTER: [u8; 36] = [
    0x45, 0, 0, 78, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1,
    0xc0, 0x01, 0x12, 0xb5, 0, 58, 0, 0,
    8, 0, 0, 0, 1, 2, 3, 0,
];

fn line(parts: &[&[u8]], from_underlay: bool) -> String {
    Summary::of(&parts.concat(), place(from_underlay)).to_string()
}

fn place(from_underlay: bool) -> Place {
    if from_underlay { Place::Underlay } else { Place::Inside }
}

fn any_place() -> impl Strategy<Value = Place> {
    prop_oneof![Just(Place::Inside), Just(Place::Underlay), Just(Place::BareUnderlay)]
}

#[test]
fn a_tunnel_packet_tells_both_headers() {
    let text = line(&[&ETH, &OUTER, &ETH, &UDP], true);
    assert_eq!(text, "10.0.0.2 > 10.0.0.1 udp 4789 vni 66051: 172.17.0.2 > 172.27.0.9 udp 1111 > 2222");
}

#[test]
fn a_containers_packet_tells_its_mac_address() {
    let text = line(&[&ETH, &UDP], false);
    assert_eq!(text, "02:42:ac:11:00:02 172.17.0.2 > 172.27.0.9 udp 1111 > 2222");
    // A tunnel of its own is its payload.
    let text = line(&[&ETH, &OUTER, &ETH, &UDP], false);
    assert_eq!(text, "02:42:ac:11:00:02 10.0.0.2 > 10.0.0.1 udp 49153 > 4789");
}

#[test]
fn ports_stand_behind_options_and_in_the_first_fragment_only() {
    let mut options = [UDP[..20].to_vec(), vec![1; 4], UDP[20..].to_vec()].concat();
    options[0] = 0x46;
    assert!(line(&[&ETH, &options], false).ends_with("udp 1111 > 2222"));
    let mut fragment = UDP;
    fragment[6] = 0x20;
    assert!(line(&[&ETH, &fragment], false).ends_with("udp 1111 > 2222 fragment"));
    fragment[7] = 1;
    assert!(line(&[&ETH, &fragment], false).ends_with("udp fragment"));
}

#[test]
fn arp_tells_who_claims_what() {
    let mut eth = ETH;
    eth[13] = 6;
    let arp = |operation| {
        let mut arp = vec![0, 1, 8, 0, 6, 4, 0, operation, 2, 0, 0, 0, 0, 9, 172, 17, 42, 1];
        arp.extend([0, 0, 0, 0, 0, 0, 172, 17, 0, 3]);
        arp
    };
    assert_eq!(line(&[&eth, &arp(2)], false), "02:42:ac:11:00:02 arp 172.17.42.1 is at 02:00:00:00:00:09");
    assert_eq!(
        line(&[&eth, &arp(1)], false),
        "02:42:ac:11:00:02 arp who has 172.17.0.3, tell 172.17.42.1 at 02:00:00:00:00:09"
    );
    assert_eq!(line(&[&eth, &arp(2)[..27]], false), "02:42:ac:11:00:02 > 02:00:00:00:00:01 arp, cut off");
}

#[test]
fn other_frames_tell_their_protocol() {
    let with = |ethertype: u16| {
        let mut eth = ETH;
        eth[12..].copy_from_slice(&ethertype.to_be_bytes());
        eth
    };
    let ends = "02:42:ac:11:00:02 > 02:00:00:00:00:01";
    assert_eq!(line(&[&with(0x86dd)], false), format!("{ends} ipv6, cut off"));
    assert_eq!(line(&[&with(0x88cc)], false), format!("{ends} ethertype 0x88cc"));
    assert_eq!(
        line(&[&with(0x8100), &[0x20, 7, 8, 0], &UDP], false),
        "02:42:ac:11:00:02 172.17.0.2 > 172.27.0.9 udp 1111 > 2222 vlan 7"
    );
}

#[test]
fn what_is_cut_off_tells_as_much_as_there_is() {
    let whole = [&ETH[..], &OUTER, &ETH, &UDP].concat();
    assert_eq!(line(&[&whole[..13]], true), "no frame");
    assert_eq!(line(&[&whole[..20]], true), "02:42:ac:11:00:02 > 02:00:00:00:00:01 ipv4, cut off");
    assert_eq!(line(&[&whole[..45]], true), "10.0.0.2 > 10.0.0.1 udp 4789 cut off: no frame");
    assert_eq!(line(&[&whole[..50]], true), "10.0.0.2 > 10.0.0.1 udp 4789 vni 66051: no frame");
}

/// An IPv6 header from fd00:17::2 to fd00:27::9.
fn ipv6(next_header: u8, payload: &[u8]) -> Vec<u8> {
    let address = |net, host| [0xfd, 0, 0, net, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host];
    let mut packet = vec![0x60, 0, 0, 0, 0, u8::try_from(payload.len()).unwrap(), next_header, 64];
    packet.extend([address(0x17, 2), address(0x27, 9)].concat());
    packet.extend(payload);
    packet
}

fn eth_ipv6() -> [u8; 14] {
    let mut eth = ETH;
    eth[12..].copy_from_slice(&[0x86, 0xdd]);
    eth
}

#[test]
fn either_version_in_either_version() {
    let udp = &UDP[20..];
    let inner = "fd00:17::2 > fd00:27::9 udp 1111 > 2222";
    let text = line(&[&ETH, &OUTER, &eth_ipv6(), &ipv6(17, udp)], true);
    assert_eq!(text, format!("10.0.0.2 > 10.0.0.1 udp 4789 vni 66051: {inner}"));
    let outer = |payload: &[&[u8]]| ipv6(17, &[&OUTER[20..], &payload.concat()].concat());
    let text = line(&[&eth_ipv6(), &outer(&[&eth_ipv6(), &ipv6(17, udp)])], true);
    assert_eq!(text, format!("fd00:17::2 > fd00:27::9 udp 4789 vni 66051: {inner}"));
    let text = line(&[&eth_ipv6(), &outer(&[&ETH, &UDP])], true);
    assert!(text.ends_with(" vni 66051: 172.17.0.2 > 172.27.0.9 udp 1111 > 2222"), "{text}");
    // The 128 bytes that a sample keeps reach just as far as the inner ports.
    let longest = [&eth_ipv6()[..], &outer(&[&eth_ipv6(), &ipv6(17, udp)])].concat();
    assert!(line(&[&longest[..128]], true).ends_with("udp 1111 > 2222"));
    assert!(line(&[&longest[..127]], true).ends_with("udp"));
    let json = serde_json::to_value(Summary::of(&longest, Place::Underlay)).unwrap();
    assert_eq!(json["tunnel"]["src"], "fd00:17::2");
    assert_eq!(json["ip"]["dst"], "fd00:27::9");
    assert_eq!(json.get("neighbour"), None);
}

#[test]
fn an_uplink_may_have_no_ethernet_header() {
    let bare = |parts: &[&[u8]]| Summary::of(&parts.concat(), Place::BareUnderlay).to_string();
    let inner = "172.17.0.2 > 172.27.0.9 udp 1111 > 2222";
    assert_eq!(bare(&[&OUTER, &ETH, &UDP]), format!("10.0.0.2 > 10.0.0.1 udp 4789 vni 66051: {inner}"));
    let outer = ipv6(17, &[&OUTER[20..], &ETH, &UDP].concat());
    assert_eq!(bare(&[&outer]), format!("fd00:17::2 > fd00:27::9 udp 4789 vni 66051: {inner}"));
    assert_eq!(bare(&[&ipv6(6, &[])]), "fd00:17::2 > fd00:27::9 tcp");
    assert_eq!(bare(&[&ETH, &UDP]), "no frame");
    assert_eq!(bare(&[]), "no frame");
}

#[test]
fn extension_headers_are_stepped_over() {
    let udp = &UDP[20..];
    let ends = |next_header: u8, payload: &[u8], with: &str| {
        let text = line(&[&eth_ipv6(), &ipv6(next_header, payload)], false);
        assert!(text.ends_with(&format!("fd00:27::9 {with}")), "{text}");
    };
    let options = |next_header: u8| [vec![next_header, 1], vec![0; 14]].concat();
    let fragment = |offset: u8| [17, 0, 0, offset, 0, 0, 0, 7];
    ends(0, &[&options(17)[..], udp].concat(), "udp 1111 > 2222");
    ends(43, &[&options(60)[..], &options(17), udp].concat(), "udp 1111 > 2222");
    ends(44, &[&fragment(1)[..], udp].concat(), "udp 1111 > 2222 fragment");
    ends(44, &[&fragment(8)[..], udp].concat(), "udp fragment");
    ends(0, &[&options(44)[..], &fragment(1), udp].concat(), "udp 1111 > 2222 fragment");
    ends(60, &options(17)[..1], "protocol 60");
    // A chain that is longer than anybody needs ends unread.
    ends(60, &[&options(60).repeat(4)[..], &options(17), udp].concat(), "protocol 60");
}

#[test]
fn neighbour_discovery_tells_who_claims_what() {
    let message = |kind: u8| {
        let target = [0xfd, 0, 0, 0x17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        [vec![kind, 0, 0, 0, 0x20, 0, 0, 0], target.to_vec()].concat()
    };
    let from = "02:42:ac:11:00:02 fd00:17::2 > fd00:27::9 icmpv6";
    let text = |kind| line(&[&eth_ipv6(), &ipv6(58, &message(kind))], false);
    assert_eq!(text(136), format!("{from} claims fd00:17::1"));
    assert_eq!(text(135), format!("{from} who has fd00:17::1"));
    assert_eq!(text(128), from);
    assert_eq!(line(&[&eth_ipv6(), &ipv6(58, &message(136)[..23])], false), from);
    let behind = [vec![58, 0, 0, 0, 0, 0, 0, 0], message(136)].concat();
    assert_eq!(line(&[&eth_ipv6(), &ipv6(60, &behind)], false), format!("{from} claims fd00:17::1"));
    let json = serde_json::to_value(Summary::of(
        &[&eth_ipv6()[..], &ipv6(58, &message(136))].concat(),
        Place::Inside,
    ));
    let neighbour = json.unwrap()["neighbour"].clone();
    assert_eq!(neighbour, serde_json::json!({ "icmp_type": 136, "target": "fd00:17::1" }));
}

#[test]
fn the_jsons_names_stay() {
    let json =
        serde_json::to_value(Summary::of(&[&ETH[..], &OUTER, &ETH, &UDP].concat(), Place::Underlay)).unwrap();
    assert_eq!(
        json,
        serde_json::json!({
            "tunnel": { "src": "10.0.0.2", "dst": "10.0.0.1", "port": 4789, "vni": 66051 },
            "frame": {
                "src": "02:42:ac:11:00:02", "dst": "02:00:00:00:00:01", "vlan": null, "ethertype": 2048
            },
            "ip": {
                "src": "172.17.0.2", "dst": "172.27.0.9", "protocol": 17,
                "src_port": 1111, "dst_port": 2222, "fragment": false
            },
        })
    );
}

proptest! {
    #[test]
    fn no_bytes_are_too_much(bytes in prop::collection::vec(any::<u8>(), 0..200), place in any_place()) {
        let summary = Summary::of(&bytes, place);
        prop_assert!(!summary.to_string().is_empty());
        prop_assert!(serde_json::to_string(&summary).is_ok());
    }

    #[test]
    fn no_change_to_a_packet_is_too_much(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        len in 0..=92_usize,
        place in any_place(),
    ) {
        let mut bytes = [&ETH[..], &OUTER, &ETH, &UDP].concat();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(len);
        prop_assert!(!Summary::of(&bytes, place).to_string().is_empty());
    }

    #[test]
    fn no_change_to_an_ipv6_packet_is_too_much(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        len in 0..=132_usize,
        place in any_place(),
    ) {
        let inner = [&eth_ipv6()[..], &ipv6(17, &UDP[20..])].concat();
        let mut bytes = [&eth_ipv6()[..], &ipv6(17, &[&OUTER[20..], &inner].concat())].concat();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(len);
        prop_assert!(!Summary::of(&bytes, place).to_string().is_empty());
    }
}
