//! MTU: what fits arrives, of what does not the sender is told or it is fragmented, and TCP needs neither.

use harness::{Versions, host::Host, traffic::ping_with};

use crate::{
    bed::{self, Version, no_drops, route_mtu},
    expected::{Cell, UPLINK, cells},
    socket::{self, Ends},
    wire,
};

/// In fragments, several of them.
const LARGE: u32 = 20_000;

#[test]
fn over_ipv4() {
    every_size_arrives_or_is_answered(Versions::V4);
}

#[test]
fn over_ipv6() {
    every_size_arrives_or_is_answered(Versions::V6);
}

#[test]
fn over_both() {
    every_size_arrives_or_is_answered(Versions::Both);
}

fn every_size_arrives_or_is_answered(underlay: Versions) {
    let topology = bed::builder(underlay).up().unwrap();
    bed::settle(&topology);
    let (h1, h2) = (topology.h(1), topology.h(2));
    for cell in cells(underlay) {
        for (from, to) in [(h1, h2), (h2, h1)] {
            says(&cell, from, to);
        }
        let sniffer = wire::watch(&topology);
        for (from, to) in [(h1, h2), (h2, h1)] {
            udp(&cell, from, to);
        }
        filled(&cell, &wire::packets(sniffer));
        for (from, to) in [(h1, h2), (h2, h1)] {
            icmp(&cell, from, to);
            tcp(&cell, from, to);
        }
    }
    no_drops(&topology);
}

/// overlayctl and the kernel's route agree.
fn says(cell: &Cell, from: &Host, to: &Host) {
    let told = from.overlayd().mtu_to(cell.outer.underlay(to)).unwrap();
    assert_eq!(told, cell.mtu, "{cell:?}: overlayctl on {}", from.name);
    let route = route_mtu(from, &cell.inner.subnet(to));
    assert_eq!(route, Some(cell.mtu.into()), "{cell:?}: the route on {}", from.name);
}

fn udp(cell: &Cell, from: &Host, to: &Host) {
    let ends = |whole| Ends::new(from.c(1), to.c(1), cell.inner, whole);
    let right = |result: Result<(), String>| {
        result.unwrap_or_else(|e| panic!("{cell:?}, from {}: {e}", from.name));
    };
    let whole = ends(true);
    right(whole.arrives(cell.mtu));
    right(whole.told(cell.mtu + 1, cell.mtu));
    right(whole.arrives(cell.mtu));

    let fragments = ends(false);
    match cell.inner {
        // The gateway does it.
        Version::V4 => {
            right(fragments.arrives(cell.mtu + 1));
            right(fragments.arrives(LARGE));
        }
        // The sender does it, once it was told.
        Version::V6 => {
            right(fragments.arrives_in_the_end(cell.mtu + 1));
            assert_eq!(fragments.mtu(), cell.mtu, "{cell:?}");
            right(fragments.arrives(LARGE));
            // Fragments of the container's own MTU, before it was told.
            right(ends(false).arrives_in_the_end(LARGE));
        }
    }
}

/// It is the sender's own gateway that says what is too large: nobody else is asked to be trusted.
fn icmp(cell: &Cell, from: &Host, to: &Host) {
    let container = from.c(1);
    socket::forget(&container.ns);
    let headers = if cell.inner == Version::V4 { 28 } else { 48 };
    let ping = |size: u32| {
        let size = (size - headers).to_string();
        ping_with(&container.ns, cell.inner.ip(to.c(1)), 2, &["-M", "do", "-s", &size]).unwrap()
    };
    let too_large = ping(cell.mtu + 1);
    let (gateway, mtu) = (cell.inner.gateway(from), cell.mtu);
    let says = match cell.inner {
        Version::V4 => format!("From {gateway} icmp_seq=1 Frag needed and DF set (mtu = {mtu})"),
        Version::V6 => format!("From {gateway} icmp_seq=1 Packet too big: mtu={mtu}"),
    };
    assert!(too_large.received == 0 && too_large.text.contains(&says), "{cell:?}: {}", too_large.text);
    let largest = ping(cell.mtu);
    assert!(largest.clean(), "{cell:?}: {}", largest.text);
}

/// The largest datagram filled the uplink's MTU to the byte, and no tunnel packet was larger.
fn filled(cell: &Cell, packets: &[wire::Packet]) {
    let largest = packets.iter().map(|packet| packet.outer.len).max();
    assert_eq!(largest, Some(UPLINK), "{cell:?}, of {} packets", packets.len());
}

/// Containers have an MTU of 1500: it is the SYN's MSS that keeps their segments small enough.
fn tcp(cell: &Cell, from: &Host, to: &Host) {
    let (syn, segments) = socket::mss(from.c(1), to.c(1), cell.inner);
    assert_eq!(syn, cell.mss, "{cell:?}, from {}", from.name);
    // Each has room for timestamps besides (RFC 7323).
    assert_eq!(segments, [cell.mss - 12; 2], "{cell:?}, from {}", from.name);
}
