//! From `uplink_decap` to `uplink_ingress`, by frames that take the kernel's own way from XDP to tcx with whatever
//! stands in front of them: what is believed, and what is not.

use overlay_common::map::{DecapState, Direction::FromPeer, Traffic, program::UPLINK_INGRESS};
use overlay_user::datapath::attach::{Attachment, attach};

use crate::{
    bed::{Bed, with_bed},
    packet::{IPV4, Ipv4, eth},
    uplink_decap::record,
    world::{A, CONTAINER, UPLINK_MAC, decap, dev, from_peer},
};

fn on_the_uplink(bed: &mut Bed) {
    let attachment = Attachment { ifindex: dev::UPLINK, program: UPLINK_INGRESS };
    attach(&mut bed.programs, &bed.pins, &attachment, "up").unwrap();
    bed.attach_xdp().unwrap();
}

/// As it is after XDP.
fn stripped() -> Vec<u8> {
    eth(UPLINK_MAC, [0x02, 0, 0, 0, 0, 0x20], IPV4, &Ipv4::udp(A.container, CONTAINER).bytes())
}

fn delivered(bed: &Bed) -> Traffic {
    bed.maps.traffic(A.id, FromPeer).unwrap()
}

fn put(bed: &mut Bed, state: DecapState) {
    bed.maps.put_decap(dev::UPLINK, decap(state)).unwrap();
}

/// Sends a frame and tells whether it was delivered; it is never dropped by a program.
fn believed(bed: &mut Bed, metadata: &[u8]) -> bool {
    let (before, drops) = (delivered(bed), bed.totals().0);
    bed.run_live(metadata, &stripped());
    assert_eq!(bed.totals().0, drops, "dropped with metadata {metadata:02x?}");
    let after = delivered(bed);
    let more = (after.packets - before.packets, after.bytes - before.bytes);
    assert!([(0, 0), (1, 84)].contains(&more), "{more:?}");
    more.0 == 1
}

#[test]
fn a_tunnel_packet_is_stripped_and_delivered() {
    with_bed(|bed| {
        on_the_uplink(bed);
        let tunnel = from_peer(&A, Ipv4::udp(A.container, CONTAINER).bytes()).bytes();
        for (state, count) in [(DecapState::Xdp, 1), (DecapState::Trial, 2), (DecapState::Tc, 3)] {
            put(bed, state);
            bed.run_live(&[], &tunnel);
            assert_eq!(delivered(bed), Traffic { packets: count, bytes: 84 * count }, "{state:?}");
        }
        assert_eq!(bed.totals().0, 0, "drops");
    });
}

#[test]
fn a_record_is_believed_only_while_xdp_may_have_written_it() {
    with_bed(|bed| {
        on_the_uplink(bed);
        for (state, expected) in [
            (DecapState::Tc, false),
            (DecapState::Trial, false),
            (DecapState::Xdp, true),
            (DecapState::Draining, true),
        ] {
            put(bed, state);
            assert_eq!(believed(bed, &record(A.id)), expected, "{state:?}");
        }
        bed.maps.delete_decap(dev::UPLINK).unwrap();
        assert!(!believed(bed, &record(A.id)), "no entry");
    });
}

#[test]
fn forged_records_are_not_believed() {
    with_bed(|bed| {
        on_the_uplink(bed);
        put(bed, DecapState::Xdp);
        let real = record(A.id);
        // Magic, version, length and token: each bit of them counts.
        for bit in 0..16 * 8 {
            let mut forged = real.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(!believed(bed, &forged), "bit {bit}");
        }
        for len in (0..real.len()).step_by(4) {
            assert!(!believed(bed, &real[..len]), "cut to {len} bytes");
        }
        for more in [[&real[..], &[0; 4]].concat(), [&[0; 4], &real[..]].concat()] {
            assert!(!believed(bed, &more), "four bytes more");
        }
        assert!(!believed(bed, &record(0)), "a probe is about no packet");
        assert!(believed(bed, &real));
        // An entry that nobody filled.
        bed.maps
            .put_decap(dev::UPLINK, overlay_common::map::Decap { token: [0; 2], ..decap(DecapState::Xdp) })
            .unwrap();
        let mut zero = real.clone();
        zero[8..16].fill(0);
        assert!(!believed(bed, &zero) && !believed(bed, &real), "no token");
    });
}

#[test]
fn probes_are_heard_in_a_trial() {
    with_bed(|bed| {
        on_the_uplink(bed);
        let heard = |bed: &Bed| bed.maps.decap(dev::UPLINK).unwrap().unwrap().heard;
        put(bed, DecapState::Trial);
        bed.run_live(&[], &stripped());
        assert_eq!(heard(bed), 1, "what XDP sends along arrives");
        let mut forged = record(0);
        forged[8] ^= 1;
        bed.run_live(&forged, &stripped());
        assert_eq!(heard(bed), 1, "a forged probe");
        put(bed, DecapState::Xdp);
        bed.run_live(&record(0), &stripped());
        assert_eq!(heard(bed), 0, "no trial");
    });
}

#[test]
fn what_was_stripped_must_have_a_destination() {
    use overlay_common::DropReason::{InnerMulticast, NotLocal};
    with_bed(|bed| {
        on_the_uplink(bed);
        put(bed, DecapState::Xdp);
        for (dst, reason) in [([8, 8, 8, 8], NotLocal), ([172, 17, 255, 255], InnerMulticast)] {
            let before = (bed.dropped(reason), bed.totals().0);
            bed.run_live(&[], &from_peer(&A, Ipv4::udp(A.container, dst).bytes()).bytes());
            assert_eq!((bed.dropped(reason), bed.totals().0), (before.0 + 1, before.1 + 1), "{dst:?}");
        }
        assert_eq!(delivered(bed).packets, 0);
    });
}
