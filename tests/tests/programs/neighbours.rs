//! The neighbours behind peers that are bridges: their ARP is answered, they are learned, and sent to.

use overlay_common::{
    DropReason, Encap, Mac as MacAddr,
    addr::MapIp,
    event::{Event, NEIGHBOUR_WANTED},
    map::{
        Direction::ToPeer,
        Neighbour, NeighbourKey, Peer, PeerKey, Tunnel, peer_flag,
        program::{UPLINK_INGRESS, UPLINK_KINDS, UPLINK_RESOLVE, WORKLOAD_EGRESS},
        tunnel_flag,
    },
    vni::VniKey,
};
use overlay_user::{datapath::map::Maps, endpoints::monotonic_now};

use crate::{
    bed::with_bed,
    case::{Case, run_table},
    kinds_on_wire::came,
    packet::{ARP, Addr, FRAME, GRE, IPV4, Ipv4, Mac, UDP, eth, geneve, gre, udp},
    skb::Context,
    world::{
        A, B, BROADCAST, CONTAINER, GATEWAY, GENEVE_PORT, NEW, PORT_NUMBER, PeerHost, UNDERLAY, UPLINK_MAC,
        VTEP_MAC, dev, entry, from_container, tunnel_in,
    },
};

/// The bridge of the peer, and one of its containers.
const BRIDGE: Addr = [172, 27, 0, 1];
const BRIDGE_MAC: Mac = [0x02, 0x42, 9, 9, 9, 1];
const THEIRS_MAC: Mac = [0x02, 0x42, 9, 9, 9, 9];

/// The peer is a bridge: nobody told of a VTEP.
fn bridge(maps: &mut Maps) {
    let tunnel = tunnel_in(&PeerHost { vtep_mac: [0xff; 6], ..A }, Encap::Gre, None);
    let flags = tunnel.flags | tunnel_flag::LEARN;
    maps.put_tunnel(A.tunnel, Tunnel { flags, gateway: MapIp::v4(BRIDGE), ..tunnel }).unwrap();
    for ip in [BRIDGE, A.container] {
        maps.delete_neighbour(NeighbourKey { peer: A.id, ip: MapIp::v4(ip) }).unwrap();
    }
    let ip = MapIp::v4(A.underlay);
    for vni in [VniKey::NONE, VniKey { bytes: A.vni.to_be_bytes() }] {
        maps.put_peer(PeerKey { vni, ip }, Peer { flags: peer_flag::LEARN, ..entry(&A) }).unwrap();
    }
}

fn knows(ip: Addr, mac: Mac, ago: u64) -> impl Fn(&mut Maps) + Sync {
    move |maps: &mut Maps| {
        let now = monotonic_now();
        let entry = Neighbour { seen: now - ago, asked: now, mac: MacAddr(mac), padding: [0; 2] };
        maps.put_neighbour(NeighbourKey { peer: A.id, ip: MapIp::v4(ip) }, entry).unwrap();
    }
}

fn arp(operation: u8, sender: (Mac, Addr), target: (Mac, Addr)) -> Vec<u8> {
    let mut arp = vec![0, 1, 8, 0, 6, 4, 0, operation];
    for (mac, ip) in [sender, target] {
        arp.extend(mac);
        arp.extend(ip);
    }
    arp
}

fn asks(sender: Addr, target: Addr) -> Vec<u8> {
    eth([0xff; 6], BRIDGE_MAC, ARP, &arp(1, (BRIDGE_MAC, sender), ([0; 6], target)))
}

fn answer(target: Addr) -> Vec<u8> {
    eth(BRIDGE_MAC, VTEP_MAC, ARP, &arp(2, (VTEP_MAC, target), (BRIDGE_MAC, BRIDGE)))
}

fn in_gre(frame: &[u8]) -> (u8, Vec<u8>) {
    (GRE, gre(FRAME, None, frame))
}

/// What leaves instead of what came, to where it came from.
fn back(protocol: u8, payload: Vec<u8>) -> Vec<u8> {
    let outer = Ipv4 { protocol, payload, ..Ipv4::udp(UNDERLAY, A.underlay) };
    eth([0x02, 0, 0, 0, 0, 0x20], UPLINK_MAC, IPV4, &outer.bytes())
}

fn row(name: &str, (protocol, payload): (u8, Vec<u8>)) -> Case {
    Case::new(name, UPLINK_RESOLVE, dev::UPLINK, came(&A, protocol, payload)).with(bridge)
}

#[test]
fn who_asks_for_our_addresses_is_answered() {
    let answered = |name: &str, target| {
        let (protocol, payload) = in_gre(&answer(target));
        row(name, in_gre(&asks(BRIDGE, target))).redirects(back(protocol, payload))
    };
    let in_geneve = |frame: &[u8]| (UDP, udp(50_000, GENEVE_PORT, &geneve(A.vni, 0, &[], frame)));
    let in_vxlan = |frame: &[u8]| {
        let vxlan = [&[8, 0, 0, 0][..], &(A.vni << 8).to_be_bytes(), frame].concat();
        (UDP, udp(50_000, PORT_NUMBER, &vxlan))
    };
    let (geneve, vxlan) = (in_geneve(&answer(GATEWAY)), in_vxlan(&answer(GATEWAY)));
    let asked_in_vxlan = came(&A, UDP, in_vxlan(&asks(BRIDGE, GATEWAY)).1);
    run_table(&[
        answered("a container", CONTAINER),
        answered("the gateway", GATEWAY),
        answered("whom nobody has heard of yet", NEW),
        row("in Geneve", in_geneve(&asks(BRIDGE, GATEWAY))).redirects(back(geneve.0, geneve.1)),
        row("in VXLAN", in_vxlan(&asks(BRIDGE, GATEWAY))).redirects(back(vxlan.0, vxlan.1)),
        Case::new("VXLAN's program leaves it to ours", UPLINK_INGRESS, dev::UPLINK, asked_in_vxlan)
            .with(bridge),
        Case::new("so does that of the other kinds", UPLINK_KINDS, dev::UPLINK, {
            came(&A, GRE, in_gre(&asks(BRIDGE, GATEWAY)).1)
        })
        .with(bridge),
        row("somebody else's address", in_gre(&asks(BRIDGE, [172, 27, 0, 77]))).drops(DropReason::NotLocal),
        row("a broadcast address", in_gre(&asks(BRIDGE, BROADCAST))).drops(DropReason::NotLocal),
        row("from another peer's address", in_gre(&asks(B.container, GATEWAY)))
            .drops(DropReason::InnerSource),
        row("from ours", in_gre(&asks(CONTAINER, GATEWAY))).drops(DropReason::InnerSource),
        row("cut off", in_gre(&asks(BRIDGE, GATEWAY)[..40])).drops(DropReason::InnerMalformed),
        row("no ARP", in_gre(&eth(VTEP_MAC, BRIDGE_MAC, IPV4, &Ipv4::udp(A.container, CONTAINER).bytes()))),
        Case::new(
            "in VXLAN from no peer: another owner of the port may know it",
            UPLINK_RESOLVE,
            dev::UPLINK,
            came(&PeerHost { underlay: [10, 0, 0, 9], ..A }, UDP, in_vxlan(&asks(BRIDGE, GATEWAY)).1),
        )
        .with(bridge),
        Case::new("from no peer", UPLINK_RESOLVE, dev::UPLINK, {
            came(&PeerHost { underlay: [10, 0, 0, 9], ..A }, GRE, in_gre(&asks(BRIDGE, GATEWAY)).1)
        })
        .with(bridge),
    ]);
}

fn sent(name: &str, dst_mac: Mac) -> Case {
    let ip = Ipv4::udp(CONTAINER, A.container);
    let inner = Ipv4 { ttl: 63, ..ip.clone() }.bytes();
    let (protocol, payload) = in_gre(&eth(dst_mac, VTEP_MAC, IPV4, &inner));
    let outer = Ipv4 { id: 0, protocol, payload, ..Ipv4::udp(UNDERLAY, A.underlay) };
    Case::new(name, WORKLOAD_EGRESS, dev::PORT, from_container(&ip))
        .with(bridge)
        .redirects(eth([0; 6], [0; 6], IPV4, &outer.bytes()))
        .counts(A.id, ToPeer, 1, inner.len())
}

#[test]
fn frames_go_to_the_neighbour_or_to_who_routes_for_it() {
    const SECOND: u64 = 1_000_000_000;
    let event = Event { kind: NEIGHBOUR_WANTED, ip: MapIp::v4(A.container), ..Event::default() };
    let wanted = |case: Case| case.tells(bytemuck::bytes_of(&event).to_vec());
    run_table(&[
        wanted(sent("nobody is known", [0xff; 6])),
        wanted(sent("the bridge is", BRIDGE_MAC).with(knows(BRIDGE, BRIDGE_MAC, 0))),
        wanted(sent("the bridge was, long ago", [0xff; 6]).with(knows(BRIDGE, BRIDGE_MAC, 301 * SECOND))),
        sent("the container is", THEIRS_MAC).with(knows(A.container, THEIRS_MAC, 0)),
        sent("both are", THEIRS_MAC).with(knows(BRIDGE, BRIDGE_MAC, 0)).with(knows(
            A.container,
            THEIRS_MAC,
            0,
        )),
        sent("it was asked for just now", THEIRS_MAC).with(knows(A.container, THEIRS_MAC, 31 * SECOND)),
        sent("the container was, long ago", BRIDGE_MAC).with(knows(BRIDGE, BRIDGE_MAC, 0)).with(knows(
            A.container,
            THEIRS_MAC,
            301 * SECOND,
        )),
    ]);
}

/// Whom ARP or a packet has told of is sent to.
#[test]
fn whoever_speaks_is_learned() {
    let said = [
        (
            UPLINK_RESOLVE,
            in_gre(&eth(VTEP_MAC, THEIRS_MAC, ARP, &arp(2, (THEIRS_MAC, A.container), (VTEP_MAC, GATEWAY)))),
        ),
        (
            UPLINK_RESOLVE,
            in_gre(&eth([0xff; 6], THEIRS_MAC, ARP, &arp(1, (THEIRS_MAC, A.container), ([0; 6], GATEWAY)))),
        ),
        (UPLINK_KINDS, in_gre(&eth(VTEP_MAC, THEIRS_MAC, IPV4, &Ipv4::udp(A.container, CONTAINER).bytes()))),
    ];
    with_bed(|bed| {
        for (program, (protocol, payload)) in &said {
            bed.reset();
            bridge(&mut bed.maps);
            let key = NeighbourKey { peer: A.id, ip: MapIp::v4(A.container) };
            let context = Context { ifindex: dev::UPLINK, ..Context::default() };
            bed.run(program, context, &came(&A, *protocol, payload.clone()));
            let known = bed.maps.neighbour(key).unwrap().unwrap();
            assert_eq!(known.mac, MacAddr(THEIRS_MAC));
            assert!(known.is_alive(monotonic_now()));
        }
    });
}
