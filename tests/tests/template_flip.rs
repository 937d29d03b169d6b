//! A peer that changes under load: each packet bears the headers of before or of after, never a mixture.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails, in its helpers too")]

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddrV4},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use harness::{
    Topology, eventually,
    frame::{self, INNER_IP, IPV4, Mac, UDP},
    topology::ETCD_PREFIX,
    traffic::{DatagramSocket, Endpoint, Frame, Probe, Sniffer, ping},
    two_hosts,
};

const SOON: Duration = Duration::from_secs(10);

/// How often the peer changes.
const FLIPS: usize = 200;

/// Who sends to it, and how long each of them waits between two packets.
const SENDERS: usize = 3;
const PACE: Duration = Duration::from_micros(300);

/// Everything of the outer headers that a record in the store decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Outer {
    ip: Ipv4Addr,
    vni: u32,
    mac: Mac,
}

/// No byte of one is a byte of the other.
const OUTERS: [Outer; 2] = [
    Outer { ip: Ipv4Addr::new(172, 16, 199, 201), vni: 0x11_2233, mac: [0x02, 0x11, 0x12, 0x13, 0x14, 0x15] },
    Outer { ip: Ipv4Addr::new(172, 16, 199, 202), vni: 0xaa_bbcc, mac: [0x0a, 0x91, 0x92, 0x93, 0x94, 0x95] },
];

const SUBNET: &str = "10.9.0.0-24";
const TARGET: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 9, 0, 5), 9);

impl Outer {
    fn record(&self) -> String {
        let mac: Vec<String> = self.mac.iter().map(|byte| format!("{byte:02x}")).collect();
        format!(
            r#"{{"PublicIP":"{}","BackendType":"vxlan","BackendData":{{"VNI":{},"VtepMAC":"{}"}}}}"#,
            self.ip,
            self.vni,
            mac.join(":")
        )
    }

    /// Of a packet on its way to the peer; `None` for any other.
    fn of(frame: &Frame) -> Option<Self> {
        let bytes = &frame.bytes;
        let to = TARGET.ip().octets();
        if bytes.len() < INNER_IP + 28 || bytes[12..14] != IPV4.to_be_bytes() || bytes[23] != UDP {
            return None;
        }
        if bytes[INNER_IP + 16..INNER_IP + 20] != to {
            return None;
        }
        assert_eq!(frame::checksum(&[&bytes[14..34]]), 0, "a wrong outer IP checksum: {bytes:02x?}");
        assert_eq!(
            (&bytes[36..38], &bytes[42..46]),
            (&4789_u16.to_be_bytes()[..], &[8, 0, 0, 0][..]),
            "{bytes:02x?}"
        );
        assert_eq!(usize::from(u16::from_be_bytes([bytes[16], bytes[17]])), bytes.len() - 14, "{bytes:02x?}");
        Some(Self {
            ip: Ipv4Addr::new(bytes[30], bytes[31], bytes[32], bytes[33]),
            vni: u32::from_be_bytes([0, bytes[46], bytes[47], bytes[48]]),
            mac: bytes[50..56].try_into().unwrap(),
        })
    }
}

fn put(topology: &Topology, outer: Outer) {
    topology.etcd().put(&format!("{ETCD_PREFIX}/subnets/{SUBNET}"), &outer.record()).unwrap();
}

/// Makes both outer addresses somebody on the wire, who answers ARP.
fn bed() -> Topology {
    let topology = two_hosts().unwrap();
    let wire = topology.wire.ns().unwrap();
    for outer in OUTERS {
        wire.ip(&format!("addr add {}/24 dev br0", outer.ip)).unwrap();
    }
    // Nobody listens there, and nobody is to say so.
    wire.cmd("iptables").args(["-I", "INPUT", "-p", "udp", "--dport", "4789", "-j", "DROP"]).check().unwrap();
    put(&topology, OUTERS[0]);
    let known = || topology.h(1).overlayd().routes().unwrap().contains(&"10.9.0.0/24".to_owned());
    eventually("the peer is known", SOON, known).unwrap();
    for outer in OUTERS {
        assert!(ping(&topology.h(1).ns, outer.ip, 1).unwrap().clean());
    }
    topology
}

/// Flips the peer while containers send to it; returns how many packets they sent.
fn flip(topology: &Topology) -> u64 {
    let c1 = topology.h(1).c(1);
    let sockets: Vec<_> = (0..SENDERS).map(|_| DatagramSocket::bind(&c1.ns, c1.ip, 0).unwrap()).collect();
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for socket in &sockets {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    socket.send(TARGET, &[0x55; 32]).unwrap();
                    sent.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(PACE);
                }
            });
        }
        let flipping = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            (1..=FLIPS).for_each(|n| put(topology, OUTERS[n % 2]));
        }));
        stop.store(true, Ordering::Relaxed);
        flipping.unwrap();
    });
    sent.load(Ordering::Relaxed)
}

#[test]
fn no_packet_has_headers_of_two_templates() {
    let topology = bed();
    let (h1, h2) = (topology.h(1), topology.h(2));
    assert!(ping(&h1.c(1).ns, h2.c(1).ip, 2).unwrap().clean());
    let ends = [h1, h2].map(|host| Endpoint { ns: &host.c(1).ns, ip: host.c(1).ip });
    let probe = Probe::start(ends[0], ends[1], 1000, Duration::from_secs(60)).unwrap();
    let sniffer = Sniffer::on(topology.wire.ns().unwrap(), "h1").unwrap();
    let sent = flip(&topology);
    let seen = |f: &Frame| Outer::of(f).is_some();
    sniffer
        .await_count("all that was sent is on the wire", usize::try_from(sent).unwrap(), SOON, seen)
        .unwrap();

    let frames = sniffer.finish().unwrap();
    let packets: Vec<Outer> = frames.iter().filter_map(Outer::of).collect();
    let mut kinds: BTreeMap<Outer, usize> = BTreeMap::new();
    for outer in &packets {
        *kinds.entry(*outer).or_default() += 1;
    }
    assert_eq!(kinds.keys().copied().collect::<Vec<_>>(), OUTERS, "templates on the wire: {kinds:?}");
    let changes = packets.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert!(changes >= 20, "{changes} changes were seen in {FLIPS}: {kinds:?}");
    assert_eq!(packets.len() as u64, sent, "each once");
    let report = probe.finish().unwrap();
    assert!(report.clean(), "the peer beside it: {report}");
    for host in [h1, h2] {
        assert_eq!(host.overlayd().drops().unwrap().len(), 0, "on {}", host.name);
    }
}
