//! Other tunnels than VXLAN: what goes into them, and what comes out.

use overlay_common::{
    DropReason, Encap, Kinds,
    addr::MapIp,
    map::{
        Direction::{FromPeer, ToPeer},
        Peer, PeerKey, peer_flag,
        program::{UPLINK_INGRESS, UPLINK_KINDS, WORKLOAD_EGRESS},
    },
    vni::VniKey,
};
use overlay_user::datapath::map::Maps;

use crate::{
    case::{Case, run_table},
    kinds_on_wire::{came, came_as, carried, incoming},
    packet::{FRAME, GRE, IPIP, IPV4, IPV6, Ipv4, Mac, TCP, UDP, eth, geneve, gre, pattern, tcp, udp},
    world::{
        A, B, BROADCAST, CONTAINER, CONTAINER_MAC, GATEWAY_MAC, GENEVE_PORT, NEW, OTHER_MAC, PeerHost,
        UNDERLAY, UPLINK_MAC, VTEP_MAC, dev, entry, from_container, from_peer, node, tunnel_in,
    },
};

/// Every tunnel but VXLAN, those of GRE with and without a key.
const TUNNELS: [(Encap, Option<u32>); 6] = [
    (Encap::Geneve, None),
    (Encap::Gre, None),
    (Encap::Gre, Some(0xab_cdef)),
    (Encap::GreL3, None),
    (Encap::GreL3, Some(7)),
    (Encap::Ipip, None),
];

fn words(encap: Encap, key: Option<u32>) -> String {
    key.map_or(encap.to_string(), |key| format!("{encap} with key {key}"))
}

fn outgoing(encap: Encap, key: Option<u32>, tos: u8, inner: &[u8]) -> Vec<u8> {
    let (protocol, payload) = carried(encap, key, A.vni, (A.vtep_mac, VTEP_MAC), inner);
    let outer = Ipv4 { tos, id: 0, protocol, payload, ..Ipv4::udp(UNDERLAY, A.underlay) };
    eth([0; 6], [0; 6], IPV4, &outer.bytes())
}

fn takes_all(maps: &mut Maps) {
    maps.put_node(node(Encap::ALL.into_iter().collect())).unwrap();
}

/// Has a peer's GRE packets bear a key.
fn keyed(peer: PeerHost, key: Option<u32>) -> impl Fn(&mut Maps) + Sync {
    move |maps: &mut Maps| {
        let flags = if key.is_some() { peer_flag::GRE_KEY } else { 0 };
        let entry = Peer { gre_key: key.unwrap_or_default(), flags, ..entry(&peer) };
        maps.put_peer(PeerKey { vni: VniKey::NONE, ip: MapIp::v4(peer.underlay) }, entry).unwrap();
    }
}

fn into(name: &str, encap: Encap, key: Option<u32>, packet: Vec<u8>) -> Case {
    let name = format!("{}: {name}", words(encap, key));
    Case::new(name, UPLINK_KINDS, dev::UPLINK, packet).with(takes_all).with(keyed(A, key))
}

#[test]
fn into_each_tunnel() {
    let to_a = Ipv4::udp(CONTAINER, A.container);
    let mut rows = Vec::new();
    for (encap, key) in TUNNELS {
        let most = 1514 - tunnel_in(&A, encap, key).template_len as usize;
        let out = |name: &str, ip: &Ipv4| {
            let name = format!("{}: {name}", words(encap, key));
            let into_it =
                move |maps: &mut Maps| maps.put_tunnel(A.tunnel, tunnel_in(&A, encap, key)).unwrap();
            Case::new(name, WORKLOAD_EGRESS, dev::PORT, from_container(ip)).with(into_it)
        };
        let leaves = |name: &str, ip: &Ipv4| {
            let inner = Ipv4 { ttl: ip.ttl - 1, ..ip.clone() }.bytes();
            let packet = outgoing(encap, key, ip.tos, &inner);
            let row = out(name, ip);
            let row = if encap == Encap::Geneve { row.tunnels(packet) } else { row.redirects(packet) };
            row.counts(A.id, ToPeer, 1, inner.len())
        };
        rows.extend([
            leaves("UDP", &to_a),
            leaves("TCP", &Ipv4 { protocol: TCP, payload: tcp(1, 2, 32, b"x"), ..to_a.clone() }),
            leaves("TOS and ECN", &Ipv4 { tos: 0xb9, ..to_a.clone() }),
            leaves("as large as fits", &Ipv4::sized(CONTAINER, A.container, most)),
            out("a byte more is the kernel's", &Ipv4::sized(CONTAINER, A.container, most + 1)),
            out("an expiring TTL is the kernel's", &Ipv4 { ttl: 1, ..to_a.clone() }),
        ]);
    }
    run_table(&rows);
}

#[test]
fn out_of_each_tunnel() {
    let from_a = Ipv4::udp(A.container, CONTAINER);
    let mut rows = Vec::new();
    for (encap, key) in TUNNELS {
        let came = |ip: &Ipv4| incoming(&A, encap, key, &ip.bytes());
        let delivered = |name: &str, ip: &Ipv4| {
            let frame = eth(CONTAINER_MAC, GATEWAY_MAC, IPV4, &ip.bytes());
            into(name, encap, key, came(ip)).redirects(frame).counts(A.id, FromPeer, 1, ip.bytes().len())
        };
        let unknown = Ipv4::udp(A.container, NEW);
        let left = eth(UPLINK_MAC, [0x02, 0, 0, 0, 0, 0x20], IPV4, &unknown.bytes());
        rows.extend([
            delivered("UDP", &from_a),
            delivered("TCP", &Ipv4 { protocol: TCP, payload: tcp(1, 2, 32, b"x"), ..from_a.clone() }),
            delivered("a large one", &Ipv4::sized(A.container, CONTAINER, 1450)),
            delivered(
                "a fragment inside",
                &Ipv4 { flags_fragment: 0xb9, payload: pattern(64), ..from_a.clone() },
            ),
            into("to nobody's address in the subnet", encap, key, came(&unknown)).redirects(left).counts(
                A.id,
                FromPeer,
                1,
                unknown.bytes().len(),
            ),
            into("a source that is another peer's", encap, key, came(&Ipv4::udp(B.container, CONTAINER)))
                .drops(DropReason::InnerSource),
            into("a source of our own", encap, key, came(&Ipv4::udp(NEW, CONTAINER)))
                .drops(DropReason::InnerSource),
            into("a martian", encap, key, came(&Ipv4::udp([127, 0, 0, 1], CONTAINER)))
                .drops(DropReason::InnerMartian),
            into("longer than it is", encap, key, came(&Ipv4 { total_len: Some(1400), ..from_a.clone() }))
                .drops(DropReason::InnerMalformed),
        ]);
    }
    run_table(&rows);
}

/// RFC 6040 section 4.2: what routers marked outside is carried inside, and dropped where nobody would hear of it.
#[test]
fn congestion_is_carried_inside() {
    let mut rows = Vec::new();
    for (encap, key) in TUNNELS {
        let with = |inner_tos: u8| {
            let inner = Ipv4 { tos: inner_tos, ..Ipv4::udp(A.container, CONTAINER) };
            let (protocol, payload) = carried(encap, key, A.vni, (VTEP_MAC, A.vtep_mac), &inner.bytes());
            came_as(&Ipv4 { tos: 3, protocol, payload, ..Ipv4::udp(A.underlay, UNDERLAY) })
        };
        let marked = Ipv4 { tos: 3, ..Ipv4::udp(A.container, CONTAINER) }.bytes();
        rows.extend([
            into("marked, and heard", encap, key, with(2))
                .redirects(eth(CONTAINER_MAC, GATEWAY_MAC, IPV4, &marked))
                .counts(A.id, FromPeer, 1, marked.len()),
            into("marked, and not heard", encap, key, with(0)).drops(DropReason::EcnCeNotEct),
        ]);
    }
    run_table(&rows);
}

/// GRE and IP in IP have no port of ours: other tunnels between the same two hosts are not touched.
#[test]
fn what_is_of_another_tunnel_passes() {
    let from_a = Ipv4::udp(A.container, CONTAINER).bytes();
    let elsewhere = Ipv4::udp(A.container, [192, 0, 2, 9]).bytes();
    let stranger = PeerHost { underlay: [10, 0, 0, 9], ..A };
    let mut rows = Vec::new();
    for (encap, key) in TUNNELS.into_iter().filter(|(encap, _)| *encap != Encap::Geneve) {
        rows.extend([
            into("from no peer", encap, key, incoming(&stranger, encap, key, &from_a)),
            into("for no container of ours", encap, key, incoming(&A, encap, key, &elsewhere)),
            into("for a broadcast address", encap, key, {
                incoming(&A, encap, key, &Ipv4::udp(A.container, BROADCAST).bytes())
            }),
            into("a kind that is not taken", encap, key, incoming(&A, encap, key, &from_a))
                .with(|maps| maps.put_node(node(Kinds::default().with(Encap::Direct))).unwrap()),
            Case::new(
                format!("{}: left alone by VXLAN's program", words(encap, key)),
                UPLINK_INGRESS,
                dev::UPLINK,
                incoming(&A, encap, key, &from_a),
            )
            .with(takes_all),
        ]);
        if encap != Encap::Ipip {
            let other = Some(key.map_or(1, |key| key + 1));
            rows.push(into("another key", encap, key, incoming(&A, encap, other, &from_a)));
        }
    }
    let frame = |dst| eth(dst, A.vtep_mac, IPV4, &from_a);
    let pptp = [&[0x30, 0x81, 0x88, 0x0b][..], &from_a].concat();
    rows.extend([
        into("for another MAC address", Encap::Gre, None, came(&A, GRE, gre(FRAME, None, &frame(OTHER_MAC)))),
        into("a frame that is no IP", Encap::Gre, None, {
            came(&A, GRE, gre(FRAME, None, &eth(VTEP_MAC, A.vtep_mac, 0x88cc, &from_a)))
        }),
        into("PPTP's version", Encap::GreL3, None, came(&A, GRE, pptp)),
        into(
            "no key where there should be one",
            Encap::Gre,
            Some(1),
            incoming(&A, Encap::Gre, None, &from_a),
        ),
    ]);
    run_table(&rows);
}

/// A GRE header's checksum and sequence number are stepped over.
#[test]
fn optional_fields_of_gre() {
    let ip = Ipv4::udp(A.container, CONTAINER);
    let with = |flags: u8, fields: &[u8]| {
        let payload = [&[flags, 0, 8, 0], fields, &ip.bytes()].concat();
        into(&format!("flags {flags:#x}"), Encap::GreL3, Some(7), came(&A, GRE, payload))
            .redirects(eth(CONTAINER_MAC, GATEWAY_MAC, IPV4, &ip.bytes()))
            .counts(A.id, FromPeer, 1, ip.bytes().len())
    };
    run_table(&[
        with(0x20, &[0, 0, 0, 7]),
        with(0xa0, &[0xaa, 0xaa, 0, 0, 0, 0, 0, 7]),
        with(0x30, &[0, 0, 0, 7, 1, 2, 3, 4]),
        with(0xb0, &[0xaa, 0xaa, 0, 0, 0, 0, 0, 7, 1, 2, 3, 4]),
    ]);
}

/// Geneve's port is ours alone.
#[test]
fn geneve_is_judged_like_vxlan() {
    let ip = Ipv4::udp(A.container, CONTAINER);
    let frame = |dst: Mac| eth(dst, A.vtep_mac, IPV4, &ip.bytes());
    let came = |peer: &PeerHost, geneve: &[u8]| came(peer, UDP, udp(50_000, GENEVE_PORT, geneve));
    let row = |name: &str, packet: Vec<u8>| into(name, Encap::Geneve, None, packet);
    let fits = |name: &str, packet: Vec<u8>| {
        row(name, packet).redirects(eth(CONTAINER_MAC, GATEWAY_MAC, IPV4, &ip.bytes())).counts(
            A.id,
            FromPeer,
            1,
            ip.bytes().len(),
        )
    };
    let options = |words: usize| pattern(words * 4);
    let mut long = geneve(A.vni, 0, &[], &frame(VTEP_MAC));
    long[0] = 63;
    let mut version = geneve(A.vni, 0, &[], &frame(VTEP_MAC));
    version[0] = 0x40;
    run_table(&[
        fits("one word of options", came(&A, &geneve(A.vni, 0, &options(1), &frame(VTEP_MAC)))),
        fits("as many options as there may be", came(&A, &geneve(A.vni, 0, &options(63), &frame(VTEP_MAC)))),
        fits("for any VTEP", came(&A, &geneve(A.vni, 0, &[], &frame([0xff; 6])))),
        fits("flags that nobody knows", came(&A, &geneve(A.vni, 0x3f, &[], &frame(VTEP_MAC)))),
        row("critical options", came(&A, &geneve(A.vni, 0x40, &options(1), &frame(VTEP_MAC))))
            .drops(DropReason::TunnelHeader),
        row("a control packet", came(&A, &geneve(A.vni, 0x80, &[], &frame(VTEP_MAC))))
            .drops(DropReason::TunnelHeader),
        row("another version", came(&A, &version)).drops(DropReason::TunnelHeader),
        row("options that end behind the packet", came(&A, &long)).drops(DropReason::OuterMalformed),
        row("another VNI", came(&A, &geneve(77, 0, &[], &frame(VTEP_MAC)))).drops(DropReason::WrongVni),
        row(
            "a stranger",
            came(&PeerHost { underlay: [10, 0, 0, 9], ..A }, &geneve(A.vni, 0, &[], &frame(VTEP_MAC))),
        )
        .drops(DropReason::UnknownPeer),
        row("another VTEP's MAC address", came(&A, &geneve(A.vni, 0, &[], &frame(OTHER_MAC))))
            .drops(DropReason::InnerDestinationMac),
        row("no IP", came(&A, &geneve(A.vni, 0, &[], &eth(VTEP_MAC, A.vtep_mac, 0x88cc, &ip.bytes()))))
            .drops(DropReason::InnerProtocol),
        row(
            "IPv6 that is none",
            came(&A, &geneve(A.vni, 0, &[], &eth(VTEP_MAC, A.vtep_mac, IPV6, &ip.bytes()))),
        )
        .drops(DropReason::InnerMalformed),
        Case::new("not taken", UPLINK_KINDS, dev::UPLINK, came(&A, &geneve(A.vni, 0, &[], &frame(VTEP_MAC))))
            .with(|maps| maps.put_node(node(Kinds::default().with(Encap::Gre))).unwrap()),
        row("VXLAN is the other program's", from_peer(&A, ip.bytes()).bytes()),
        row("from whomever", from_peer(&PeerHost { underlay: [10, 0, 0, 9], ..A }, ip.bytes()).bytes()),
    ]);
}

/// The host's NAT would let them leave in its name, and a peer would believe them.
#[test]
fn a_container_makes_no_tunnel_packets_for_peers() {
    let row = |name: &str, protocol: u8, dst| {
        let ip = Ipv4 { protocol, payload: pattern(64), ..Ipv4::udp(CONTAINER, dst) };
        Case::new(name, WORKLOAD_EGRESS, dev::PORT, from_container(&ip))
    };
    let options =
        Ipv4 { protocol: GRE, options: vec![1; 4], payload: pattern(64), ..Ipv4::udp(CONTAINER, A.underlay) };
    let geneve = Ipv4 { payload: udp(1, GENEVE_PORT, &pattern(40)), ..Ipv4::udp(CONTAINER, A.underlay) };
    run_table(&[
        row("GRE", GRE, A.underlay).drops(DropReason::TunnelForged),
        row("IPv4 in IP", IPIP, A.underlay).drops(DropReason::TunnelForged),
        row("IPv6 in IP", 41, A.underlay).drops(DropReason::TunnelForged),
        Case::new("behind options", WORKLOAD_EGRESS, dev::PORT, from_container(&options))
            .drops(DropReason::TunnelForged),
        Case::new("Geneve", WORKLOAD_EGRESS, dev::PORT, from_container(&geneve))
            .drops(DropReason::TunnelForged),
        row("to who is no peer", GRE, [192, 0, 2, 77]),
        row("another protocol", 50, A.underlay),
    ]);
}
