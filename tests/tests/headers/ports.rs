//! The outer source port: many for many flows, one for one (RFC 7348 section 5).

use std::collections::{BTreeMap, BTreeSet};

use harness::{
    frame::{TCP, UDP},
    traffic::{DatagramSocket, Endpoint, Sniffer, transfer},
};

use crate::bed::{Bed, Peer, SOON, carried, outer, receive};

const FLOWS: usize = 64;

/// Outer source ports by inner protocol and source port, of what a host sent to the other's first container.
fn ports(bed: &Bed, host: usize, frames: &[harness::traffic::Frame]) -> BTreeMap<(u8, u16), BTreeSet<u16>> {
    let mut ports: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    let target = bed.h(3 - host).c(1).ip.octets();
    for frame in frames.iter().filter(|f| bed.is_from(host, f)) {
        let inner = carried(frame);
        if matches!(inner[9], TCP | UDP) && inner[16..20] == target {
            let flow = (inner[9], u16::from_be_bytes([inner[20], inner[21]]));
            ports.entry(flow).or_default().insert(outer(frame).unwrap().src_port);
        }
    }
    ports
}

fn spread(peer: Peer) {
    let bed = Bed::up(peer);
    let receiver = DatagramSocket::bind(&bed.h(2).c(1).ns, bed.h(2).c(1).ip, 0).unwrap();
    let sniffer = Sniffer::on(bed.topology.wire.ns().unwrap(), "h1").unwrap();
    let c1 = bed.h(1).c(1);
    let senders: Vec<_> = (0..FLOWS).map(|_| DatagramSocket::bind(&c1.ns, c1.ip, 0).unwrap()).collect();
    for round in 0..5 {
        for sender in &senders {
            sender.send(receiver.address(), &[round; 100]).unwrap();
            receive(&receiver, "a datagram");
        }
    }
    let ends = [1, 2].map(|n| Endpoint { ns: &bed.h(n).c(1).ns, ip: bed.h(n).c(1).ip });
    for _ in 0..8 {
        transfer(ends[0], ends[1], 100_000).unwrap();
    }
    sniffer
        .await_count("all are seen", 5 * FLOWS, SOON, |f| bed.is_from(1, f) && carried(f)[9] == UDP)
        .unwrap();
    let ports = ports(&bed, 1, &sniffer.finish().unwrap());
    assert_eq!(ports.keys().filter(|(protocol, _)| *protocol == UDP).count(), FLOWS);
    assert_eq!(ports.keys().filter(|(protocol, _)| *protocol == TCP).count(), 8);
    assert!(ports.values().all(|used| used.len() == 1), "a flow keeps its port: {ports:?}");
    let different: BTreeSet<u16> = ports.values().flatten().copied().collect();
    assert!(different.iter().all(|port| *port >= 49_152), "the dynamic range: {different:?}");
    // 72 flows over 16384 ports: more than a few on one are no accident.
    assert!(different.len() >= 66, "{} ports for 72 flows", different.len());
}

#[test]
fn flows_spread_over_source_ports_and_each_keeps_its_own() {
    spread(Peer::Ours);
}

#[test]
fn flows_to_a_kernel_peer_spread_too() {
    spread(Peer::Kernel);
}
