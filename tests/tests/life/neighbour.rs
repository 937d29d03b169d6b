//! Peers on the uplink's own link, with new MAC addresses.

use harness::two_hosts;

use crate::bed::{Flow, is_well};

#[test]
fn a_peer_with_a_new_mac_address_is_followed() {
    let topology = two_hosts().unwrap();
    let h2 = topology.h(2);
    for (announced, mac) in [("0", "02:00:00:00:01:01"), ("1", "02:00:00:00:01:02")] {
        h2.ns.sysctl("ipv4/conf/eth0/arp_notify", announced).unwrap();
        let flow = Flow::start(&topology);
        let at = flow.now();
        h2.ns.ip(&format!("link set eth0 address {mac}")).unwrap();
        flow.goes_on();
        eprintln!("gratuitous ARP: {announced}");
        flow.lost_only_within(&[(at, at)]);
    }
    is_well(topology.h(1));
    is_well(h2);
}

/// The daemons are dead: the kernel's own neighbour discovery is what follows.
#[test]
fn a_new_mac_address_is_followed_with_the_daemons_dead() {
    let mut topology = two_hosts().unwrap();
    for number in [1, 2] {
        topology.h_mut(number).overlayd_mut().kill9().unwrap();
    }
    let flow = Flow::start(&topology);
    let at = flow.now();
    topology.h(2).ns.ip("link set eth0 address 02:00:00:00:01:03").unwrap();
    flow.goes_on();
    flow.lost_only_within(&[(at, at)]);
}
