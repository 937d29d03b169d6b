//! `uplink_decap`: every row of `uplink_ingress` once more, in XDP. Both must refuse the same, under the same
//! name; what one delivers the other strips; and what one leaves alone so does the other.

use std::fmt::Write;

use overlay_common::{
    DropReason,
    map::{Decap, DecapState},
};

use crate::{
    bed::{Bed, with_bed},
    case::{Case, compare_state, hex},
    packet::{IPV4, IPV6, Ipv4, Vxlan, at, eth},
    world::{A, CONTAINER, LOCAL_VNI, TOKEN, UPLINK_MAC, decap, dev, from_peer},
    xdp::{DROP, PASS},
};

/// The record of a packet, byte by byte: magic, version, length, token, peer, network.
pub(crate) fn record(peer: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(0x6f76_6c78_u32.to_ne_bytes());
    bytes.extend(1_u16.to_ne_bytes());
    bytes.extend(24_u16.to_ne_bytes());
    bytes.extend(TOKEN.iter().flat_map(|word| word.to_ne_bytes()));
    bytes.extend(peer.to_ne_bytes());
    bytes.extend(if peer == 0 { [0; 4] } else { LOCAL_VNI.to_be_bytes() });
    bytes
}

/// What XDP decides; where a packet goes on this host, and whether an skb can be shrunk, it does not.
fn is_decided_here(reason: DropReason, packet: &[u8]) -> bool {
    match reason {
        DropReason::NotLocal | DropReason::DecapFailed => false,
        // A frame to many is no VTEP's, which is seen here; a packet to many is seen by its destination.
        DropReason::InnerMulticast => {
            let at = at::INNER_ETH + if packet[12..14] == IPV6.to_be_bytes() { 20 } else { 0 };
            packet.get(at..at + 6).is_some_and(|mac| mac[0] & 1 != 0 && mac != [0xff; 6])
        }
        _ => true,
    }
}

/// What must come of a row.
fn expected(case: &Case) -> (u32, Vec<u8>, Vec<u8>) {
    let untouched = |verdict| (verdict, Vec::new(), case.packet.clone());
    let frame = match (case.drop, case.redirected()) {
        (Some(reason), _) if is_decided_here(reason, &case.packet) => return untouched(DROP),
        (None, None) => return untouched(PASS),
        (_, Some(frame)) => frame.to_vec(),
        (Some(_), None) => {
            let over_v6 = case.packet[12..14] == IPV6.to_be_bytes();
            case.packet[at::INNER_ETH + if over_v6 { 20 } else { 0 }..].to_vec()
        }
    };
    // Of the peers, B alone has an IPv6 address.
    let peer = if case.packet[at::OUTER_IP + 12..at::OUTER_IP + 16] == A.underlay { 1 } else { 2 };
    let stripped = [&UPLINK_MAC[..], &case.packet[6..12], &frame[12..]].concat();
    (PASS, record(peer), stripped)
}

fn check(case: &Case, bed: &mut Bed) -> Result<(), String> {
    bed.reset();
    for setup in &case.setup {
        setup(&mut bed.maps);
    }
    let mut state = bed.state();
    if let Some(reason) = case.drop.filter(|reason| is_decided_here(*reason, &case.packet)) {
        state.drops[reason.number() as usize] += 1;
    }
    let (verdict, metadata, packet) = expected(case);
    let ran = bed.run_xdp(&[], &case.packet);
    let mut wrong = String::new();
    compare_state(&bed.state(), &state, &mut wrong);
    if ran.verdict != verdict {
        let _ = writeln!(wrong, "  verdict {} instead of {verdict}", ran.verdict);
    }
    if ran.metadata != metadata {
        let _ = writeln!(wrong, "  metadata {:02x?} instead of {metadata:02x?}", ran.metadata);
    }
    if ran.packet != packet {
        let _ = writeln!(wrong, "  packet\n    is {}\n    not {}", hex(&ran.packet), hex(&packet));
    }
    if wrong.is_empty() { Ok(()) } else { Err(format!("{} (uplink_decap):\n{wrong}", case.name)) }
}

/// Runs rows of `uplink_ingress` through XDP, but for those that are about something XDP cannot see: another
/// interface, or an aggregate.
pub(crate) fn run_in_xdp(cases: &[Case]) {
    let cases = cases.iter().filter(|case| case.context.ifindex == dev::UPLINK && case.context.gso_size == 0);
    with_bed(|bed| {
        let failed: Vec<_> = cases.filter_map(|case| check(case, bed).err()).collect();
        assert!(failed.is_empty(), "{} rows:\n{}", failed.len(), failed.join("\n"));
    });
}

fn tunnel() -> Vec<u8> {
    from_peer(&A, Ipv4::udp(A.container, CONTAINER).bytes()).bytes()
}

fn stripped() -> Vec<u8> {
    let inner = Ipv4::udp(A.container, CONTAINER).bytes();
    eth(UPLINK_MAC, Vxlan { ..from_peer(&A, vec![]) }.eth_src, IPV4, &inner)
}

#[test]
fn only_in_its_state_is_anything_stripped() {
    with_bed(|bed| {
        for (state, metadata, packet) in [
            (DecapState::Tc, Vec::new(), tunnel()),
            (DecapState::Trial, record(0), tunnel()),
            (DecapState::Xdp, record(A.id), stripped()),
            (DecapState::Draining, Vec::new(), tunnel()),
        ] {
            bed.maps.put_decap(dev::UPLINK, decap(state)).unwrap();
            let ran = bed.run_xdp(&[], &tunnel());
            assert_eq!((ran.verdict, ran.metadata, ran.packet), (PASS, metadata, packet), "{state:?}");
        }
        bed.maps.delete_decap(dev::UPLINK).unwrap();
        let ran = bed.run_xdp(&[], &tunnel());
        assert_eq!((ran.verdict, ran.metadata, ran.packet), (PASS, vec![], tunnel()), "no entry");
    });
}

#[test]
fn another_mac_address_is_another_hosts() {
    with_bed(|bed| {
        let other = Decap { mac: overlay_common::Mac([2, 0, 0, 0, 0, 9]), ..decap(DecapState::Xdp) };
        bed.maps.put_decap(dev::UPLINK, other).unwrap();
        let ran = bed.run_xdp(&[], &tunnel());
        assert_eq!((ran.verdict, ran.metadata, ran.packet), (PASS, vec![], tunnel()));
    });
}

/// Where somebody else's metadata stands in front, there is no place for ours: `uplink_ingress` takes the packet.
#[test]
fn metadata_of_others_are_left_alone() {
    with_bed(|bed| {
        for metadata in [vec![7; 4], record(A.id), vec![9; 32]] {
            for state in [DecapState::Xdp, DecapState::Trial] {
                bed.maps.put_decap(dev::UPLINK, decap(state)).unwrap();
                let ran = bed.run_xdp(&metadata, &tunnel());
                assert_eq!((ran.verdict, ran.packet), (PASS, tunnel()), "{state:?}");
                assert_eq!(ran.metadata, metadata, "{state:?}");
            }
        }
        // But a refusal is a refusal.
        bed.maps.put_decap(dev::UPLINK, decap(DecapState::Xdp)).unwrap();
        let stranger = Vxlan { src: [10, 0, 0, 99], ..from_peer(&A, vec![0; 20]) }.bytes();
        assert_eq!(bed.run_xdp(&[7; 4], &stranger).verdict, DROP);
    });
}

#[test]
fn frames_too_short_for_anything_pass() {
    with_bed(|bed| {
        let whole = tunnel();
        for len in 14..at::VXLAN {
            let ran = bed.run_xdp(&[], &whole[..len]);
            assert_eq!((ran.verdict, &ran.packet[..]), (PASS, &whole[..len]), "{len} bytes");
        }
    });
}

#[test]
fn probes_are_counted_and_come_to_an_end() {
    const LIMIT: u32 = 256;
    with_bed(|bed| {
        bed.maps.put_decap(dev::UPLINK, decap(DecapState::Trial)).unwrap();
        // Any packet will do.
        let packet = eth(UPLINK_MAC, [2, 0, 0, 0, 0, 1], 0x88b5, &[5; 50]);
        for n in 1..=LIMIT + 5 {
            // Told by the entry, not by `n`: the kernel runs a packet again whose run a signal has cut short.
            let sent = bed.maps.decap(dev::UPLINK).unwrap().unwrap().probes;
            let ran = bed.run_xdp(&[], &packet);
            let expected = if sent >= LIMIT { Vec::new() } else { record(0) };
            assert_eq!((ran.verdict, ran.metadata), (PASS, expected), "packet {n}, {sent} probes before");
            assert_eq!(ran.packet, packet);
        }
        let entry = bed.maps.decap(dev::UPLINK).unwrap().unwrap();
        assert_eq!((entry.probes, entry.heard, entry.refused), (LIMIT, 0, 0));
    });
}

#[test]
fn every_size_up_to_a_page_is_stripped_whole() {
    with_bed(|bed| {
        for size in [28, 29, 63, 64, 65, 1450, 1451, 3000, 3300] {
            let inner = Ipv4::sized(A.container, CONTAINER, size).bytes();
            let packet = from_peer(&A, inner.clone());
            let ran = bed.run_xdp(&[], &packet.bytes());
            assert_eq!(ran.packet, eth(UPLINK_MAC, packet.eth_src, IPV4, &inner), "{size} bytes");
            assert_eq!((ran.verdict, ran.metadata), (PASS, record(A.id)));
        }
    });
}
