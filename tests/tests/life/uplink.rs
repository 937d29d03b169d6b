//! The uplink goes down and comes up, loses its carrier, gets another name, is deleted and made again.

use harness::{Topology, eventually, two_hosts, wire::WireKind};

use crate::bed::{Flow, RECOVERY, SOON, is_well, pause, says, status};

/// The routes go with the uplink and come back with it; whoever set the default route sets it again.
fn down_and_up(topology: &Topology, routes: &[&str]) {
    let h1 = topology.h(1);
    let flow = Flow::start(topology);
    let from = flow.now();
    h1.ns.ip("link set eth0 down").unwrap();
    says(h1, &["uplink eth0 is down", "ip link set eth0 up"]);
    pause(2);
    h1.ns.ip("link set eth0 up").unwrap();
    for route in routes {
        h1.ns.ip(&format!("route add {route}")).unwrap();
    }
    let to = flow.now();
    flow.goes_on();
    is_well(h1);
    flow.lost_only_within(&[(from, to)]);
}

#[test]
fn an_uplink_that_was_down_carries_packets_at_once() {
    down_and_up(&two_hosts().unwrap(), &[]);
}

#[test]
fn an_uplink_behind_a_router_that_was_down_carries_packets_at_once() {
    let topology = Topology::builder().wire(WireKind::Routed { narrow: 1500 }).up().unwrap();
    down_and_up(&topology, &["default via 172.16.199.16"]);
}

#[test]
fn a_cable_that_was_pulled_is_no_trouble_of_ours() {
    let topology = two_hosts().unwrap();
    let (h1, wire) = (topology.h(1), topology.wire.ns().unwrap());
    let flow = Flow::start(&topology);
    let from = flow.now();
    wire.ip("link set h1 down").unwrap();
    pause(2);
    wire.ip("link set h1 up").unwrap();
    let to = flow.now();
    flow.goes_on();
    is_well(h1);
    flow.lost_only_within(&[(from, to)]);
}

#[test]
fn an_uplink_with_another_name_is_still_used() {
    let topology = two_hosts().unwrap();
    let h1 = topology.h(1);
    let flow = Flow::start(&topology);
    h1.ns.ip("link set eth0 name wan0").unwrap();
    says(h1, &["uplink eth0 is called wan0 now", "--iface wan0"]);
    // What happens to it is followed.
    h1.ns.ip("link set wan0 mtu 1400").unwrap();
    let mtu = || h1.overlayd().ctl(&["status", "-o", "json"]).unwrap()["mtu"] == 1350;
    eventually("its MTU is followed", SOON, mtu).unwrap();
    h1.ns.ip("link set wan0 mtu 1500").unwrap();
    h1.ns.ip("link set wan0 name eth0").unwrap();
    is_well(h1);
    flow.clean();
}

#[test]
fn an_uplink_that_is_made_again_is_followed() {
    let topology = two_hosts().unwrap();
    let h1 = topology.h(1);
    let flow = Flow::start(&topology);
    let from = flow.now();
    topology.wire.ns().unwrap().ip("link del h1").unwrap();
    says(h1, &["uplink eth0 is gone", "made again"]);
    pause(1);
    topology.wire.plug(&h1.ns, "h1", h1.ip, &[]).unwrap();
    let to = flow.now();
    flow.goes_on();
    eventually("it is well", RECOVERY, || status(h1).0 == "ok").unwrap();
    flow.lost_only_within(&[(from, to)]);
    let old: Vec<_> = h1.ns.run(harness::tcx::devices).unwrap().unwrap().into_keys().collect();
    let pins = overlay_user::datapath::pin::Pins::new(&h1.overlayd().config.pin_dir);
    let dead = || pins.pinned_links().unwrap().into_iter().filter(|(index, _)| !old.contains(index)).count();
    eventually("no pin of the old one is left", SOON, || dead() == 0).unwrap();
}
