//! Broadcast and multicast: the bridge's, in a routed network.

use std::net::{Ipv4Addr, SocketAddrV4};

use harness::traffic::{DatagramSocket, Sniffer};

use crate::bed::{Bed, Peer, receive};

const COUNT: u8 = 10;
const MARK: &[u8] = b"to all who are near";

fn stays(peer: Peer) {
    let bed = Bed::up(peer);
    let (h1, h2) = (bed.h(1), bed.h(2));
    let wire = Sniffer::on(bed.topology.wire.ns().unwrap(), "h1").unwrap();
    let far = [1, 2].map(|n| Sniffer::everywhere(&h2.c(n).ns).unwrap());
    let group = Ipv4Addr::new(239, 1, 2, 3);
    let near = DatagramSocket::bind(&h1.c(2).ns, Ipv4Addr::UNSPECIFIED, 9999).unwrap();
    near.std().join_multicast_v4(&group, &h1.c(2).ip).unwrap();
    let sender = DatagramSocket::bind(&h1.c(1).ns, h1.c(1).ip, 0).unwrap();
    sender.std().set_multicast_ttl_v4(8).unwrap();
    for to in [Ipv4Addr::BROADCAST, "172.17.255.255".parse().unwrap(), group] {
        for count in 0..COUNT {
            let payload = [MARK, &[count]].concat();
            sender.send(SocketAddrV4::new(to, 9999), &payload).unwrap();
            assert_eq!(receive(&near, "the neighbour's word").payload, payload, "to {to}");
        }
    }
    // The peer's own subnet's broadcast address is no broadcast here, and reaches nobody there.
    for _ in 0..COUNT {
        sender
            .send(SocketAddrV4::new("172.27.255.255".parse().unwrap(), 9999), b"to all who are far")
            .unwrap();
    }
    let sockets = bed.sockets();
    sockets[0].send(sockets[1].address(), b"to one").unwrap();
    assert_eq!(receive(&sockets[1], "a datagram").payload, b"to one");
    for sniffer in far {
        for frame in sniffer.finish().unwrap() {
            assert!(!frame.contains(MARK) && !frame.contains(b"to all who are far"), "{frame:02x?}");
        }
    }
    assert!(wire.finish().unwrap().iter().all(|frame| !frame.contains(MARK)), "on the wire");
}

#[test]
fn broadcast_and_multicast_stay_on_the_bridge() {
    stays(Peer::Ours);
}

#[test]
fn broadcast_and_multicast_do_not_reach_a_kernel_peer() {
    stays(Peer::Kernel);
}
