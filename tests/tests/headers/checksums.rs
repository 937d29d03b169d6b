//! Checksums: made by the device, made by the kernel, and broken.

use std::net::SocketAddrV4;

use harness::{
    Netns,
    frame::{Ipv4, TCP},
    host::UPLINK,
    traffic::{DatagramSocket, Endpoint, Frame, Sniffer, pattern, transfer},
};

use crate::bed::{Bed, Peer, SOON, receive};

/// Sets checksum offload of a device.
fn offload(ns: &Netns, device: &str, on: bool) {
    ns.exec(&["ethtool", "-K", device, "tx", if on { "on" } else { "off" }]).unwrap();
}

/// TCP and UDP both ways with every byte compared.
fn talk(bed: &Bed, what: &str) {
    let ends = [1, 2].map(|n| Endpoint { ns: &bed.h(n).c(1).ns, ip: bed.h(n).c(1).ip });
    for (from, to) in [(0, 1), (1, 0)] {
        transfer(ends[from], ends[to], 300_000).unwrap_or_else(|e| panic!("{what}: {e:#}"));
    }
    let sockets = bed.sockets();
    for (from, to) in [(0, 1), (1, 0)] {
        for (seed, size) in [(1, 1), (2, 17), (3, 1000), (4, 1400)] {
            let payload = pattern(seed, size);
            sockets[from].send(sockets[to].address(), &payload).unwrap();
            assert!(receive(&sockets[to], what).payload == payload, "{what}: {size} bytes from {from}");
        }
    }
}

/// Every combination of the uplink's and the container's own offload, on either host.
fn combinations(peer: Peer) {
    let bed = Bed::up(peer);
    for bits in 0..16_u8 {
        let on = |bit: u8| bits & 1 << bit == 0;
        for (host, bit) in [(1, 0), (2, 2)] {
            offload(&bed.h(host).ns, UPLINK, on(bit));
            offload(&bed.h(host).c(1).ns, "eth0", on(bit + 1));
        }
        talk(&bed, &format!("uplink and container of host 1, of host 2: {:?}", [on(0), on(1), on(2), on(3)]));
    }
    for host in 1..=bed.ours() {
        assert_eq!(bed.h(host).overlayd().drops().unwrap().len(), 0, "on host {host}");
    }
}

#[test]
fn content_is_right_whoever_makes_the_checksums() {
    combinations(Peer::Ours);
}

#[test]
fn content_is_right_between_ours_and_a_kernel_peer_whoever_makes_the_checksums() {
    combinations(Peer::Kernel);
}

const COUNT: u64 = 20;

/// A counter of the namespace's `/proc/net/snmp`.
fn snmp(ns: &Netns, protocol: &str, counter: &str) -> u64 {
    let said = ns.exec(&["cat", "/proc/self/net/snmp"]).unwrap().stdout;
    let rows: Vec<Vec<&str>> = said
        .lines()
        .filter(|line| line.starts_with(&format!("{protocol}:")))
        .map(|line| line.split_whitespace().collect())
        .collect();
    let column = rows[0].iter().position(|name| *name == counter).unwrap();
    rows[1][column].parse().unwrap()
}

/// Who decapsulates must not vouch for what is inside, with an outer checksum that was right or without one.
fn broken(peer: Peer, host: usize) {
    let bed = Bed::up(peer);
    let to = bed.h(host).c(1);
    let socket = DatagramSocket::bind(&to.ns, to.ip, 0).unwrap();
    let address = to.ip;
    let listener = to.ns.run(move || std::net::TcpListener::bind((address, 0))).unwrap().unwrap();
    let listening = SocketAddrV4::new(to.ip, listener.local_addr().unwrap().port());
    let from = SocketAddrV4::new(bed.h(3 - host).bridge.container_ip(200), 40_001);
    let (wire, sniffer) = (bed.wire(host), Sniffer::on(&to.ns, "eth0").unwrap());
    let send = |inner: &Ipv4, outer: bool| {
        let tunnel = bed.tunnel(host, inner);
        let ip = if outer { tunnel.checksummed() } else { tunnel.ip() };
        let frame = harness::frame::eth(tunnel.eth_dst, tunnel.eth_src, harness::frame::IPV4, &ip.bytes());
        (0..COUNT).for_each(|_| wire.send(&frame).unwrap());
    };
    let (udp, tcp) = (Ipv4::udp(from, socket.address(), b"right"), Ipv4::syn(from, listening));
    let wrong = |packet: &Ipv4, at: usize| {
        let mut wrong = packet.clone();
        wrong.payload[at] ^= 0x5a;
        wrong
    };
    let counts = || ["Udp", "Tcp"].map(|protocol| snmp(&to.ns, protocol, "InCsumErrors"));
    let before = counts();
    for outer in [false, true] {
        send(&wrong(&udp, 6), outer);
        send(&wrong(&udp, 9), outer);
        send(&wrong(&tcp, 16), outer);
    }
    // Right at last, and the only ones to be heard.
    for outer in [false, true] {
        send(&udp, outer);
        for _ in 0..COUNT {
            assert_eq!(receive(&socket, "a datagram").payload, b"right");
        }
    }
    assert_eq!(socket.receive(std::time::Duration::from_millis(50)).unwrap(), None);
    assert_eq!(counts(), [before[0] + 4 * COUNT, before[1] + 2 * COUNT], "those with wrong checksums");
    let answers = |f: &Frame| f.outgoing && f.bytes[23] == TCP;
    assert_eq!(sniffer.count(answers), 0, "a wrong SYN was answered");
    send(&tcp, false);
    sniffer.await_count("a right SYN is answered", 1, SOON, answers).unwrap();
}

#[test]
fn a_broken_inner_checksum_is_found_out() {
    broken(Peer::Ours, 1);
}

/// The reference: the kernel's own device does as we do.
#[test]
fn a_broken_inner_checksum_is_found_out_at_a_kernel_peer() {
    broken(Peer::Kernel, 2);
}
