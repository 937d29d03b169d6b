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
    Summary::of(&parts.concat(), from_underlay).to_string()
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
    assert_eq!(line(&[&with(0x86dd)], false), format!("{ends} ipv6"));
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

#[test]
fn the_jsons_names_stay() {
    let json = serde_json::to_value(Summary::of(&[&ETH[..], &OUTER, &ETH, &UDP].concat(), true)).unwrap();
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
    fn no_bytes_are_too_much(bytes in prop::collection::vec(any::<u8>(), 0..200), from_underlay: bool) {
        let summary = Summary::of(&bytes, from_underlay);
        prop_assert!(!summary.to_string().is_empty());
        prop_assert!(serde_json::to_string(&summary).is_ok());
    }

    #[test]
    fn no_change_to_a_packet_is_too_much(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        len in 0..=92_usize,
        from_underlay: bool,
    ) {
        let mut bytes = [&ETH[..], &OUTER, &ETH, &UDP].concat();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(len);
        prop_assert!(!Summary::of(&bytes, from_underlay).to_string().is_empty());
    }
}
