//! What is refused, and under which name, while valid traffic all arrives.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use harness::{
    eventually,
    frame::{self, Ipv4, Tunnel},
    host::{Host, UPLINK},
    traffic::{Injector, Sniffer},
};

use crate::{
    SOON,
    bed::{Bed, flow, status},
    expected::{Case, FORGED as FORGERIES},
};

/// Packets of the first forgery; of each other, one more than of the one before.
const COUNT: u64 = 20;
/// In the payload of all that is forged.
pub(crate) const FORGED: &[u8] = b"forged by a test";
const VALID: &[u8] = b"valid, by a test";

pub(crate) fn by_name(case: Case) {
    let bed = Bed::up(case);
    let h1 = bed.topology.h(1);
    // What is not ours to judge is not to wander between the hosts.
    h1.ns.sysctl("ipv4/ip_forward", "0").unwrap();
    let (probe, injector) =
        (bed.probe(Duration::from_secs(300)), Injector::open(&bed.topology.h(2).ns, UPLINK).unwrap());
    let container = Sniffer::everywhere(&h1.c(1).ns).unwrap();
    let mut expected = h1.overlayd().drops().unwrap();
    let model = tunnel(&bed, FORGED);
    // Of each another number: by its sum a reason tells which forgery is missing.
    for (count, (name, reason)) in (COUNT..).zip(FORGERIES) {
        let mut packet = model.clone();
        forge(name, &mut packet, &bed);
        let packet = bytes(case, &packet);
        (0..count).for_each(|_| injector.send(&packet).unwrap());
        if !reason.is_empty() {
            *expected.entry(reason.to_owned()).or_default() += count;
        }
    }
    let eth = |ip: &[u8]| frame::eth(model.eth_dst, model.eth_src, frame::IPV4, ip);
    let naked = if case.kind.has_ethernet() { eth(&model.inner) } else { model.inner.clone() };
    (0..COUNT).for_each(|_| injector.send(&naked).unwrap());
    await_drops(h1, &expected, "forged");

    injector.send(&bytes(case, &tunnel(&bed, VALID))).unwrap();
    container.await_count("a valid packet arrives", 1, SOON, |f| f.contains(VALID)).unwrap();
    assert_eq!(container.count(|f| f.contains(FORGED)), 0);
    flow(&probe, 200);
    let report = probe.finish().unwrap();
    assert!(report.forth.sent > 100 && report.clean(), "{report}");
    await_drops(h1, &expected, "in the end");
}

pub(crate) fn await_drops(host: &Host, expected: &BTreeMap<String, u64>, when: &str) {
    let mut seen = BTreeMap::new();
    let counted = eventually("drops", SOON, || {
        seen = host.overlayd().drops().unwrap();
        seen == *expected
    });
    assert!(counted.is_ok(), "{when}: {seen:?} instead of {expected:?}");
}

/// As the uplink's device takes it.
fn bytes(case: Case, packet: &Tunnel) -> Vec<u8> {
    if case.kind.has_ethernet() { packet.bytes() } else { packet.ip().bytes() }
}

/// A tunnel packet from host 2 to the first container of host 1, as valid as can be.
pub(crate) fn tunnel(bed: &Bed, payload: &[u8]) -> Tunnel {
    let (h1, h2) = (bed.topology.h(1), bed.topology.h(2));
    let mac = |host: &Host| if bed.case.kind.has_ethernet() { host.mac(UPLINK).unwrap() } else { [0; 6] };
    let vtep = |host: &Host| frame::mac(status(host)["vtep_mac"].as_str().unwrap());
    Tunnel {
        eth_dst: mac(h1),
        eth_src: mac(h2),
        tos: 0,
        src: h2.ip,
        dst: h1.ip,
        src_port: 50_000,
        port: 4789,
        flags: [8, 0, 0, 0],
        vni: 1,
        reserved: 0,
        inner_dst: vtep(h1),
        inner_src: vtep(h2),
        inner_ethertype: frame::IPV4,
        inner: inner(h2.bridge.container_ip(200), h1.c(1).ip, payload),
    }
}

fn inner(src: Ipv4Addr, dst: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    Ipv4::udp(SocketAddrV4::new(src, 40_001), SocketAddrV4::new(dst, 40_002), payload).bytes()
}

/// Makes the packet what the table says of it.
fn forge(name: &str, packet: &mut Tunnel, bed: &Bed) {
    let to = bed.topology.h(1).c(1).ip;
    let mut from = |src: [u8; 4]| packet.inner = inner(src.into(), to, FORGED);
    match name {
        "inner source of nobody" => from([172, 37, 0, 2]),
        "inner source of the receiver's" => from([172, 17, 0, 3]),
        "inner source of the underlay" => from([172, 16, 199, 27]),
        "inner source loopback" => from([127, 0, 0, 1]),
        "inner source multicast" => from([224, 0, 0, 1]),
        "a stranger" => packet.src = Ipv4Addr::new(172, 16, 199, 99),
        "our own address" => packet.src = packet.dst,
        "another VNI" => packet.vni = 2,
        "flags" => packet.flags[0] = 0x88,
        "a reserved byte" => packet.reserved = 1,
        "another VTEP" => packet.inner_dst = [2, 0, 0, 0, 0, 9],
        "no IP inside" => packet.inner_ethertype = frame::ARP,
        "a length too large" => packet.inner[3] += 1,
        "congestion that nobody hears" => packet.tos = 3,
        "another host's address" => packet.dst = Ipv4Addr::new(172, 16, 199, 99),
        "another port" => packet.port = 4790,
        other => panic!("{other} is not in the table"),
    }
}
