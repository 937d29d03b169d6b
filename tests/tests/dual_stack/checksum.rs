//! UDP checksums over IPv6: none to those who say that they take none (RFC 6935), filled in to all others.

use std::fs;

use harness::{
    Topology, eventually,
    topology::StoreKind,
    traffic::{Sniffer, ping},
    versions::Versions::V6,
};

use crate::{SOON, hosts, inside};

/// The UDP checksum of a tunnel packet over IPv6: behind Ethernet and IPv6 headers.
fn checksum(frame: &[u8]) -> Option<u16> {
    let udp_over_v6 = frame.get(12..14)? == [0x86, 0xdd] && *frame.get(20)? == 17;
    let to_vxlan = frame.get(56..58)? == 4789_u16.to_be_bytes();
    let bytes = frame.get(60..62)?;
    (udp_over_v6 && to_vxlan).then(|| u16::from_be_bytes([bytes[0], bytes[1]]))
}

/// Hosts over IPv6; the first is told that the second takes none, or is not.
fn told(topology: &Topology, zero_checksum: bool) {
    let file = topology.peers_file(0);
    let text = fs::read_to_string(&file).unwrap();
    let said = |takes: bool| format!("zero_checksum = {takes}");
    fs::write(&file, text.replace(&said(!zero_checksum), &said(zero_checksum))).unwrap();
}

#[test]
fn checksums_are_filled_in_for_those_who_want_them() {
    let topology = hosts(V6).store(StoreKind::Peers).up().unwrap();
    let (h1, h2) = (topology.h(1), topology.h(2));
    for zero_checksum in [true, false, true] {
        told(&topology, zero_checksum);
        let sent = |from: &harness::host::Host, at: &str| {
            let sniffer = Sniffer::on(topology.wire.ns().unwrap(), at).unwrap();
            for to in inside(if from.name == h1.name { h2 } else { h1 }) {
                assert!(ping(&from.c(1).ns, to, 3).unwrap().clean());
            }
            let frames = sniffer.finish().unwrap();
            frames.iter().filter(|f| !f.outgoing).filter_map(|f| checksum(&f.bytes)).collect::<Vec<_>>()
        };
        let follows = || sent(h1, "h1").iter().all(|sum| (*sum == 0) == zero_checksum);
        eventually(&format!("zero checksums: {zero_checksum}"), SOON, follows).unwrap();
        assert!(sent(h1, "h1").len() >= 6);
        // The other host has been told nothing else.
        assert!(sent(h2, "h2").iter().all(|sum| *sum == 0));
    }
}
