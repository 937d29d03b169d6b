//! Aggregates of datagrams: what the sender's kernel hands over in one piece (UDP_SEGMENT) arrives as the datagrams that
//! it is of. Geneve's need the kernel's own Geneve, and have their test where there is one.

use std::net::SocketAddrV4;

use harness::{Versions, traffic::DatagramSocket};

use crate::bed::{self, SOON};

const SEGMENT: usize = 1000;
const SEGMENTS: usize = 20;
const ROUNDS: usize = 10;

#[test]
fn datagrams_in_one_piece_arrive_as_datagrams() {
    for encap in ["gre", "gre-l3", "ipip"] {
        let topology = bed::hosts(Versions::V4, encap);
        let (here, there) = (topology.h(1).c(1), topology.h(2).c(1));
        let sender = DatagramSocket::bind(&here.ns, here.ip, 0).unwrap();
        let receiver = DatagramSocket::bind(&there.ns, there.ip, 0).unwrap();
        sender.set_segment(SEGMENT as u16).unwrap();
        let to: SocketAddrV4 = receiver.address();
        for round in 0..ROUNDS {
            let segment = |n: usize| vec![(round * SEGMENTS + n) as u8; SEGMENT];
            let payload: Vec<u8> = (0..SEGMENTS).flat_map(segment).collect();
            sender.send(to, &payload).unwrap();
            for n in 0..SEGMENTS {
                let got = receiver.receive(SOON).unwrap().expect("it arrives");
                assert_eq!(got.payload, segment(n), "{encap}: round {round}, datagram {n}");
            }
        }
        bed::no_drops(&topology);
    }
}
