//! DSCP and ECN: RFC 6040 in normal mode, and DSCP as it is.

use harness::{
    frame::Ipv4,
    traffic::{DatagramSocket, Sniffer},
};

use crate::bed::{Bed, Peer, SOON, carried, outer, receive};

/// RFC 6040 section 4.2, figure 4: by inner and outer codepoint, what leaves the tunnel; `None` is dropped. In the
/// order of the bits: Not-ECT, ECT(1), ECT(0), CE.
const DECAPSULATED: [[Option<u8>; 4]; 4] = [
    [Some(0b00), Some(0b00), Some(0b00), None],
    [Some(0b01), Some(0b01), Some(0b01), Some(0b11)],
    [Some(0b10), Some(0b01), Some(0b10), Some(0b11)],
    [Some(0b11), Some(0b11), Some(0b11), Some(0b11)],
];

/// Expedited forwarding (RFC 3246), and none.
const DSCPS: [u8; 2] = [0, 0x2e << 2];

/// Every cell, from the wire into a container's socket. Outer and inner DSCP differ: the inner one stays.
fn every_cell(bed: &Bed, host: usize) {
    let receiver = DatagramSocket::bind(&bed.h(host).c(1).ns, bed.h(host).c(1).ip, 0).unwrap();
    let (wire, source) = (bed.wire(host), bed.h(3 - host).bridge.container_ip(200));
    let from = std::net::SocketAddrV4::new(source, 40_001);
    for (inner, row) in (0..4).zip(DECAPSULATED) {
        for (outer, expected) in (0..4).zip(row) {
            for dscp in DSCPS {
                let cell = format!("host {host}: inner {inner:02b} in outer {outer:02b}");
                let mut packet = Ipv4::udp(from, receiver.address(), cell.as_bytes());
                packet.tos = dscp | inner;
                let mut tunnel = bed.tunnel(host, &packet);
                tunnel.tos = (0x0a << 2) | outer;
                wire.send(&tunnel.bytes()).unwrap();
                // What follows tells that nothing more will come of it.
                let last = Ipv4::udp(from, receiver.address(), b"last");
                wire.send(&bed.tunnel(host, &last).bytes()).unwrap();
                let mut arrived = receive(&receiver, "what follows");
                if let Some(ecn) = expected {
                    assert_eq!(arrived.payload, cell.as_bytes(), "{cell} was dropped");
                    assert_eq!(arrived.tos, dscp | ecn, "{cell}");
                    arrived = receive(&receiver, "what follows");
                }
                assert_eq!(arrived.payload, b"last", "{cell} was to be dropped");
            }
        }
    }
}

fn dropped(bed: &Bed) -> u64 {
    let drops = bed.h(1).overlayd().drops().unwrap();
    assert!(drops.keys().all(|reason| reason == "ecn_ce_not_ect"), "{drops:?}");
    drops.get("ecn_ce_not_ect").copied().unwrap_or(0)
}

#[test]
fn all_cells_of_decapsulation() {
    let bed = Bed::up(Peer::Ours);
    every_cell(&bed, 1);
    assert_eq!(dropped(&bed), DSCPS.len() as u64, "one cell is dropped");
}

/// The kernel's own device is the reference: it makes the same of every cell.
#[test]
fn all_cells_of_decapsulation_as_the_kernel_has_them() {
    let bed = Bed::up(Peer::Kernel);
    every_cell(&bed, 2);
    every_cell(&bed, 1);
    assert_eq!(dropped(&bed), DSCPS.len() as u64, "one cell is dropped");
}

/// Every TOS both ways: on the wire the outer one is the inner one, and at the other end nothing has changed.
fn kept(peer: Peer) {
    let bed = Bed::up(peer);
    let sockets = bed.sockets();
    let sniffer = Sniffer::on(bed.topology.wire.ns().unwrap(), "h1").unwrap();
    let all: Vec<u8> = (0..4).flat_map(|ecn| [0, 0x0a, 0x2e, 0x3f].map(|dscp| dscp << 2 | ecn)).collect();
    for (from, to) in [(0, 1), (1, 0)] {
        for &tos in &all {
            sockets[from].set_tos(tos).unwrap();
            sockets[from].send(sockets[to].address(), &[tos; 10]).unwrap();
            let arrived = receive(&sockets[to], "a datagram");
            assert_eq!((arrived.tos, arrived.payload), (tos, vec![tos; 10]), "from {from}");
        }
    }
    let ours = bed.ours();
    let is_data = |inner: &[u8]| inner.len() == 20 + 8 + 10 && inner[9] == harness::frame::UDP;
    sniffer
        .await_count("all are seen", 2 * all.len(), SOON, |f| outer(f).is_some() && is_data(carried(f)))
        .unwrap();
    let frames = sniffer.finish().unwrap();
    for host in 1..=ours {
        let sent = frames.iter().filter(|f| bed.is_from(host, f) && is_data(carried(f)));
        let seen: Vec<(u8, u8)> = sent.map(|f| (outer(f).unwrap().tos, carried(f)[1])).collect();
        // RFC 6040 section 4.1, normal mode: copied, CE too.
        let expected: Vec<(u8, u8)> = all.iter().map(|&tos| (tos, tos)).collect();
        assert_eq!(seen, expected, "outer and inner TOS from host {host}");
    }
}

#[test]
fn dscp_and_ecn_go_outside_and_arrive() {
    kept(Peer::Ours);
}

#[test]
fn dscp_and_ecn_arrive_from_and_at_a_kernel_peer() {
    kept(Peer::Kernel);
}
