//! The MTU: segment sizes in SYNs, and what routers of the underlay say.

use overlay_common::{
    addr::MapIp,
    event::{Event, PATH_MTU_CHANGED},
    map::{
        Direction::{FromPeer, ToPeer},
        PathMtu,
        program::{BRIDGE_EGRESS, UPLINK_INGRESS, WORKLOAD_EGRESS},
    },
};

use crate::{
    bed::with_bed,
    case::{Case, NEXT, run_table},
    packet::{ICMP, IPV4, Ipv4, TCP, eth},
    skb::Context,
    world::{
        A, CONTAINER, CONTAINER_MAC, GATEWAY, GATEWAY_MAC, LISTEN_PORT, MTU, OTHER_MAC, PORT_NUMBER,
        UNDERLAY, UPLINK_MAC, dev, from_container, from_host, from_peer, to_peer,
    },
};

const SYN: u8 = 0x02;
const SYN_ACK: u8 = 0x12;
const ACK: u8 = 0x10;

/// A TCP header with options, whose checksum is right for these addresses.
fn tcp(src: [u8; 4], dst: [u8; 4], flags: u8, options: &[u8]) -> Vec<u8> {
    let words = (20 + options.len()).div_ceil(4);
    let mut header =
        vec![0x12, 0x34, 0, 80, 0, 0, 0, 1, 0, 0, 0, 2, (words << 4) as u8, flags, 0xff, 0xff, 0, 0, 0, 0];
    header.extend(options);
    header.resize(words * 4, 0);
    let mut sum: u32 = header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    for addr in [src, dst] {
        sum += u32::from(u16::from_be_bytes([addr[0], addr[1]]))
            + u32::from(u16::from_be_bytes([addr[2], addr[3]]));
    }
    sum += u32::from(TCP) + header.len() as u32;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    header[16..18].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    header
}

fn ip(src: [u8; 4], dst: [u8; 4], flags: u8, options: &[u8]) -> Ipv4 {
    Ipv4 { protocol: TCP, payload: tcp(src, dst, flags, options), ..Ipv4::udp(src, dst) }
}

fn mss(value: u32) -> [u8; 4] {
    let [high, low] = (value as u16).to_be_bytes();
    [2, 4, high, low]
}

/// Options as they are sent, and as they must arrive.
fn clamped() -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
    let fits = MTU - 40;
    let with = |front: &[u8], value, back: &[u8]| [front, &mss(value), back].concat();
    let both = |name, front: &[u8], value, back: &[u8]| {
        (name, with(front, value, back), with(front, value.min(fits), back))
    };
    vec![
        both("as Linux sends it", &[], 1460, &[4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7]),
        both("jumbo frames", &[], 8960, &[]),
        both("the largest there is", &[], 65535, &[]),
        both("a byte too much", &[], fits + 1, &[]),
        both("just what fits", &[], fits, &[]),
        both("less", &[], 536, &[]),
        both("at an odd place", &[1], 1460, &[1, 1, 1]),
        both("behind window scaling", &[3, 3, 7], 1460, &[0]),
        ("none", vec![1, 1, 4, 2], vec![1, 1, 4, 2]),
        ("no options at all", vec![], vec![]),
        ("behind the end", vec![0, 2, 4, 0xff, 0xff, 0, 0, 0], vec![0, 2, 4, 0xff, 0xff, 0, 0, 0]),
        ("of a wrong length", vec![2, 3, 0xff, 0xff], vec![2, 3, 0xff, 0xff]),
        (
            "behind an option of length 0",
            vec![9, 0, 2, 4, 0xff, 0xff, 0, 0],
            vec![9, 0, 2, 4, 0xff, 0xff, 0, 0],
        ),
    ]
}

#[test]
fn a_syn_promises_no_more_than_the_tunnel_carries() {
    let mut cases = Vec::new();
    for (name, sent, arrives) in clamped() {
        for flags in [SYN, SYN_ACK] {
            let out = |options: &[u8]| ip(CONTAINER, A.container, flags, options);
            let len = out(&sent).bytes().len();
            cases.push(
                Case::new(format!("out: {name}"), WORKLOAD_EGRESS, dev::PORT, from_container(&out(&sent)))
                    .tunnels(to_peer(&A, 0, Ipv4 { ttl: 63, ..out(&arrives) }.bytes()))
                    .counts(A.id, ToPeer, 1, len),
            );
            let host = |options: &[u8]| ip(GATEWAY, A.container, flags, options);
            cases.push(
                Case::new(format!("host: {name}"), BRIDGE_EGRESS, dev::BRIDGE, from_host(&host(&sent)))
                    .tunnels(to_peer(&A, 0, host(&arrives).bytes()))
                    .counts(A.id, ToPeer, 1, len),
            );
            let back = |options: &[u8]| ip(A.container, CONTAINER, flags, options).bytes();
            cases.push(
                Case::new(
                    format!("in: {name}"),
                    UPLINK_INGRESS,
                    dev::UPLINK,
                    from_peer(&A, back(&sent)).bytes(),
                )
                .redirects(eth(CONTAINER_MAC, GATEWAY_MAC, IPV4, &back(&arrives)))
                .counts(A.id, FromPeer, 1, len),
            );
        }
    }
    run_table(&cases);
}

#[test]
fn only_a_syn_is_changed() {
    let unchanged = |name: &str, ip: Ipv4| {
        let inner = Ipv4 { ttl: 63, ..ip.clone() }.bytes();
        let len = inner.len();
        Case::new(name, WORKLOAD_EGRESS, dev::PORT, from_container(&ip))
            .tunnels(to_peer(&A, 0, inner))
            .counts(A.id, ToPeer, 1, len)
    };
    let of = |flags| ip(CONTAINER, A.container, flags, &mss(1460));
    let fragment = Ipv4 { flags_fragment: 1, ..of(SYN) };
    let len = fragment.bytes().len();
    let mut cut = of(SYN);
    cut.payload.truncate(22);
    let mut short = of(SYN);
    short.payload[12] = 0x40;
    let mut long = of(SYN);
    long.payload[12] = 0xf0;
    run_table(&[
        unchanged("an ACK", of(ACK)),
        unchanged("no flags", of(0)),
        unchanged("UDP that looks like it", Ipv4 { protocol: 17, ..of(SYN) }),
        Case::new("a later fragment", BRIDGE_EGRESS, dev::BRIDGE, from_host(&fragment))
            .tunnels(to_peer(&A, 0, fragment.bytes()))
            .counts(A.id, ToPeer, 1, len),
        unchanged("options cut off", cut),
        unchanged("a header of less than 20 bytes", short),
        unchanged("a header longer than the packet", long),
    ]);
}

/// A "fragmentation needed" about a tunnel packet of ours to A.
struct FragNeeded {
    from: [u8; 4],
    to: [u8; 4],
    kind: [u8; 2],
    mtu: u16,
    quoted: Ipv4,
    ports: [u16; 2],
}

fn frag_needed() -> FragNeeded {
    let quoted = Ipv4 {
        protocol: 17,
        flags_fragment: 0x4000,
        total_len: Some(1500),
        ..Ipv4::udp(UNDERLAY, A.underlay)
    };
    FragNeeded {
        from: [10, 9, 9, 9],
        to: UNDERLAY,
        kind: [3, 4],
        mtu: 1400,
        quoted,
        ports: [50_000, PORT_NUMBER],
    }
}

impl FragNeeded {
    fn bytes(&self) -> Vec<u8> {
        let mut udp = self.ports.map(u16::to_be_bytes).concat();
        udp.extend([5, 200, 0, 0]);
        let mut icmp = vec![self.kind[0], self.kind[1], 0, 0, 0, 0];
        icmp.extend(self.mtu.to_be_bytes());
        icmp.extend(Ipv4 { payload: udp, ..self.quoted.clone() }.bytes());
        let ip = Ipv4 { protocol: ICMP, payload: icmp, ..Ipv4::udp(self.from, self.to) };
        eth(UPLINK_MAC, OTHER_MAC, IPV4, &ip.bytes())
    }
}

/// The path MTU that is noted after a message, and whether the daemon was told.
fn noted(messages: &[FragNeeded]) -> (Option<u32>, usize) {
    let mut found = (None, 0);
    with_bed(|bed| {
        bed.maps.put_listen_port(LISTEN_PORT, 1).unwrap();
        for message in messages {
            let bytes = message.bytes();
            let ran = bed.run(UPLINK_INGRESS, Context { ifindex: dev::UPLINK, ..Context::default() }, &bytes);
            assert_eq!((ran.verdict, ran.packet), (NEXT, bytes), "the kernel gets it in any case");
        }
        let events = bed.events();
        let told = Event {
            kind: PATH_MTU_CHANGED,
            ifindex: dev::UPLINK,
            ip: MapIp::v4(A.underlay),
            ..Event::default()
        };
        assert!(events.iter().all(|event| event == bytemuck::bytes_of(&told)), "{events:02x?}");
        let entry: Option<PathMtu> = bed.maps.path_mtu(MapIp::v4(A.underlay)).unwrap();
        assert_eq!(bed.maps.path_mtus().unwrap().len(), usize::from(entry.is_some()));
        found = (entry.map(|entry| entry.mtu), events.len());
    });
    found
}

#[test]
fn a_routers_word_on_a_tunnel_packet_is_noted() {
    assert_eq!(noted(&[frag_needed()]), (Some(1400), 1));
    let listen = FragNeeded { ports: [65535, LISTEN_PORT], ..frag_needed() };
    assert_eq!(noted(&[listen]), (Some(1400), 1), "about another port that carries tunnels");
    assert_eq!(
        noted(&[FragNeeded { mtu: 0, ..frag_needed() }]),
        (Some(552), 1),
        "the least that is believed"
    );
    assert_eq!(
        noted(&[frag_needed(), frag_needed(), frag_needed()]),
        (Some(1400), 1),
        "said again within a second"
    );
    let lower = FragNeeded { mtu: 1300, ..frag_needed() };
    assert_eq!(noted(&[frag_needed(), lower]), (Some(1300), 2), "a smaller one counts");
    let higher = FragNeeded { mtu: 1450, ..frag_needed() };
    assert_eq!(noted(&[frag_needed(), higher]), (Some(1400), 1), "a larger one of another router does not");
}

#[test]
fn words_about_what_we_did_not_send_are_not() {
    let quoted = |change: fn(&mut Ipv4)| {
        let mut message = frag_needed();
        change(&mut message.quoted);
        message
    };
    for (name, message) in [
        ("time exceeded", FragNeeded { kind: [11, 0], ..frag_needed() }),
        ("port unreachable", FragNeeded { kind: [3, 3], ..frag_needed() }),
        ("not below the packet's size", FragNeeded { mtu: 1500, ..frag_needed() }),
        (
            "a source port that tunnels do not use",
            FragNeeded { ports: [49_151, PORT_NUMBER], ..frag_needed() },
        ),
        ("a port that carries no tunnel", FragNeeded { ports: [50_000, 53], ..frag_needed() }),
        ("a stranger", quoted(|ip| ip.dst = [10, 0, 0, 99])),
        ("another host's packet", quoted(|ip| ip.src = [10, 0, 0, 4])),
        ("TCP", quoted(|ip| ip.protocol = 6)),
        ("without DF", quoted(|ip| ip.flags_fragment = 0)),
        ("another host's message", FragNeeded { to: [10, 0, 0, 4], ..frag_needed() }),
    ] {
        assert_eq!(noted(&[message]), (None, 0), "{name}");
    }
}
