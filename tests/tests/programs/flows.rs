//! Flows that a CPU remembers: the same verdict as the tables', and none any more once the tables say otherwise.

use overlay_common::{
    DropReason,
    addr::MapIp,
    map::{
        EndpointSource, PeerKey, Route, RouteSource,
        program::{UPLINK_INGRESS, WORKLOAD_EGRESS},
        slot,
    },
    vni::VniKey,
};
use overlay_user::datapath::map::Maps;

use crate::{
    bed::{Bed, with_bed},
    case::{DROP, NEXT, REDIRECT},
    packet::{Addr, Ipv4},
    skb::Context,
    world::{
        A, B, CONTAINER, CONTAINER_MAC, OTHER, OTHER_MAC, dev, endpoint, endpoint_key, from_container,
        from_peer, route_key,
    },
};

fn outgoing(bed: &mut Bed, src: Addr, dst: Addr) -> (i32, Vec<u8>) {
    let context = Context { ifindex: dev::PORT, ..Context::default() };
    let ran = bed.run(WORKLOAD_EGRESS, context, &from_container(&Ipv4::udp(src, dst)));
    (ran.verdict, ran.packet)
}

fn incoming(bed: &mut Bed, src: Addr, dst: Addr) -> (i32, Vec<u8>) {
    let context = Context { ifindex: dev::UPLINK, ..Context::default() };
    let ran = bed.run(UPLINK_INGRESS, context, &from_peer(&A, Ipv4::udp(src, dst).bytes()).bytes());
    (ran.verdict, ran.packet)
}

/// The verdict once a flow is remembered and the tables have changed.
fn after(
    bed: &mut Bed,
    run: impl Fn(&mut Bed) -> (i32, Vec<u8>),
    change: impl FnOnce(&mut Maps),
) -> (i32, Vec<u8>) {
    bed.reset();
    for _ in 0..2 {
        assert_eq!(run(bed).0, REDIRECT, "before the change");
    }
    change(&mut bed.maps);
    run(bed)
}

#[test]
fn what_a_container_sends_follows_the_tables() {
    with_bed(|bed| {
        let run = |bed: &mut Bed| outgoing(bed, CONTAINER, A.container);
        let mut verdict = |change: fn(&mut Maps)| after(bed, run, change).0;
        assert_eq!(verdict(|_| ()), REDIRECT);
        assert_eq!(verdict(|maps| maps.delete_route(route_key(A.subnet, 16)).unwrap()), NEXT, "no route");
        assert_eq!(verdict(|maps| maps.delete_port(dev::PORT).unwrap()), NEXT, "no port");
        let elsewhere = |maps: &mut Maps| {
            let moved = endpoint(dev::OTHER_PORT, CONTAINER_MAC, EndpointSource::Docker);
            maps.put_endpoint(endpoint_key(CONTAINER), moved).unwrap();
        };
        assert_eq!(verdict(elsewhere), DROP, "the address is another container's");
        let other_mac = |maps: &mut Maps| {
            let changed = endpoint(dev::PORT, OTHER_MAC, EndpointSource::Docker);
            maps.put_endpoint(endpoint_key(CONTAINER), changed).unwrap();
        };
        assert_eq!(verdict(other_mac), DROP, "the address has another MAC address");
        let dropped = bed.dropped(DropReason::SourceMacSpoofed);
        assert!(dropped > 0);
        let to_b = |maps: &mut Maps| {
            let route = Route { tunnel: B.tunnel, peer: B.id, source: RouteSource::File as u32 };
            maps.put_route(route_key(A.container, 32), route).unwrap();
        };
        let (verdict, packet) = after(bed, run, to_b);
        assert_eq!((verdict, &packet[30..34]), (REDIRECT, &B.underlay[..]), "a more specific route");
    });
}

#[test]
fn what_a_peer_sends_follows_the_tables() {
    with_bed(|bed| {
        let run = |bed: &mut Bed| incoming(bed, A.container, CONTAINER);
        let refused = |bed: &mut Bed, reason: DropReason, change: fn(&mut Maps)| {
            let before = bed.dropped(reason);
            assert_eq!(after(bed, run, change).0, DROP, "{}", reason.name());
            assert_eq!(bed.dropped(reason), before + 1, "{}", reason.name());
        };
        assert_eq!(after(bed, run, |_| ()).0, REDIRECT);
        refused(bed, DropReason::InnerSource, |maps| maps.delete_route(route_key(A.subnet, 16)).unwrap());
        refused(bed, DropReason::UnknownPeer, |maps| {
            let ip = MapIp::v4(A.underlay);
            for (key, _) in maps.peers().unwrap().into_iter().filter(|(key, _)| key.ip == ip) {
                maps.delete_peer(key).unwrap();
            }
            assert_eq!(maps.peer(PeerKey { vni: VniKey::NONE, ip }).unwrap(), None);
        });
        let elsewhere = |maps: &mut Maps| {
            let moved = endpoint(dev::OTHER_PORT, OTHER_MAC, EndpointSource::Docker);
            maps.put_endpoint(endpoint_key(CONTAINER), moved).unwrap();
        };
        let (verdict, packet) = after(bed, run, elsewhere);
        assert_eq!((verdict, &packet[..6]), (REDIRECT, &OTHER_MAC[..]), "the container has moved");
        let gone = |maps: &mut Maps| {
            let gone = endpoint(dev::GONE, CONTAINER_MAC, EndpointSource::Docker);
            maps.put_endpoint(endpoint_key(CONTAINER), gone).unwrap();
        };
        assert_eq!(after(bed, run, gone).0, REDIRECT, "to the bridge, which looks for it");
    });
}

/// An address other than `not` that shares the slot of the flow from `src` to `dst`, in the place that `with` puts it.
fn neighbour(taken: (Addr, Addr), with: impl Fn(Addr) -> (Addr, Addr)) -> (Addr, Addr) {
    let of = |(src, dst): (Addr, Addr)| slot(MapIp::v4(src), MapIp::v4(dst));
    let all = (0..=u16::MAX).map(|n| with([172, 27, (n >> 8) as u8, n as u8]));
    all.filter(|pair| *pair != taken).find(|pair| of(*pair) == of(taken)).unwrap()
}

#[test]
fn flows_that_share_an_entry_are_told_apart() {
    with_bed(|bed| {
        bed.reset();
        // Neither is a container's of this port.
        let spoofed = neighbour((CONTAINER, A.container), |addr| (OTHER, addr));
        for _ in 0..3 {
            assert_eq!(outgoing(bed, CONTAINER, A.container).0, REDIRECT);
            assert_eq!(outgoing(bed, spoofed.0, spoofed.1).0, DROP);
        }
        // The peer's, from an address that is not.
        let forged = neighbour((A.container, CONTAINER), |[_, _, c, d]| ([172, 28, c, d], CONTAINER));
        for _ in 0..3 {
            assert_eq!(incoming(bed, A.container, CONTAINER).0, REDIRECT);
            assert_eq!(incoming(bed, forged.0, forged.1).0, DROP);
        }
        // The same flow in another VNI, or from another host.
        let context = Context { ifindex: dev::UPLINK, ..Context::default() };
        let inner = Ipv4::udp(A.container, CONTAINER).bytes();
        for (host, reason) in [(B, DropReason::InnerSource), (A, DropReason::WrongVni)] {
            assert_eq!(incoming(bed, A.container, CONTAINER).0, REDIRECT);
            let mut packet = from_peer(&host, inner.clone()).bytes();
            if reason == DropReason::WrongVni {
                packet[48] ^= 1;
            }
            let before = bed.dropped(reason);
            assert_eq!(bed.run(UPLINK_INGRESS, context, &packet).verdict, DROP, "{}", reason.name());
            assert_eq!(bed.dropped(reason), before + 1, "{}", reason.name());
        }
    });
}
