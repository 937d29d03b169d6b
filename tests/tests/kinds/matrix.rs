//! Each kind, IPv4 and IPv6 in IPv4 and IPv6: ping, TCP, UDP, the MTU, counters, and what tshark makes of it.

use harness::{
    Versions,
    capture::Capture,
    eventually,
    host::{Host, UPLINK},
    traffic::{ping, ping_with, transfer},
};

use crate::{
    bed::{self, SOON, end, inside, ways},
    expected::{Kind, outer_v6},
};

const BYTES: usize = 4 << 20;

/// One test for each kind and underlay; `ip_matrix` has VXLAN's.
macro_rules! matrix {
    ($($name:ident: $kind:literal over $underlay:ident;)+) => {
        $(
            #[test]
            fn $name() {
                carries_everything(Kind::named($kind), Versions::$underlay);
            }
        )+
    };
}

matrix! {
    geneve_over_ipv4: "geneve" over V4;
    geneve_over_ipv6: "geneve" over V6;
    geneve_over_both: "geneve" over Both;
    gre_over_ipv4: "gre" over V4;
    gre_over_ipv6: "gre" over V6;
    gre_l3_over_ipv4: "gre-l3" over V4;
    gre_l3_over_ipv6: "gre-l3" over V6;
    ipip_over_ipv4: "ipip" over V4;
    ipip_over_ipv6: "ipip" over V6;
}

fn carries_everything(kind: Kind, underlay: Versions) {
    let topology = bed::hosts(underlay, kind.name);
    let (h1, h2) = (topology.h(1), topology.h(2));
    let mtu = [false, true].map(|inner_v6| kind.mtu(outer_v6(underlay, inner_v6)));
    for (from, to) in [(h1, h2), (h2, h1)] {
        let expected = mtu.map(|mtu| (kind.name.to_owned(), u64::from(mtu)));
        assert_eq!(ways(from, to), expected, "{kind:?} from {}", from.name);
    }
    on_the_wire(kind, underlay, &topology);
    let probes = bed::probes(&topology, 1, 2);
    for version in [0, 1] {
        let (here, there) = (end(h1, version), end(h2, version));
        transfer(here, there, BYTES).unwrap();
        transfer(there, here, BYTES).unwrap();
        sizes(h1, h2, version, mtu[version]);
        // The host itself, and to it.
        assert!(ping(&h1.ns, there.ip, 2).unwrap().clean());
        let bridge: std::net::IpAddr = [h2.bridge.ip.into(), h2.bridge.ip_v6.unwrap().into()][version];
        assert!(ping(here.ns, bridge, 2).unwrap().clean());
    }
    for probe in probes {
        let report = probe.finish().unwrap();
        assert!(report.forth.sent > 100 && report.clean(), "{report}");
    }
    bed::no_drops(&topology);
    for (host, peer) in [(h1, h2), (h2, h1)] {
        let outer: std::net::IpAddr = if underlay.v4() { peer.ip.into() } else { peer.ip_v6.into() };
        let traffic = host.overlayd().traffic(outer).unwrap();
        assert!(traffic.to > 1000 && traffic.from > 1000, "{traffic:?}");
    }
}

/// What fits arrives whole, of what does not the sender is told, and what may be cut is.
fn sizes(from: &Host, to: &Host, version: usize, mtu: u32) {
    let (ns, ip) = (&from.c(1).ns, inside(to)[version]);
    let header = if version == 0 { 28 } else { 48 };
    let sized = |size: u32, cut: &str| {
        ping_with(ns, ip, 2, &["-M", cut, "-s", &(size - header).to_string()]).unwrap()
    };
    let whole = sized(mtu, "do");
    assert!(whole.clean(), "{mtu} bytes: {}", whole.text);
    let large = sized(mtu + 1, "do");
    assert!(
        large.text.contains(&format!("mtu={mtu}")) || large.text.contains(&format!("mtu = {mtu}")),
        "{}",
        large.text
    );
    // By the sender, which has just been told of the MTU.
    // Who answers over IPv6 is told with its first answer.
    sized(20_000, "want");
    let cut = sized(20_000, "want");
    assert!(cut.clean(), "20000 bytes: {}", cut.text);
}

/// Pings, as tshark reads them.
fn on_the_wire(kind: Kind, underlay: Versions, topology: &harness::Topology) {
    let (h1, h2) = (topology.h(1), topology.h(2));
    for inner_v6 in [false, true] {
        let outer_v6 = outer_v6(underlay, inner_v6);
        let filter = kind.filters[usize::from(outer_v6)];
        let capture = Capture::of(&h2.ns, UPLINK, filter, &topology.scope.dir()).unwrap();
        let to = inside(h2)[usize::from(inner_v6)];
        assert!(ping(&h1.c(1).ns, to, 3).unwrap().clean());
        let enough = || capture.frames().is_ok_and(|frames| frames.len() >= 6);
        eventually("the pings are captured", SOON, enough).unwrap();
        let packets = capture.finish().unwrap();
        let expected = kind.protocols(outer_v6, inner_v6);
        let ours = packets.iter().filter(|packet| packet.protocols().starts_with(&expected)).count();
        let all: Vec<String> = packets.iter().map(harness::capture::Packet::protocols).collect();
        assert!(ours >= 6, "{expected}: {all:?}");
        for packet in &packets {
            assert_eq!(packet.complaint(), None);
        }
    }
}
