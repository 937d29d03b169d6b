//! IP options: rare, and the slow path's, but none of them is lost.

use harness::traffic::{DatagramSocket, Sniffer, ping_with};

use crate::bed::{Bed, Peer, SOON, receive};

/// Options as they stand in a header (RFC 791 section 3.1), and the type by which the receiver knows them.
fn options() -> Vec<(&'static str, Vec<u8>, u8)> {
    let record_route = [vec![7, 11, 4], vec![0; 8], vec![0]].concat();
    let timestamps = [vec![68, 12, 5, 0], vec![0; 8]].concat();
    vec![
        ("no operation", vec![1, 1, 1, 1], 1),
        ("record route", record_route, 7),
        ("timestamps", timestamps, 68),
        ("router alert", vec![148, 4, 0, 0], 148),
    ]
}

fn arrive(peer: Peer) {
    let bed = Bed::up(peer);
    for (from, to) in [(1, 2), (2, 1)] {
        let (from, to) = (bed.h(from).c(1), bed.h(to).c(1));
        let receiver = DatagramSocket::bind(&to.ns, to.ip, 0).unwrap();
        for (name, option, kind) in options() {
            let sender = DatagramSocket::bind(&from.ns, from.ip, 0).unwrap();
            let sniffer = Sniffer::on(&to.ns, "eth0").unwrap();
            sender.set_options(&option).unwrap();
            for count in 0..5_u8 {
                sender.send(receiver.address(), &[name.as_bytes(), &[count]].concat()).unwrap();
                let arrived = receive(&receiver, name);
                assert_eq!(arrived.payload, [name.as_bytes(), &[count]].concat());
                assert_eq!(arrived.from, sender.address());
            }
            let carries = |f: &harness::traffic::Frame| {
                f.contains(name.as_bytes()) && f.bytes[14] > 0x45 && f.bytes[34] == kind
            };
            sniffer.await_count(name, 5, SOON, carries).unwrap();
            assert_eq!(sniffer.count(|f| f.contains(name.as_bytes())), 5, "each once");
        }
        // There and back in one header, every router on the way in it.
        let recorded = ping_with(&from.ns, to.ip, 3, &["-R"]).unwrap();
        assert!(recorded.clean() && recorded.text.contains("RR:"), "{}", recorded.text);
    }
    for host in 1..=bed.ours() {
        assert_eq!(bed.h(host).overlayd().drops().unwrap().len(), 0, "on host {host}");
    }
}

#[test]
fn packets_with_options_arrive() {
    arrive(Peer::Ours);
}

#[test]
fn packets_with_options_go_to_and_come_from_a_kernel_peer() {
    arrive(Peer::Kernel);
}
