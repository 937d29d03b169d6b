//! The first packet to somebody of whom nothing is known arrives: the kernel asks for whose the address is.

use harness::{
    Topology, Versions, eventually,
    host::{BRIDGE, Host},
    traffic::{Endpoint, ping_with},
};

use crate::bed::{self, SOON, VERSIONS, Version, no_drops};

/// One request, and no second chance.
fn first_ping(from: Endpoint<'_, std::net::IpAddr>, to: &Host, version: Version) {
    let ping = ping_with(from.ns, version.ip(to.c(1)), 1, &["-W", "3"]).unwrap();
    assert!(ping.clean(), "{version:?} to {}: {}", to.name, ping.text);
}

/// Nobody has heard of the containers: neither the kernels nor the daemons.
fn forgotten(topology: &Topology) {
    for host in &topology.hosts {
        host.ns.ip(&format!("neigh flush dev {BRIDGE}")).unwrap();
        host.c(1).ns.ip("neigh flush dev eth0").unwrap();
    }
    for host in &topology.hosts {
        // What a container has said itself goes when it is silent for long: not within a test.
        let forgotten = |version: &Version| {
            let endpoint = host.overlayd().endpoint(version.ip(host.c(1))).unwrap();
            endpoint.is_none_or(|endpoint| endpoint.source == "spoken")
        };
        eventually("the daemon forgets", SOON, || VERSIONS.iter().all(forgotten)).unwrap();
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
                for host in [h1, h2] {
                    host.ns.ip("neigh flush dev eth0").unwrap();
                }
                first_ping(bed::end(from, 1, version), to, version);
                first_ping(Endpoint { ns: &from.ns, ip: version.gateway(from) }, to, version);
            }
        }
        no_drops(&topology);
    }
}
