//! Aggregates that no outer header can describe: the device cuts them up before it encapsulates them.

use std::{net::UdpSocket, time::Duration};

use harness::{Topology, counters, topology::StoreKind};
use nix::sys::socket::{setsockopt, sockopt};

/// Payload of one datagram: what fits the overlay's MTU.
const SEGMENT: usize = 1400;
const ROUNDS: usize = 20;

/// Sends aggregates of this many bytes from host 1's container to host 2's. Returns how many datagrams were
/// to arrive, how many did, and how many packets host 1's tunnel device sent.
fn send(topology: &Topology, bytes: usize) -> (usize, usize, u64) {
    let (h1, c1, c2) = (topology.h(1), topology.h(1).c(1), topology.h(2).c(1));
    let receiver = c2.ns.run(|| UdpSocket::bind((c2.ip, 0)).unwrap()).unwrap();
    setsockopt(&receiver, sockopt::RcvBufForce, &(16 << 20)).unwrap();
    receiver.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let sender = c1.ns.run(|| UdpSocket::bind((c1.ip, 0)).unwrap()).unwrap();
    setsockopt(&sender, sockopt::UdpGsoSegment, &(SEGMENT as i32)).unwrap();
    let sent_before = counters::packets(&h1.ns, "ovl0").unwrap().tx;
    // Each datagram says which it is, so that not one can stand in for another.
    let payload: Vec<u8> = (0..bytes).map(|at| (at / SEGMENT) as u8).collect();
    let mut arrived = 0;
    let mut datagram = [0; 2 * SEGMENT];
    for _ in 0..ROUNDS {
        assert_eq!(sender.send_to(&payload, receiver.local_addr().unwrap()).unwrap(), bytes);
        let mut expected: Vec<&[u8]> = payload.chunks(SEGMENT).collect();
        while !expected.is_empty()
            && let Ok(length) = receiver.recv(&mut datagram)
        {
            let before = expected.len();
            expected.retain(|chunk| *chunk != &datagram[..length]);
            assert_eq!(
                expected.len() + 1,
                before,
                "a datagram of {length} bytes that was not sent, or twice"
            );
            arrived += 1;
        }
    }
    let through_device = counters::packets(&h1.ns, "ovl0").unwrap().tx - sent_before;
    (bytes.div_ceil(SEGMENT) * ROUNDS, arrived, through_device)
}

#[test]
fn the_longest_aggregates_go_through_it_and_arrive_whole() {
    let topology = Topology::builder().store(StoreKind::Peers).up().unwrap();
    // 65,485 bytes of inner packet are the most that 50 bytes of headers leave room for.
    let (sent, arrived, through_device) = send(&topology, 65_485 - 28);
    assert_eq!((arrived, through_device), (sent, 0), "what fits takes the fast path");
    // A veth cuts up by itself what has 65,536 bytes with its Ethernet header.
    for bytes in [65_485 - 27, 65_535 - 14 - 28] {
        let (sent, arrived, through_device) = send(&topology, bytes);
        assert_eq!(arrived, sent, "of {bytes} bytes");
        assert_eq!(
            through_device, sent as u64,
            "{bytes} bytes: the device is given segments, not aggregates"
        );
    }
    for host in &topology.hosts {
        let drops = host.overlayd().drops().unwrap();
        assert!(drops.is_empty(), "{}: {drops:?}", host.name);
    }
}
