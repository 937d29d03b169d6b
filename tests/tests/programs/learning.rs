//! What `workload_egress` learns from senders, and what it refuses to.

use overlay_common::{
    DropReason,
    map::{
        Direction::ToPeer, Endpoint, EndpointSource, MAX_LEARNED_PER_PORT, Port, port_flag,
        program::WORKLOAD_EGRESS,
    },
};
use overlay_user::datapath::map::Maps;

use crate::{
    bed::{moved_event, with_bed},
    case::{Case, DROP, NEXT, REDIRECT, run_table},
    packet::{Addr, IPV4, Ipv4, eth},
    skb::Context,
    world::{
        A, BROADCAST, CONTAINER, CONTAINER_MAC, GATEWAY, GATEWAY_MAC, NEW, OTHER, OTHER_MAC, SUBNET, dev,
        endpoint, endpoint_key, from_container, port, to_peer,
    },
};

/// Somewhere that no route leads.
const ELSEWHERE: Addr = [8, 8, 8, 8];

fn case(name: &str, src: Addr) -> Case {
    Case::new(name, WORKLOAD_EGRESS, dev::PORT, from_container(&Ipv4::udp(src, ELSEWHERE)))
}

fn spoken(mac: [u8; 6]) -> Endpoint {
    endpoint(dev::PORT, mac, EndpointSource::Spoken)
}

#[test]
fn whoever_speaks_is_learned() {
    let to_neighbour = eth(OTHER_MAC, CONTAINER_MAC, IPV4, &Ipv4::udp(NEW, OTHER).bytes());
    let options = from_container(&Ipv4 { options: vec![1; 4], ..Ipv4::udp(NEW, A.container) });
    let to_peer = from_container(&Ipv4::udp(NEW, A.container));
    let of = |name, packet| Case::new(name, WORKLOAD_EGRESS, dev::PORT, packet);
    run_table(&[
        case("towards anywhere", NEW).learns(NEW, spoken(CONTAINER_MAC)),
        of("towards a neighbour on the bridge", to_neighbour).learns(NEW, spoken(CONTAINER_MAC)),
        of("in a packet left to the kernel", options).learns(NEW, spoken(CONTAINER_MAC)),
        case("the subnet's first address", [172, 17, 0, 1]).learns([172, 17, 0, 1], spoken(CONTAINER_MAC)),
        case("the subnet's last address", [172, 17, 255, 254])
            .learns([172, 17, 255, 254], spoken(CONTAINER_MAC)),
        case("x.y.z.0 inside the subnet", [172, 17, 5, 0]).learns([172, 17, 5, 0], spoken(CONTAINER_MAC)),
        of("an interface that is no port", to_peer.clone()).on(dev::STRAY),
        of("the bridge", from_container(&Ipv4::udp(NEW, ELSEWHERE))).on(dev::BRIDGE),
    ]);
}

#[test]
fn addresses_that_are_nobodys_are_never_learned() {
    let frame_from = |mac| eth(GATEWAY_MAC, mac, IPV4, &Ipv4::udp(NEW, ELSEWHERE).bytes());
    let group = |name, mac| Case::new(name, WORKLOAD_EGRESS, dev::PORT, frame_from(mac));
    // A port whose subnet is all of IPv4 lets addresses through that no subnet check would.
    let anywhere = |name: &str, src| {
        case(name, src).with(|maps| {
            let everything = Port { subnet: [0; 4], mask: [0; 4], ..port(port_flag::PEER) };
            maps.put_port(dev::PORT, everything).unwrap();
        })
    };
    run_table(&[
        case("the network's address", SUBNET),
        case("the broadcast address", BROADCAST),
        case("the gateway", GATEWAY).with(|maps| maps.delete_endpoint(endpoint_key(GATEWAY)).unwrap()),
        case("outside the subnet", [172, 16, 255, 255]),
        group("from a multicast MAC address", [0x01, 0, 0x5e, 0, 0, 1]),
        group("from the broadcast MAC address", [0xff; 6]),
        anywhere("a multicast address", [224, 0, 0, 1]),
        anywhere("the highest multicast address", [239, 255, 255, 255]),
        anywhere("255.255.255.255", [255; 4]),
        anywhere("0.0.0.0", [0; 4]),
    ]);
}

#[test]
fn small_subnets_have_their_own_reserved_addresses() {
    let narrow = |name: &str, src: Addr, mask: Addr| {
        case(name, src).with(move |maps| {
            let subnet = [192, 168, 5, 0];
            let narrow = Port { subnet, mask, gateway: [192, 168, 5, 9], ..port(port_flag::PEER) };
            maps.put_port(dev::PORT, narrow).unwrap();
        })
    };
    let of = |last| [192, 168, 5, last];
    run_table(&[
        narrow("/30: network", of(0), [255, 255, 255, 252]),
        narrow("/30: host", of(2), [255, 255, 255, 252]).learns(of(2), spoken(CONTAINER_MAC)),
        narrow("/30: broadcast", of(3), [255, 255, 255, 252]),
        // RFC 3021: a /31 has neither.
        narrow("/31: lower", of(0), [255, 255, 255, 254]).learns(of(0), spoken(CONTAINER_MAC)),
        narrow("/31: upper", of(1), [255, 255, 255, 254]).learns(of(1), spoken(CONTAINER_MAC)),
        narrow("/32", of(0), [255; 4]).learns(of(0), spoken(CONTAINER_MAC)),
    ]);
}

#[test]
fn only_the_dead_are_displaced() {
    let put = |addr: Addr, entry: Endpoint| {
        move |maps: &mut Maps| {
            maps.put_endpoint(endpoint_key(addr), entry).unwrap();
        }
    };
    let at = |ifindex, source| endpoint(ifindex, OTHER_MAC, source);
    let told = || moved_event(dev::PORT, NEW, CONTAINER_MAC);
    run_table(&[
        case("an entry whose interface is gone", NEW)
            .with(put(NEW, at(dev::GONE, EndpointSource::Spoken)))
            .learns(NEW, spoken(CONTAINER_MAC)),
        case("even Docker's, whose interface is gone", NEW)
            .with(put(NEW, at(dev::GONE, EndpointSource::Docker)))
            .learns(NEW, spoken(CONTAINER_MAC)),
        case("a live entry on another port", NEW)
            .with(put(NEW, at(dev::OTHER_PORT, EndpointSource::Spoken)))
            .tells(told()),
        case("a live entry on an interface that is no port", NEW)
            .with(put(NEW, at(dev::STRAY, EndpointSource::Neighbour)))
            .tells(told()),
        case("another MAC address on the same port", NEW)
            .with(put(NEW, at(dev::PORT, EndpointSource::Docker)))
            .tells(told()),
        case("itself", CONTAINER),
        case("the gateway's entry is never taken over", GATEWAY)
            .with(put(GATEWAY, Endpoint { flags: 2, ..at(dev::GONE, EndpointSource::Gateway) })),
    ]);
}

#[test]
fn a_port_learns_so_many_and_no_more() {
    let learned = |learned| {
        move |maps: &mut Maps| {
            let full = Port { learned, ..port(port_flag::PEER) };
            maps.put_port(dev::PORT, full).unwrap();
        }
    };
    let to_a = |src| {
        Case::new("to a peer", WORKLOAD_EGRESS, dev::PORT, from_container(&Ipv4::udp(src, A.container)))
    };
    run_table(&[
        case("the last one", NEW).with(learned(MAX_LEARNED_PER_PORT - 1)).learns(NEW, spoken(CONTAINER_MAC)),
        case("one too many", NEW).with(learned(MAX_LEARNED_PER_PORT)),
        to_a(NEW).with(learned(MAX_LEARNED_PER_PORT)).drops(DropReason::PortFull),
        // Whoever is known stays welcome.
        to_a(CONTAINER)
            .with(learned(MAX_LEARNED_PER_PORT))
            .tunnels(to_peer(&A, 0, Ipv4 { ttl: 63, ..Ipv4::udp(CONTAINER, A.container) }.bytes()))
            .counts(A.id, ToPeer, 1, 84),
    ]);
}

/// The cap as a container meets it that speaks from every address of its subnet.
#[test]
fn one_container_cannot_fill_the_table() {
    with_bed(|bed| {
        let context = Context { ifindex: dev::PORT, ..Context::default() };
        let before = bed.maps.endpoints().unwrap().len();
        let mut verdicts = std::collections::BTreeMap::new();
        for n in 0..1000_u16 {
            let [high, low] = n.to_be_bytes();
            let frame = from_container(&Ipv4::udp([172, 17, 100 + high, low], A.container));
            *verdicts.entry(bed.run(WORKLOAD_EGRESS, context, &frame).verdict).or_insert(0) += 1;
        }
        assert_eq!(bed.maps.endpoints().unwrap().len() - before, MAX_LEARNED_PER_PORT as usize);
        assert_eq!(verdicts, [(DROP, 744), (REDIRECT, 256)].into());
        assert_eq!(bed.dropped(DropReason::PortFull), 744);
    });
}

#[test]
fn last_seen_moves_once_a_second() {
    with_bed(|bed| {
        let context = Context { ifindex: dev::PORT, ..Context::default() };
        let frame = from_container(&Ipv4::udp(CONTAINER, ELSEWHERE));
        let mut speak = || {
            assert_eq!(bed.run(WORKLOAD_EGRESS, context, &frame).verdict, NEXT);
            bed.maps.endpoint(endpoint_key(CONTAINER)).unwrap().unwrap().last_seen
        };
        let clock = || {
            let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
            time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
        };
        let first = speak();
        // The clock of the programs has the resolution of a tick: at most 10 ms behind.
        assert!(clock() - first < 1_000_000_000, "{first} is not now");
        assert_eq!(speak(), first);
        std::thread::sleep(std::time::Duration::from_millis(1050));
        assert!(speak() > first + 1_000_000_000);
    });
}

#[test]
fn a_port_tells_of_moves_ten_times_a_second_at_most() {
    with_bed(|bed| {
        let frame = from_container(&Ipv4::udp(OTHER, ELSEWHERE));
        let context = Context { ifindex: dev::PORT, ..Context::default() };
        let started = std::time::Instant::now();
        for _ in 0..500 {
            bed.run(WORKLOAD_EGRESS, context, &frame);
        }
        let most = 2 + started.elapsed().as_millis() as usize / 100;
        let events = bed.events();
        assert!((1..=most).contains(&events.len()), "{} events, {most} at most", events.len());
        assert!(events.iter().all(|event| *event == moved_event(dev::PORT, OTHER, CONTAINER_MAC)));
    });
}
