//! Ping, UDP and TCP both ways, of every size.

use std::{net::UdpSocket, time::Duration};

use harness::{
    host::Host,
    traffic::{pattern, ping_with, transfer},
    wait::patient,
};

use crate::{
    SOON,
    bed::{Bed, end, status},
    expected::Case,
};

/// Each way; enough for aggregates, which TCP makes by itself.
const TCP_BYTES: usize = 1_000_000;

/// IPv4 and ICMP headers.
const PING_HEADERS: u32 = 28;

pub(crate) fn takes_the_fast_path(case: Case) {
    let bed = Bed::up(case);
    for host in &bed.topology.hosts {
        let status = status(host);
        assert_eq!((&status["state"], &status["mtu"]), (&"ok".into(), &case.mtu.into()), "{status}");
    }
    udp_is_counted(&bed);
    let bridged = bed.bridged();
    for (from, to) in bed.ways() {
        transfer(end(from), end(to), TCP_BYTES).unwrap();
    }
    // ARP, and IPv6's chatter of routers and groups, go over the bridge: some packets, not hundreds.
    assert!(bed.bridged() - bridged < 100, "the bridges carried packets of TCP");
    for (from, to) in bed.ways() {
        sizes(from, to, case.mtu);
    }
    bed.assert_nothing_dropped();
}

fn udp_is_counted(bed: &Bed) {
    let (before, bridged) = (bed.traffic(), bed.bridged());
    let report = bed.probe(Duration::from_secs(4)).join().unwrap();
    assert!(report.clean(), "{report}");
    let (forth, back, after) = (report.forth.sent, report.back.sent, bed.traffic());
    assert!(forth >= 400 && back >= 400, "{report}");
    assert!(bed.bridged() - bridged < 100, "the bridges carried packets of the flow");
    let moved = |n: usize| (after[n].to - before[n].to, after[n].from - before[n].from);
    assert_eq!([moved(0), moved(1)], [(forth, back), (back, forth)]);
}

fn sizes(from: &Host, to: &Host, mtu: u32) {
    let (ns, ip) = (&from.c(1).ns, to.c(1).ip);
    // Before the container is told of the path's MTU.
    datagram(from, to, 3000);
    let large = ping_with(ns, ip, 3, &["-s", "3000", "-M", "dont"]).unwrap();
    assert!(large.clean(), "{}", large.text);
    let largest = (mtu - PING_HEADERS).to_string();
    let fits = ping_with(ns, ip, 3, &["-s", &largest, "-M", "do"]).unwrap();
    assert!(fits.clean(), "{}", fits.text);
    let more = (mtu - PING_HEADERS + 1).to_string();
    let told = ping_with(ns, ip, 1, &["-s", &more, "-M", "do"]).unwrap();
    let words = [format!("(mtu = {mtu})"), format!("mtu={mtu}")];
    assert!(told.received == 0 && words.iter().any(|words| told.text.contains(words)), "{}", told.text);
}

/// One that needs fragments, as an application sends it.
fn datagram(from: &Host, to: &Host, bytes: usize) {
    let [sender, receiver] = [from, to].map(|host| {
        let ip = host.c(1).ip;
        host.c(1).ns.run(move || UdpSocket::bind((ip, 0))).unwrap().unwrap()
    });
    receiver.set_read_timeout(Some(patient(SOON))).unwrap();
    let (payload, mut buffer) = (pattern(3, bytes), vec![0; 2 * bytes]);
    sender.send_to(&payload, receiver.local_addr().unwrap()).unwrap();
    let (length, source) = receiver.recv_from(&mut buffer).unwrap();
    assert_eq!(source, sender.local_addr().unwrap());
    assert!(buffer[..length] == payload, "{length} of {bytes} bytes, or others than were sent");
}
