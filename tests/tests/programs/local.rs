//! Between containers of one bridge, and what they claim to be.

use overlay_common::{
    DropReason,
    map::{
        Direction::ToPeer, Endpoint, EndpointSource, Traffic, endpoint_flag, port_flag,
        program::WORKLOAD_EGRESS,
    },
};
use overlay_user::datapath::map::Maps;

use crate::{
    bed::moved_event,
    case::{Case, run_table},
    packet::{ARP, Addr, IPV4, Ipv4, Mac, eth},
    world::{
        A, BROADCAST, CONTAINER, CONTAINER_MAC, GATEWAY, GATEWAY_MAC, NEW, OTHER, OTHER_MAC, dev, endpoint,
        endpoint_key, port,
    },
};

fn frame(dst_mac: Mac, src: Addr, dst: Addr) -> Vec<u8> {
    eth(dst_mac, CONTAINER_MAC, IPV4, &Ipv4::udp(src, dst).bytes())
}

fn open(maps: &mut Maps) {
    for port_of in [dev::PORT, dev::OTHER_PORT] {
        maps.put_port(port_of, port(port_flag::PEER | port_flag::LOCAL)).unwrap();
    }
    maps.put_port(dev::BRIDGE, port(port_flag::BRIDGE | port_flag::LOCAL)).unwrap();
}

fn case(name: &str, packet: Vec<u8>) -> Case {
    Case::new(name, WORKLOAD_EGRESS, dev::PORT, packet).with(open)
}

#[test]
fn a_neighbour_is_reached_past_the_bridge() {
    let to_other = || frame(OTHER_MAC, CONTAINER, OTHER);
    let fragment =
        Ipv4 { flags_fragment: 0x2001, ttl: 1, options: vec![1; 4], ..Ipv4::udp(CONTAINER, OTHER) };
    let fragment = eth(OTHER_MAC, CONTAINER_MAC, IPV4, &fragment.bytes());
    let len = fragment.len() - 14;
    run_table(&[
        case("a packet", to_other()).redirects(to_other()).counts(Traffic::LOCAL, ToPeer, 1, 84),
        // What a bridge would forward goes as it is: no hop, no MTU.
        case("a fragment with options and TTL 1", fragment.clone()).redirects(fragment).counts(
            Traffic::LOCAL,
            ToPeer,
            1,
            len,
        ),
        Case::new("where it is not permitted", WORKLOAD_EGRESS, dev::PORT, to_other()),
        case("on the bridge itself", to_other()).on(dev::BRIDGE),
    ]);
}

#[test]
fn what_is_not_plainly_local_is_left_to_the_bridge() {
    let put = |addr, entry| move |maps: &mut Maps| maps.put_endpoint(endpoint_key(addr), entry).unwrap();
    let other = endpoint(dev::OTHER_PORT, OTHER_MAC, EndpointSource::Neighbour);
    run_table(&[
        case("a router's MAC address", frame(OTHER_MAC, CONTAINER, [8, 8, 8, 8])),
        case("to a peer by way of a neighbour", frame(OTHER_MAC, CONTAINER, A.container)),
        case("a virtual IP at another MAC address", frame([2, 9, 9, 9, 9, 9], CONTAINER, OTHER)),
        case("an address nobody knows", frame(OTHER_MAC, CONTAINER, NEW)),
        case("broadcast", frame([0xff; 6], CONTAINER, BROADCAST)),
        case("a broadcast frame to a neighbour", frame([0xff; 6], CONTAINER, OTHER)),
        case("multicast", frame([1, 0, 0x5e, 0, 0, 0xfb], CONTAINER, [224, 0, 0, 251])),
        case("a neighbour on a dead interface", frame(OTHER_MAC, CONTAINER, OTHER))
            .with(put(OTHER, Endpoint { ifindex: dev::GONE, ..other })),
        case("a neighbour that is no veth", frame(OTHER_MAC, CONTAINER, OTHER))
            .with(put(OTHER, Endpoint { flags: 0, ..other })),
        case("to itself", frame(CONTAINER_MAC, CONTAINER, CONTAINER)),
        case("the gateway, which is no veth", frame([2, 9, 9, 9, 9, 9], CONTAINER, GATEWAY)).with(put(
            GATEWAY,
            Endpoint {
                flags: endpoint_flag::HOST,
                ..endpoint(dev::BRIDGE, GATEWAY_MAC, EndpointSource::Gateway)
            },
        )),
        case("forwarded from elsewhere", frame(OTHER_MAC, [192, 168, 7, 7], OTHER)),
        case("another's address", frame(OTHER_MAC, OTHER, OTHER)).tells(moved_event(
            dev::PORT,
            OTHER,
            CONTAINER_MAC,
        )),
    ]);
}

/// An ARP packet as `sender` says it to everybody.
fn arp(operation: u8, sender: Addr) -> Vec<u8> {
    let mut arp = vec![0, 1, 8, 0, 6, 4, 0, operation];
    arp.extend(CONTAINER_MAC);
    arp.extend(sender);
    arp.extend([0; 6]);
    arp.extend(GATEWAY);
    eth([0xff; 6], CONTAINER_MAC, ARP, &arp)
}

#[test]
fn nobody_is_the_gateway() {
    let claims = |name: &str, packet| case(name, packet).drops(DropReason::GatewayClaimed);
    run_table(&[
        claims("an ARP reply", arp(2, GATEWAY)),
        claims("a gratuitous ARP request", arp(1, GATEWAY)),
        claims("an ARP reply, on the bridge", arp(2, GATEWAY)).on(dev::BRIDGE),
        claims("its MAC address", eth(OTHER_MAC, GATEWAY_MAC, IPV4, &Ipv4::udp(CONTAINER, OTHER).bytes())),
        claims("its MAC address in any protocol", eth([0xff; 6], GATEWAY_MAC, 0x88b5, &[0; 46])),
        case("ARP for oneself", arp(1, CONTAINER)),
        case("an ARP probe", arp(1, [0; 4])),
        case("ARP for another, which the daemon judges", arp(2, OTHER)),
        case("an ARP packet cut off", arp(2, GATEWAY)[..41].to_vec()),
    ]);
}
