//! Peers behind routers: another gateway, and a gateway with another MAC address.

use harness::{Topology, eventually, wire::WireKind};
use overlay_user::datapath::{map::Maps, pin::Pins};

use crate::bed::{Flow, SOON, is_well};

fn routed() -> Topology {
    Topology::builder().wire(WireKind::Routed { narrow: 1500 }).up().unwrap()
}

#[test]
fn another_gateway_is_followed_and_nothing_is_lost() {
    let topology = routed();
    let (h1, router) = (topology.h(1), topology.wire.ns().unwrap());
    router.ip("addr add 192.0.2.1/24 dev h1").unwrap();
    h1.ns.ip("addr add 192.0.2.2/24 dev eth0").unwrap();
    let maps = Maps::open(&Pins::new(&h1.overlayd().config.pin_dir)).unwrap();
    let next_hop = || {
        let (_, route) = maps.routes().unwrap()[0];
        let tunnels = maps.tunnels().unwrap();
        tunnels
            .iter()
            .find(|(id, _)| *id == route.tunnel)
            .and_then(|(_, tunnel)| tunnel.hops[0].next_hop.to_v4())
    };
    let flow = Flow::start(&topology);
    for gateway in ["192.0.2.1", "172.16.199.16", "192.0.2.1", "172.16.199.16"] {
        h1.ns.ip(&format!("route replace default via {gateway}")).unwrap();
        eventually(&format!("through {gateway}"), SOON, || next_hop() == gateway.parse().ok()).unwrap();
        flow.goes_on();
    }
    // Between two routes there is none for a moment: the last one is still right.
    h1.ns.ip("route del default").unwrap();
    flow.goes_on();
    h1.ns.ip("route add default via 172.16.199.16").unwrap();
    is_well(h1);
    flow.clean();
}

#[test]
fn a_gateway_with_a_new_mac_address_is_followed() {
    let topology = routed();
    let router = topology.wire.ns().unwrap();
    for (announced, mac) in [("0", "02:00:00:00:01:01"), ("1", "02:00:00:00:01:02")] {
        router.sysctl("ipv4/conf/h1/arp_notify", announced).unwrap();
        let flow = Flow::start(&topology);
        let at = flow.now();
        router.ip(&format!("link set h1 address {mac}")).unwrap();
        flow.goes_on();
        eprintln!("gratuitous ARP: {announced}");
        flow.lost_only_within(&[(at, at)]);
    }
    is_well(topology.h(1));
}
