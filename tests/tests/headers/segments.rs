//! UDP GSO, as QUIC sends: one send, many datagrams.

use harness::traffic::pattern;

use crate::bed::{Bed, Peer, receive};

/// Segments that fit, and one that ends with less than a whole one.
const CASES: [(u16, usize); 4] = [(1200, 12_000), (1350, 20_000), (1422, 40_000), (400, 24_123)];

fn arrive(peer: Peer) {
    let bed = Bed::up(peer);
    for (from, to) in [(0, 1), (1, 0)] {
        for (case, (segment, total)) in (1..).zip(CASES) {
            let sockets = bed.sockets();
            sockets[from].set_segment(segment).unwrap();
            for round in 0..5 {
                let payload = pattern(case * 10 + round, total);
                sockets[from].send(sockets[to].address(), &payload).unwrap();
                for (number, part) in payload.chunks(segment.into()).enumerate() {
                    let what =
                        format!("segment {number} of {total} bytes in {segment} from {from}, round {round}");
                    assert!(receive(&sockets[to], &what).payload == part, "{what}");
                }
            }
        }
    }
    for host in 1..=bed.ours() {
        assert_eq!(bed.h(host).overlayd().drops().unwrap().len(), 0, "on host {host}");
    }
}

#[test]
fn udp_in_segments_arrives() {
    arrive(Peer::Ours);
}

#[test]
fn udp_in_segments_goes_to_and_comes_from_a_kernel_peer() {
    arrive(Peer::Kernel);
}
