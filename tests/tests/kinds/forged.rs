//! What a peer may not say in any kind of tunnel, under traffic that is valid.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use harness::{
    Topology, Versions, eventually,
    frame::{self, Ipv4},
    host::UPLINK,
    traffic::{Injector, Sniffer},
};

use crate::bed::{self, SOON};

const FORGED: &[u8] = b"forged by a test";
const COUNT: u64 = 20;

/// IP's numbers for what stands behind an outer header.
const UDP: u8 = 17;
const GRE: u8 = 47;
const IPIP: u8 = 4;

#[test]
fn in_geneve() {
    is_refused("geneve");
}

#[test]
fn in_gre() {
    is_refused("gre");
}

#[test]
fn in_gre_without_ethernet() {
    is_refused("gre-l3");
}

#[test]
fn in_ip() {
    is_refused("ipip");
}

/// An outer packet from host 2 to host 1 with another's address inside.
fn forgery(topology: &Topology, encap: &str, outer_src: Ipv4Addr, inner_src: Ipv4Addr) -> Vec<u8> {
    let (h1, h2) = (topology.h(1), topology.h(2));
    let (src, dst) = (SocketAddrV4::new(inner_src, 40_001), SocketAddrV4::new(h1.c(1).ip, 40_002));
    let inner = Ipv4::udp(src, dst, FORGED).bytes();
    let status = h1.overlayd().ctl(&["status", "-o", "json"]).unwrap();
    let vtep = frame::mac(status["vtep_mac"].as_str().unwrap());
    let carried = || frame::eth(vtep, h2.mac(UPLINK).unwrap(), frame::IPV4, &inner);
    let (protocol, payload) = match encap {
        "geneve" => {
            let geneve = [&[0, 0, 0x65, 0x58, 0, 0, 1, 0][..], &carried()].concat();
            let len = (8 + geneve.len() as u16).to_be_bytes();
            let udp = [[0xc3, 0x50], 6081_u16.to_be_bytes(), len, [0, 0]].concat();
            (UDP, [udp, geneve].concat())
        }
        "gre" => (GRE, [&[0, 0, 0x65, 0x58][..], &carried()].concat()),
        "gre-l3" => (GRE, [&[0, 0, 8, 0][..], &inner].concat()),
        _ => (IPIP, inner.clone()),
    };
    let outer = Ipv4::new(protocol, outer_src, h1.ip, payload);
    frame::eth(h1.mac(UPLINK).unwrap(), h2.mac(UPLINK).unwrap(), frame::IPV4, &outer.bytes())
}

fn is_refused(encap: &str) {
    let topology = bed::builder(Versions::V4, encap).hosts(3).up().unwrap();
    bed::settle(&topology, 1, 2);
    bed::settle(&topology, 1, 3);
    let (h1, h2, h3) = (topology.h(1), topology.h(2), topology.h(3));
    let sniffer = Sniffer::on(&h1.c(1).ns, "eth0").unwrap();
    let probes = bed::probes(&topology, 1, 2);
    let injector = Injector::open(&h2.ns, UPLINK).unwrap();
    let drops = |reason: &str| h1.overlayd().drops().unwrap().get(reason).copied().unwrap_or_default();
    let nobody: Ipv4Addr = [192, 0, 2, 77].into();
    let cases = [
        ("another peer's container", h2.ip, h3.c(1).ip, Some("inner_source")),
        ("a container of the receiver's own", h2.ip, h1.c(1).ip, Some("inner_source")),
        ("an address of nobody's", h2.ip, nobody, Some("inner_source")),
        ("a martian", h2.ip, [127, 0, 0, 1].into(), Some("inner_martian")),
        // GRE and IP in IP from who is no peer are the kernel's, which has no use for them here.
        ("a stranger", nobody, h2.c(1).ip, (encap == "geneve").then_some("unknown_peer")),
    ];
    for (what, outer, inner, reason) in cases {
        let before = reason.map(drops);
        let packet = forgery(&topology, encap, outer, inner);
        for _ in 0..COUNT {
            injector.send(&packet).unwrap();
        }
        if let (Some(reason), Some(before)) = (reason, before) {
            let counted = || drops(reason) == before + COUNT;
            eventually(&format!("{encap}: {what} is counted as {reason}"), SOON, counted).unwrap();
        }
    }
    std::thread::sleep(Duration::from_millis(300));
    for probe in probes {
        let report = probe.finish().unwrap();
        assert!(report.forth.sent > 100 && report.clean(), "{report}");
    }
    let frames = sniffer.finish().unwrap();
    assert!(frames.len() > 200, "the container's traffic was seen");
    assert_eq!(frames.iter().filter(|frame| frame.contains(FORGED)).count(), 0);
}
