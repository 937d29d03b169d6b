//! A router on an IPv6 underlay that carries less than the uplinks: learned from its packet-too-big, told to whom it
//! concerns, and nothing stalls.

use std::net::IpAddr;

use harness::{
    Topology, Versions, eventually,
    host::Host,
    traffic::{Probe, ping_with, transfer},
    wire::WireKind,
};
use overlay_user::datapath::{map::Maps, pin::Pins};

use crate::{
    bed::{self, Probes, SOON, VERSIONS, Version, no_drops, route_mtu},
    socket::Ends,
};

/// Bytes that TCP carries each way.
const BYTES: usize = 1 << 20;

/// The least MTU of a link that carries IPv6 (RFC 8200 section 5).
const LEAST: u32 = 1280;

fn routed(narrow: u32, bridge_v6: bool) -> Topology {
    let builder = bed::builder(Versions::V6).versions(Versions::V6, bridge_v6);
    builder.wire(WireKind::Routed { narrow }).up().unwrap()
}

/// PATH_MTUS, as the program has written it.
fn learned(host: &Host) -> Vec<(IpAddr, u32)> {
    let maps = Maps::open(&Pins::new(&host.overlayd().config.pin_dir)).unwrap();
    maps.path_mtus().unwrap().into_iter().map(|(ip, entry)| (ip.into(), entry.mtu)).collect()
}

/// What overlayctl says, and what the kernel's routes do.
fn mtus(host: &Host, peer: &Host, versions: &[Version]) -> Vec<u64> {
    let told = host.overlayd().mtu_to(peer.ip_v6).map_or(0, u64::from);
    let routes = versions.iter().map(|version| route_mtu(host, &version.subnet(peer)).unwrap_or(0));
    [told].into_iter().chain(routes).collect()
}

#[test]
fn a_router_of_1400_is_found_by_tcp() {
    let topology = routed(1400, true);
    bed::settle(&topology);
    let (h1, h2) = (topology.h(1), topology.h(2));
    assert_eq!(mtus(h1, h2, &VERSIONS), [1430; 3]);
    let probes = Probes::start(&topology);
    for version in VERSIONS {
        transfer(bed::end(h1, 1, version), bed::end(h2, 1, version), BYTES)
            .unwrap_or_else(|e| panic!("{version:?}: {e:#}"));
    }
    // 1400 less outer IPv6, UDP, VXLAN and inner Ethernet.
    let in_force = || mtus(h1, h2, &VERSIONS) == [1330; 3];
    eventually("the router's MTU is in force", SOON, in_force).unwrap();
    assert_eq!(learned(h1), [(h2.ip_v6.into(), 1400)]);
    probes.clean();
    no_drops(&topology);
}

#[test]
fn a_router_of_1400_is_told_on_by_the_gateway() {
    let topology = routed(1400, true);
    bed::settle(&topology);
    let (h1, h2) = (topology.h(1), topology.h(2));
    let probes = Probes::start(&topology);
    for version in VERSIONS {
        // Nobody has an opinion before something was too large; what is lost by then its sender sends again.
        let fragments = Ends::new(h1.c(1), h2.c(1), version, false);
        fragments.arrives_in_the_end(1430).unwrap_or_else(|e| panic!("{version:?}: {e}"));
        eventually("the way there is learned", SOON, || mtus(h1, h2, &VERSIONS) == [1330; 3]).unwrap();
        let whole = Ends::new(h1.c(1), h2.c(1), version, true);
        whole.told(1331, 1330).unwrap_or_else(|e| panic!("{version:?}: {e}"));
        whole.arrives(1330).unwrap_or_else(|e| panic!("{version:?}: {e}"));
        let back = Ends::new(h2.c(1), h1.c(1), version, false);
        back.arrives_in_the_end(20_000).unwrap_or_else(|e| panic!("{version:?}, back: {e}"));
        eventually("the way back is learned", SOON, || mtus(h2, h1, &VERSIONS) == [1330; 3]).unwrap();
    }
    assert_eq!(learned(h1), [(h2.ip_v6.into(), 1400)]);
    probes.clean();
    no_drops(&topology);
}

/// As little as IPv6 allows outside: inside there is room for IPv4 only, and that goes on.
#[test]
fn a_router_of_1280_leaves_room_for_ipv4_only() {
    let topology = routed(LEAST, false);
    bed::settle_in(&topology, &[Version::V4]);
    let (h1, h2) = (topology.h(1), topology.h(2));
    let (here, there) = (bed::end(h1, 1, Version::V4), bed::end(h2, 1, Version::V4));
    let probe = Probe::start(here, there, 500, std::time::Duration::from_secs(60)).unwrap();
    transfer(here, there, BYTES).unwrap();
    let inner = LEAST - 70;
    let in_force = || mtus(h1, h2, &[Version::V4]) == [u64::from(inner); 2];
    eventually("the router's MTU is in force", SOON, in_force).unwrap();
    let whole = Ends::new(h1.c(1), h2.c(1), Version::V4, true);
    whole.told(inner + 1, inner).unwrap();
    whole.arrives(inner).unwrap();
    let ping = ping_with(here.ns, there.ip, 3, &["-M", "dont", "-s", "4000"]).unwrap();
    assert!(ping.lost() <= 1, "the way back is learned by a reply: {}", ping.text);
    let report = probe.finish().unwrap();
    assert!(report.clean(), "{report}");
    no_drops(&topology);
}

/// The lines of trouble that a daemon tells in its status.
fn trouble(host: &Host) -> String {
    let status = host.overlayd().ctl(&["status", "-o", "json"]).unwrap();
    status["message"].as_str().unwrap().to_owned()
}

/// With an IPv6 subnet besides: 1210 bytes are too few for IPv6 (RFC 8200 section 5). Only a router says so, whom nothing
/// proves to be one: small packets go on, and what is lost is said in one line. IPv4 to the same peer has its MTU.
#[test]
fn an_ipv6_subnet_over_a_router_of_1280_is_told_in_words() {
    let topology = routed(LEAST, true);
    bed::settle(&topology);
    let (h1, h2) = (topology.h(1), topology.h(2));
    let probes = Probes::start(&topology);
    let (here, there) = (bed::end(h1, 1, Version::V4), bed::end(h2, 1, Version::V4));
    transfer(here, there, BYTES).unwrap();
    let subnet = Version::V6.subnet(h2);
    let told = || {
        let line = trouble(h1);
        line.contains(&subnet) && line.contains("1280") && line.lines().count() == 1
    };
    eventually("the subnet is told of by name", SOON, told).unwrap();
    assert_eq!(route_mtu(h1, &Version::V4.subnet(h2)), Some(1210));
    transfer(here, there, BYTES).unwrap();
    probes.clean();
    no_drops(&topology);
}

/// Where the uplinks themselves carry too little the IPv6 subnet is not served, which is said in one line; IPv4 is.
#[test]
fn an_ipv6_subnet_over_uplinks_that_are_too_small_is_refused_in_words() {
    for (underlay, overhead) in [(Versions::V4, 50), (Versions::V6, 70)] {
        let mtu = 1280 + overhead - 1;
        let mut topology = bed::builder(underlay).uplink_mtu(mtu).without_overlayd().up().unwrap();
        for host in 0..2 {
            topology.start_overlayd(host).unwrap();
        }
        let (h1, h2) = (topology.h(1), topology.h(2));
        let subnet = Version::V6.subnet(h2);
        let refused = || {
            let line = trouble(h1);
            line.contains(&subnet) && line.contains("1280") && line.lines().count() == 1
        };
        eventually("the subnet is refused by name", SOON, refused).unwrap();
        assert_eq!(h1.overlayd().routes().unwrap(), [Version::V4.subnet(h2)], "{underlay:?}");
        assert_eq!(route_mtu(h1, &subnet), None, "{underlay:?}");
        transfer(bed::end(h1, 1, Version::V4), bed::end(h2, 1, Version::V4), BYTES).unwrap();
        no_drops(&topology);
        // A byte more, and all is well: followed, as every change of an uplink is.
        for host in [h1, h2] {
            host.ns.ip(&format!("link set eth0 mtu {}", mtu + 1)).unwrap();
        }
        let wire = topology.wire.ns().unwrap();
        for device in ["h1", "h2", "br0"] {
            wire.ip(&format!("link set {device} mtu {}", mtu + 1)).unwrap();
        }
        bed::settle(&topology);
        let whole = Ends::new(h1.c(1), h2.c(1), Version::V6, true);
        whole.arrives(1280).unwrap_or_else(|e| panic!("{underlay:?}: {e}"));
        transfer(bed::end(h1, 1, Version::V6), bed::end(h2, 1, Version::V6), BYTES).unwrap();
        eventually("nothing is wrong any more", SOON, || trouble(h1).is_empty()).unwrap();
    }
}
