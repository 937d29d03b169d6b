//! Datagrams larger than any packet: whole at the other end, and by one way over the underlay.

use std::collections::{BTreeMap, BTreeSet};

use harness::traffic::{Sniffer, pattern};

use crate::bed::{Bed, Peer, SOON, carried, outer, receive};

/// Datagrams each way, and their size.
const COUNT: u32 = 20;
const SIZE: usize = 20_000;

fn whole(peer: Peer) {
    let bed = Bed::up(peer);
    let sockets = bed.sockets();
    let sniffer = Sniffer::on(bed.topology.wire.ns().unwrap(), "h1").unwrap();
    for socket in &sockets {
        socket.allow_fragments().unwrap();
    }
    for (from, to) in [(0, 1), (1, 0)] {
        for seed in 1..=COUNT {
            let payload = pattern(seed, SIZE);
            sockets[from].send(sockets[to].address(), &payload).unwrap();
            let arrived = receive(&sockets[to], "a large datagram");
            assert!(arrived.payload == payload, "datagram {seed} from {from} arrived otherwise");
        }
    }
    // 14 fragments each at an MTU of 1450, more where they were cut for 1500 and again.
    let is_fragment = |inner: &[u8]| u16::from_be_bytes([inner[6], inner[7]]) & 0x3fff != 0;
    let sent = |host: usize, f: &harness::traffic::Frame| bed.is_from(host, f) && is_fragment(carried(f));
    for host in 1..=bed.ours() {
        let least = SIZE / 1430 * COUNT as usize;
        sniffer.await_count("fragments are seen", least, SOON, |f| sent(host, f)).unwrap();
    }
    let frames = sniffer.finish().unwrap();
    for host in 1..=bed.ours() {
        let mut ports: BTreeMap<[u8; 2], BTreeSet<u16>> = BTreeMap::new();
        for frame in frames.iter().filter(|f| sent(host, f)) {
            let id = [carried(frame)[4], carried(frame)[5]];
            ports.entry(id).or_default().insert(outer(frame).unwrap().src_port);
        }
        assert_eq!(ports.len(), COUNT as usize, "datagrams from host {host}");
        assert!(ports.values().all(|used| used.len() == 1), "source ports by datagram: {ports:?}");
    }
    for host in 1..=bed.ours() {
        assert_eq!(bed.h(host).overlayd().drops().unwrap().len(), 0, "on host {host}");
    }
}

#[test]
fn a_datagram_in_fragments_arrives_whole_and_keeps_to_one_way() {
    whole(Peer::Ours);
}

#[test]
fn a_datagram_in_fragments_goes_to_and_comes_from_a_kernel_peer() {
    whole(Peer::Kernel);
}
