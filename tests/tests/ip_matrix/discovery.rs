//! The first packet to somebody of whom nothing is known arrives: the kernel asks for whose the address is.

use harness::{
    Topology, Versions, eventually,
    host::{BRIDGE, Host, UPLINK},
    traffic::{Endpoint, ping_with},
};

use crate::bed::{self, SOON, VERSIONS, Version, no_drops};

/// One request, and no second chance.
fn first_ping(from: Endpoint<'_, std::net::IpAddr>, to: &Host, version: Version) {
    let ping = ping_with(from.ns, version.ip(to.c(1)), 1, &["-W", "3"]).unwrap();
    assert!(ping.clean(), "{version:?} to {}: {}", to.name, ping.text);
}

/// No kernel knows any neighbour: hosts on their bridges and uplinks, nor containers.
fn forgotten(topology: &Topology) {
    for host in &topology.hosts {
        for device in [BRIDGE, UPLINK] {
            host.ns.ip(&format!("neigh flush dev {device}")).unwrap();
        }
        host.c(1).ns.ip("neigh flush dev eth0").unwrap();
    }
}

/// The very first packets of all, in each version over each underlay.
#[test]
fn the_first_packet_to_a_container_that_nobody_has_heard_of() {
    for underlay in [Versions::V4, Versions::V6, Versions::Both] {
        let topology = bed::builder(underlay).up().unwrap();
        let (h1, h2) = (topology.h(1), topology.h(2));
        for version in VERSIONS {
            // On the host that is reached nobody has spoken to that address, nor has its container spoken.
            assert_eq!(h2.overlayd().endpoint(version.ip(h2.c(1))).unwrap(), None, "{underlay:?}");
            first_ping(bed::end(h1, 1, version), h2, version);
            eventually("then it is known", SOON, || version.is_known(h2, 1)).unwrap();
        }
        no_drops(&topology);
    }
}

/// A container that is started anew, with the same addresses: whatever was known of them is of no use.
#[test]
fn the_first_packet_to_a_container_that_was_restarted() {
    let mut topology = bed::builder(Versions::V6).containers(2).up().unwrap();
    bed::settle(&topology);
    for version in VERSIONS {
        topology.restart_container(2, 1).unwrap();
        let (h1, h2) = (topology.h(1), topology.h(2));
        first_ping(bed::end(h1, 1, version), h2, version);
        eventually("then it is known", SOON, || version.is_known(h2, 1)).unwrap();
    }
    no_drops(&topology);
}

/// The neighbour caches are cold on the uplinks and on the bridges of both hosts.
#[test]
fn the_first_packet_after_cold_neighbour_caches() {
    for underlay in [Versions::V4, Versions::V6] {
        let topology = bed::builder(underlay).up().unwrap();
        bed::settle(&topology);
        let (h1, h2) = (topology.h(1), topology.h(2));
        for (from, to) in [(h1, h2), (h2, h1)] {
            for version in VERSIONS {
                forgotten(&topology);
                first_ping(bed::end(from, 1, version), to, version);
                forgotten(&topology);
                first_ping(Endpoint { ns: &from.ns, ip: version.gateway(from) }, to, version);
            }
        }
        no_drops(&topology);
    }
}
