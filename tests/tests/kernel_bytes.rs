//! The bytes on the wire: for the same inner packets, overlayd's path and the kernel's own vxlan device send the
//! same, but for what is free.
//!
//! Free are the outer Ethernet header (the underlay's), the outer UDP source port (each hashes the flow in its own
//! way; RFC 7348 section 5 asks for no more) and the outer IP identification (a packet with DF needs none, RFC 6864
//! section 4.1: we send 0, the kernel counts), and the outer IP checksum as far as it follows from that. One
//! difference is meant: of an inner packet with congestion experienced, the kernel's outer header says ECT(0), ours
//! says CE (RFC 6040 section 4.1, normal mode).

#![expect(clippy::unwrap_used, reason = "set-up that fails is a test that fails")]

use std::{
    collections::BTreeMap, fs, net::Ipv4Addr, os::fd::AsRawFd, path::Path, thread::sleep, time::Duration,
};

use harness::{
    Topology,
    capture::Capture,
    eventually,
    kernel_vtep::{KernelVtep, Remote},
    topology::StoreKind,
    traffic::ping,
};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
};

const SOON: Duration = Duration::from_secs(5);
const VNI: u32 = 0x12_3456;
const PORT: u16 = 5555;
/// Host 2's VTEP, which no device has: nothing answers, and nothing else is on the wire.
const REMOTE_MAC: &str = "02:00:00:00:00:02";

const OUTER_IP: usize = 14;
const OUTER_UDP: usize = 34;
const INNER_IP: usize = 64;

/// Congestion experienced, and ECT(0).
const CE: u8 = 0b11;
const ECT_0: u8 = 0b10;

fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u64 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// A transport header and payload with a right checksum.
fn transport(protocol: u8, src: Ipv4Addr, dst: Ipv4Addr, size: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..size).map(|i| (i * 7 + 3) as u8).collect();
    let (mut bytes, at) = match protocol {
        1 => (vec![8, 0, 0, 0, 0, 1, 0, 1], 2),
        6 => (vec![4, 0, 8, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0], 16),
        _ => (vec![4, 0, 8, 0, 0, 0, 0, 0], 6),
    };
    bytes.extend(payload);
    let len = u16::try_from(bytes.len()).unwrap();
    if protocol == 17 {
        bytes[4..6].copy_from_slice(&len.to_be_bytes());
    }
    let pseudo = [&src.octets()[..], &dst.octets(), &[0, protocol], &len.to_be_bytes()].concat();
    let sum = if protocol == 1 { checksum(&bytes) } else { checksum(&[pseudo, bytes.clone()].concat()) };
    bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// Inner packets of every kind, told apart by their identification. The kernel fills in the header checksum.
fn packets(src: Ipv4Addr, dst: Ipv4Addr) -> BTreeMap<u16, Vec<u8>> {
    let mut packets = BTreeMap::new();
    for protocol in [1, 6, 17] {
        for size in [0, 1, 13, 64, 511, 1400] {
            for (tos, flags, ttl) in
                [(0, 0x40, 64), (0xb8, 0, 64), (1, 0x40, 2), (0x2a, 0, 255), (CE, 0x40, 64)]
            {
                let id = 1 + packets.len() as u16;
                let payload = transport(protocol, src, dst, size);
                let total = u16::try_from(20 + payload.len()).unwrap();
                let mut packet = vec![0x45, tos];
                packet.extend(total.to_be_bytes());
                packet.extend(id.to_be_bytes());
                packet.extend([flags, 0, ttl, protocol, 0, 0]);
                packet.extend(src.octets());
                packet.extend(dst.octets());
                packet.extend(payload);
                packets.insert(id, packet);
            }
        }
    }
    packets
}

/// Sends all of them from host 1's container, and takes the tunnel packets off its wire.
fn on_the_wire(topology: &Topology, packets: &BTreeMap<u16, Vec<u8>>) -> BTreeMap<u16, Vec<u8>> {
    let (host, container) = (topology.h(1), topology.h(1).c(1));
    // Who is who on both links is known before the first packet.
    assert!(ping(&container.ns, host.bridge.ip, 1).unwrap().clean());
    assert!(ping(&host.ns, topology.h(2).ip, 1).unwrap().clean());
    let capture = Capture::start(topology.wire.ns().unwrap(), "h1", PORT, &topology.scope.dir()).unwrap();
    container.ns.run(|| send(packets)).unwrap();
    let ours = |frame: &Vec<u8>| frame.len() > INNER_IP + 20 - 1 && frame[26..30] == host.ip.octets();
    let seen = || -> BTreeMap<u16, Vec<u8>> {
        let id = |frame: &Vec<u8>| u16::from_be_bytes([frame[INNER_IP + 4], frame[INNER_IP + 5]]);
        capture.frames().unwrap().into_iter().filter(ours).map(|frame| (id(&frame), frame)).collect()
    };
    eventually("all are on the wire", SOON, || seen().len() >= packets.len()).unwrap();
    let seen = seen();
    assert!(seen.keys().eq(packets.keys()), "{:?}", seen.keys());
    seen
}

fn send(packets: &BTreeMap<u16, Vec<u8>>) {
    let socket =
        socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw).unwrap();
    for packet in packets.values() {
        let to = SockaddrIn::new(packet[16], packet[17], packet[18], packet[19], 0);
        sendto(socket.as_raw_fd(), packet, &to, MsgFlags::empty()).unwrap();
        // The veths' queues are short.
        sleep(Duration::from_micros(200));
    }
}

/// Blanks what is free, checks what it was, and evens out the one difference that is meant.
fn bound(mut frame: Vec<u8>) -> Vec<u8> {
    assert_eq!(checksum(&frame[OUTER_IP..OUTER_UDP]), 0, "{frame:02x?}");
    assert_eq!(frame[OUTER_IP + 6] & 0x40, 0x40, "DF: {frame:02x?}");
    frame[..12].fill(0);
    frame[OUTER_IP + 4..OUTER_IP + 6].fill(0);
    frame[OUTER_IP + 10..OUTER_IP + 12].fill(0);
    frame[OUTER_UDP..OUTER_UDP + 2].fill(0);
    frame
}

fn write_peers(file: &Path, subnet: &str, host: Ipv4Addr) {
    let text = format!("[[peer]]\nsubnet = \"{subnet}\"\nhost = \"{host}\"\nvtep_mac = \"{REMOTE_MAC}\"\n");
    fs::write(file, text).unwrap();
}

/// Puts the kernel's device in overlayd's place: the outer header has DF, TTL 64 and the inner TOS byte, and no UDP
/// checksum; the VTEPs' MAC addresses are the same.
fn replace_by_the_kernel(topology: &mut Topology, mac: &str) {
    assert_eq!(topology.h_mut(1).overlayd_mut().detach().unwrap().code, Some(0));
    let (host, device) = (topology.h(1), "flannel.1");
    let ip = host.ip;
    let link =
        format!("link add {device} address {mac} type vxlan id {VNI} dstport {PORT} local {ip} dev eth0");
    host.ns.ip(&format!("{link} nolearning noudpcsum df set ttl 64 tos inherit")).unwrap();
    host.ns.ip(&format!("link set {device} up")).unwrap();
    let vtep = KernelVtep { device: device.to_owned(), mac: mac.to_owned() };
    let (subnet, remote) = (topology.h(2).bridge.subnet(), topology.h(2).ip);
    vtep.add_peer(host, &Remote { subnet: &subnet, ip: remote.into(), mac: REMOTE_MAC }).unwrap();
}

#[test]
fn what_we_send_is_what_the_kernels_device_sends() {
    let builder = Topology::builder().without_overlayd().container_mtu(1450).store(StoreKind::Peers);
    let mut topology = builder.vni(VNI).port(PORT).up().unwrap();
    let (subnet, remote) = (topology.h(2).bridge.subnet(), topology.h(2).ip);
    let packets = packets(topology.h(1).c(1).ip, topology.h(2).c(1).ip);
    write_peers(&topology.peers_file(0), &subnet, remote);
    topology.start_overlayd(0).unwrap();
    let is_routed = || topology.h(1).overlayd().routes().is_ok_and(|routes| routes.contains(&subnet));
    eventually("host 2 is a peer", SOON, is_routed).unwrap();
    let status = topology.h(1).overlayd().ctl(&["status", "-o", "json"]).unwrap();
    let ours = on_the_wire(&topology, &packets);
    let peers = topology.h(1).overlayd().ctl(&["peers", "-o", "json"]).unwrap();
    assert!(peers[0]["packets_to"].as_u64().unwrap() >= packets.len() as u64, "{peers}");

    let mac = status["vtep_mac"].as_str().unwrap().to_owned();
    replace_by_the_kernel(&mut topology, &mac);
    let theirs = on_the_wire(&topology, &packets);

    let mut differ = Vec::new();
    for (id, packet) in &packets {
        let (ours, mut theirs) = (bound(ours[id].clone()), bound(theirs[id].clone()));
        if packet[1] & CE == CE {
            assert_eq!((ours[OUTER_IP + 1], theirs[OUTER_IP + 1]), (packet[1], packet[1] & !CE | ECT_0));
            theirs[OUTER_IP + 1] = packet[1];
        }
        if ours != theirs {
            let at = ours.iter().zip(&theirs).position(|(a, b)| a != b);
            differ.push(format!(
                "packet {id}, from byte {at:?}:\n  ours   {ours:02x?}\n  theirs {theirs:02x?}"
            ));
        }
    }
    assert!(
        differ.is_empty(),
        "{} of {}:\n{}",
        differ.len(),
        packets.len(),
        differ[..differ.len().min(3)].join("\n")
    );
}
