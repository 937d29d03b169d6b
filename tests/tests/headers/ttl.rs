//! TTL: one for each hop over the overlay, and who is told when it ends.

use harness::{
    frame::ICMP,
    traffic::{Sniffer, ping_with},
};

use crate::bed::{Bed, Peer, SOON, receive};

/// What a datagram sent with 64 arrives with, forth and back. A kernel's peer routes between its device and its
/// bridge, and takes one more for what it forwards to us or from us.
fn arrives_with(peer: Peer) -> [u8; 2] {
    match peer {
        Peer::Ours => [63, 63],
        Peer::Kernel => [62, 63],
    }
}

fn one_hop(peer: Peer) {
    let bed = Bed::up(peer);
    let sockets = bed.sockets();
    for ((from, to), expected) in [(0, 1), (1, 0)].into_iter().zip(arrives_with(peer)) {
        for size in [10, 1000] {
            sockets[from].send(sockets[to].address(), &vec![7; size]).unwrap();
            assert_eq!(receive(&sockets[to], "a datagram").ttl, expected, "from {from}");
        }
        // By the slow path too, where the kernel takes it.
        sockets[from].allow_fragments().unwrap();
        sockets[from].send(sockets[to].address(), &[7; 5000]).unwrap();
        assert_eq!(receive(&sockets[to], "a large datagram").ttl, expected, "in fragments from {from}");
    }
}

#[test]
fn the_overlay_takes_one() {
    one_hop(Peer::Ours);
}

#[test]
fn the_overlay_takes_one_on_the_way_to_and_from_a_kernel_peer() {
    one_hop(Peer::Kernel);
}

fn ends(peer: Peer) {
    let bed = Bed::up(peer);
    for (near, far) in [(1, 2), (2, 1)] {
        let (near, far) = (bed.h(near), bed.h(far));
        let sniffer = Sniffer::on(&far.c(1).ns, "eth0").unwrap();
        let socket = harness::traffic::DatagramSocket::bind(&near.c(1).ns, near.c(1).ip, 0).unwrap();
        let hears = Sniffer::on(&near.c(1).ns, "eth0").unwrap();
        socket.std().set_ttl(1).unwrap();
        let target = std::net::SocketAddrV4::new(far.c(1).ip, 9);
        socket.send(target, b"expires on the way").unwrap();
        let gateway = near.bridge.ip.octets();
        // Type 11, code 0, from the gateway, and what it quotes is ours.
        let exceeded = |f: &harness::traffic::Frame| {
            let bytes = &f.bytes;
            bytes.len() > 50 && bytes[23] == ICMP && bytes[26..30] == gateway && bytes[34..36] == [11, 0]
        };
        hears.await_count("the gateway says so", 1, SOON, exceeded).unwrap();
        let expired = ping_with(&near.c(1).ns, far.c(1).ip, 2, &["-t", "1"]).unwrap();
        assert_eq!(expired.received, 0, "{}", expired.text);
        let says = format!("From {} icmp_seq=1 Time to live exceeded", near.bridge.ip);
        assert!(expired.text.contains(&says), "{}", expired.text);
        // 2 is enough for one hop, and on its way back the answer has its own.
        let enough = if peer == Peer::Kernel { "3" } else { "2" };
        let passed = ping_with(&near.c(1).ns, far.c(1).ip, 2, &["-t", enough]).unwrap();
        assert!(passed.clean(), "{}", passed.text);
        let source = near.c(1).ip.octets();
        for frame in sniffer.finish().unwrap() {
            let own = frame.bytes.len() > 34 && frame.bytes[26..30] == source && !frame.outgoing;
            assert!(!own || !frame.contains(b"expires on the way"), "{frame:02x?}");
        }
    }
}

#[test]
fn a_packet_that_expires_is_answered_by_the_gateway_and_not_delivered() {
    ends(Peer::Ours);
}

#[test]
fn a_packet_that_expires_between_ours_and_a_kernel_peer_is_answered_by_the_gateway() {
    ends(Peer::Kernel);
}
