//! What may become of a packet, by rules written from the documents and not from the programs.

use super::{
    change::{is_clamped, updated, word},
    input::Input,
    seed::{BRIDGE, TUNNEL, UPLINK, WORKLOAD},
};
use crate::{
    case::{DROP, NEXT, REDIRECT},
    packet::at,
    world::{
        A, B, BROADCAST, CONTAINER, CONTAINER_MAC, FROM_UPLINK_MARK, GATEWAY, GATEWAY_MAC, MTU, OTHER,
        OTHER_MAC, OVERLAY_NEIGHBOUR, PORT_NUMBER, PeerHost, SUBNET, TO_HOST_MARK, UNDERLAY, UPLINK_MAC,
        VTEP_MAC, dev, to_peer,
    },
};

/// What a run must come to.
#[derive(Debug)]
pub(super) enum Judgement {
    /// It must not be redirected, and why.
    Never(&'static str),
    /// Whether it is redirected hangs on what was learned before; if so, as this.
    May(Expected),
    /// It must be redirected as this.
    Must(Expected),
}
use Judgement::{May, Must, Never};

/// How a redirected packet must look.
#[derive(Debug)]
pub(super) struct Expected {
    bytes: Vec<u8>,
    /// Bytes that nobody can foretell.
    free: Option<std::ops::Range<usize>>,
    mark: u32,
    /// Where the IPv4 packet stands whose SYN may have been clamped.
    ip: usize,
}

/// A frame with an IPv4 packet of its full length in it.
struct Frame<'a> {
    bytes: &'a [u8],
    src: [u8; 4],
    dst: [u8; 4],
    header_len: usize,
}

/// Says what is wrong with a run.
pub(super) fn judge(input: &Input, verdict: i32, mark: u32, out: &[u8]) -> Result<(), String> {
    let judgement = expectation(input);
    match (verdict, judgement) {
        (REDIRECT, Never(reason)) => Err(format!("redirected, though {reason}")),
        (REDIRECT, May(expected) | Must(expected)) => expected.compare(mark, out),
        (NEXT | DROP, Must(_)) => {
            Err(format!("not redirected but {verdict}, though nothing is wrong with it"))
        }
        (NEXT, _) if input.program == TUNNEL => Err("let past, though nothing may pass here".to_owned()),
        (NEXT | DROP, _) => unchanged(input, mark, out),
        _ => Err(format!("verdict {verdict} is none of ours")),
    }
}

fn expectation(input: &Input) -> Judgement {
    let judgement = match input.program {
        WORKLOAD => workload(input),
        BRIDGE => bridge(input),
        UPLINK => uplink(input),
        _ => Never("no tunnel brought it"),
    };
    match judgement {
        // The kernel makes no room in an aggregate without a type, which those of test runs are.
        Must(expected) if input.gso_size != 0 && input.program != WORKLOAD => May(expected),
        Must(expected) if input.gso_size != 0 && expected.ip == at::INNER_IP => May(expected),
        other => other,
    }
}

/// What is passed on or dropped stays as it is, but for a clamped SYN and the marks.
fn unchanged(input: &Input, mark: u32, out: &[u8]) -> Result<(), String> {
    let mut expected = Expected { bytes: input.packet.clone(), free: None, mark: input.mark, ip: 14 };
    if input.program == WORKLOAD && input.ifindex == dev::BRIDGE && input.mark == TO_HOST_MARK {
        expected.mark = 0;
    }
    if mark == FROM_UPLINK_MARK && is_for_our_tunnels(input) {
        expected.mark = mark;
    }
    expected.compare(mark, out)
}

/// UDP for us: all that `uplink_ingress` may leave to the tunnel device.
fn is_for_our_tunnels(input: &Input) -> bool {
    let packet = &input.packet;
    input.program == UPLINK
        && input.ifindex == dev::UPLINK
        && packet.starts_with(&UPLINK_MAC)
        && packet.get(30..34) == Some(&UNDERLAY)
        && packet.get(23) == Some(&17)
}

fn peer_of(addr: [u8; 4]) -> Option<PeerHost> {
    [A, B].into_iter().find(|peer| peer.subnet[..2] == addr[..2])
}

fn is_local(addr: [u8; 4]) -> bool {
    addr[..2] == SUBNET[..2]
}

impl<'a> Frame<'a> {
    fn of(input: &'a Input) -> Option<Self> {
        let bytes = &input.packet[..];
        let ip = bytes.get(14..34).filter(|_| bytes[12..14] == [8, 0])?;
        // An aggregate of BIG TCP has no total length.
        let total = if input.gso_size != 0 && word(ip, 2) == 0 { bytes.len() - 14 } else { word(ip, 2) };
        let header_len = usize::from(ip[0] & 15) * 4;
        let sound = ip[0] >> 4 == 4 && header_len >= 20 && total >= header_len && 14 + total <= bytes.len();
        let addr = |offset: usize| [ip[offset], ip[offset + 1], ip[offset + 2], ip[offset + 3]];
        sound.then(|| Self { bytes, src: addr(12), dst: addr(16), header_len })
    }

    fn mac(&self, offset: usize) -> [u8; 6] {
        std::array::from_fn(|i| self.bytes[offset + i])
    }

    /// As it leaves for a peer.
    fn encapsulated(&self, peer: &PeerHost, hops: u8, mark: u32) -> Expected {
        let mut inner = self.bytes[14..].to_vec();
        if hops != 0 {
            let before = word(&inner, 8) as u16;
            inner[8] -= hops;
            let sum = updated(word(&inner, 10) as u16, before, word(&inner, 8) as u16);
            inner[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        let bytes = to_peer(peer, self.bytes[15], inner);
        // The source port is a hash: its upper two bits alone are known.
        Expected { bytes, free: Some(at::OUTER_UDP..at::OUTER_UDP + 2), mark, ip: at::INNER_IP }
    }
}

fn workload(input: &Input) -> Judgement {
    let on_bridge = input.ifindex == dev::BRIDGE;
    if ![dev::BRIDGE, dev::PORT, dev::OTHER_PORT].contains(&input.ifindex) {
        return Never("no container is behind that device");
    }
    if on_bridge && input.mark == TO_HOST_MARK {
        return Never("it is for this host");
    }
    let Some(frame) = Frame::of(input) else { return Never("it is not a whole IPv4 packet") };
    if !is_local(frame.src) || (!on_bridge && [SUBNET, BROADCAST, GATEWAY].contains(&frame.src)) {
        return Never("no container has that source");
    }
    let homes = [(CONTAINER, CONTAINER_MAC, dev::PORT), (OTHER, OTHER_MAC, dev::OTHER_PORT)];
    let home = homes.iter().find(|(addr, ..)| *addr == frame.src);
    if home.is_some_and(|(_, mac, port)| !on_bridge && (*port != input.ifindex || *mac != frame.mac(6))) {
        return Never("the source is another's");
    }
    if frame.mac(0) != GATEWAY_MAC {
        return if on_bridge {
            Never("it is not for the gateway")
        } else {
            local(input, &frame, home.is_some())
        };
    }
    let Some(peer) = peer_of(frame.dst) else { return Never("no peer has the destination") };
    let ttl = frame.bytes[22];
    if ttl < 2 || frame.header_len != 20 || word(&input.packet, 20) & 0x3fff != 0 {
        return Never("the kernel has to answer it");
    }
    if input.gso_size == 0 && frame.bytes.len() - 14 > MTU as usize {
        return Never("it does not fit");
    }
    let expected = frame.encapsulated(&peer, 1, input.mark);
    if home.is_some() && !on_bridge { Must(expected) } else { May(expected) }
}

/// From one container to another, past the bridge: untouched, and only to who has both addresses.
fn local(input: &Input, frame: &Frame<'_>, sender_is_known: bool) -> Judgement {
    let expected = Expected { bytes: input.packet.clone(), free: None, mark: input.mark, ip: 14 };
    let to = |addr, mac, port| frame.dst == addr && frame.mac(0) == mac && input.ifindex != port;
    match frame.dst {
        dst if !is_local(dst) || [SUBNET, BROADCAST, GATEWAY].contains(&dst) => Never("no container has it"),
        CONTAINER | OTHER => {
            let reaches = to(CONTAINER, CONTAINER_MAC, dev::PORT) || to(OTHER, OTHER_MAC, dev::OTHER_PORT);
            match (reaches, sender_is_known) {
                (false, _) => Never("it is for another MAC address, or its own port"),
                (true, true) => Must(expected),
                (true, false) => May(expected),
            }
        }
        // Learned, or not.
        _ => May(expected),
    }
}

fn bridge(input: &Input) -> Judgement {
    if ![dev::BRIDGE, dev::PORT, dev::OTHER_PORT].contains(&input.ifindex) {
        return Never("it is no bridge of ours");
    }
    let Some(frame) = Frame::of(input) else { return Never("it is not a whole IPv4 packet") };
    if frame.mac(0) != OVERLAY_NEIGHBOUR {
        return Never("the kernel did not route it to a peer");
    }
    let Some(peer) = peer_of(frame.dst) else { return Never("no peer has the destination") };
    if !is_local(frame.src) {
        return Never("the source is not ours");
    }
    if input.gso_size == 0 && frame.bytes.len() - 14 > MTU as usize {
        return Never("it does not fit");
    }
    if input.gso_size != 0 {
        return through_device(input, &peer);
    }
    Must(frame.encapsulated(&peer, 0, input.mark))
}

/// An aggregate for which the kernel makes no room: the tunnel device encapsulates it, where there is one.
fn through_device(input: &Input, peer: &PeerHost) -> Judgement {
    if peer.port != PORT_NUMBER {
        return Never("there is no tunnel device on the peer's port");
    }
    let bytes = [&peer.vtep_mac[..], &VTEP_MAC, &input.packet[12..]].concat();
    May(Expected { bytes, free: None, mark: input.mark, ip: 14 })
}

fn uplink(input: &Input) -> Judgement {
    let packet = &input.packet;
    if input.ifindex != dev::UPLINK {
        return Never("that device is no uplink");
    }
    match why_not_accepted(packet) {
        Some(reason) => Never(reason),
        None => Must(delivered(input)),
    }
}

/// Says why a packet from the underlay ought not to be accepted, in the order of its bytes.
fn why_not_accepted(packet: &[u8]) -> Option<&'static str> {
    if packet.len() < at::INNER_IP + 20 {
        return Some("it is shorter than its headers");
    }
    if packet[..6] != UPLINK_MAC || packet[30..34] != UNDERLAY {
        return Some("it is not for us");
    }
    if word(packet, 12) != 0x0800 || packet[14] != 0x45 || packet[23] != 17 || word(packet, 20) & 0x3fff != 0
    {
        return Some("it is not plain UDP over IPv4");
    }
    if word(packet, at::OUTER_UDP + 2) != usize::from(PORT_NUMBER) {
        return Some("it is not for our port");
    }
    if packet[at::VXLAN..at::VXLAN + 4] != [8, 0, 0, 0] || packet[at::VXLAN + 7] != 0 {
        return Some("it is not plain VXLAN");
    }
    let Some(peer) = [A, B].into_iter().find(|peer| packet[26..30] == peer.underlay) else {
        return Some("a stranger sent it");
    };
    if packet[at::VXLAN + 4..at::VXLAN + 7] != peer.vni.to_be_bytes()[1..] {
        return Some("its VNI is not the peer's");
    }
    let inner_mac = &packet[at::INNER_ETH..at::INNER_ETH + 6];
    if inner_mac != VTEP_MAC && inner_mac != [0xff; 6] {
        return Some("it is for another VTEP");
    }
    if word(packet, at::INNER_ETH + 12) != 0x0800 {
        return Some("there is no IPv4 in it");
    }
    why_not_delivered(packet, &peer)
}

/// The lengths, the inner addresses, and the congestion marks.
fn why_not_delivered(packet: &[u8], peer: &PeerHost) -> Option<&'static str> {
    let (ip_len, udp_len) = (word(packet, 16), word(packet, at::OUTER_UDP + 4));
    let inner_len = word(packet, at::INNER_IP + 2);
    if 14 + ip_len > packet.len() || 20 + udp_len > ip_len || 8 + 8 + 14 + inner_len > udp_len {
        return Some("its lengths contradict each other");
    }
    let header_len = usize::from(packet[at::INNER_IP] & 15) * 4;
    if packet[at::INNER_IP] >> 4 != 4 || header_len < 20 || header_len > inner_len {
        return Some("its inner header is malformed");
    }
    if packet[at::INNER_IP + 12..at::INNER_IP + 14] != peer.subnet[..2] {
        return Some("its inner source is outside the peer's subnet");
    }
    let dst = &packet[at::INNER_IP + 16..at::INNER_IP + 20];
    if dst[..2] != CONTAINER[..2] || dst == BROADCAST {
        return Some("its inner destination is not local");
    }
    (packet[15] & 3 == 3 && packet[at::INNER_IP + 1] & 3 == 0).then_some("its congestion cannot be heard")
}

/// What is delivered: the inner packet, with the outer header's congestion mark.
fn delivered(input: &Input) -> Expected {
    let packet = &input.packet;
    let mut inner = packet[at::INNER_IP..].to_vec();
    // RFC 6040 section 4.2, figure 4; CE over Not-ECT has been refused.
    let ecn = match (inner[1] & 3, packet[15] & 3) {
        (0b00, _) => 0b00,
        (0b10, 0b01) => 0b01,
        (_, 0b11) => 0b11,
        (inner, _) => inner,
    };
    if ecn != inner[1] & 3 {
        let before = word(&inner, 0) as u16;
        inner[1] = inner[1] & !3 | ecn;
        let sum = updated(word(&inner, 10) as u16, before, word(&inner, 0) as u16);
        inner[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    let dst: [u8; 4] = std::array::from_fn(|i| inner[16 + i]);
    let (mut mark, mut free) = (input.mark, None);
    let [dst_mac, src_mac] = match dst {
        CONTAINER => [CONTAINER_MAC, GATEWAY_MAC],
        OTHER => [OTHER_MAC, GATEWAY_MAC],
        GATEWAY => {
            mark = TO_HOST_MARK;
            [GATEWAY_MAC, OVERLAY_NEIGHBOUR]
        }
        // Learned meanwhile, or left to the neighbour entry.
        _ => {
            free = Some(0..12);
            [[0; 6]; 2]
        }
    };
    let bytes = [&dst_mac[..], &src_mac, &[8, 0], &inner].concat();
    Expected { bytes, free, mark, ip: 14 }
}

impl Expected {
    fn compare(&self, mark: u32, out: &[u8]) -> Result<(), String> {
        if mark != self.mark {
            return Err(format!("the mark is {mark:#x} instead of {:#x}", self.mark));
        }
        if self.bytes == out {
            return Ok(());
        }
        if out.len() != self.bytes.len() {
            return Err(format!("{} bytes instead of {}: {out:02x?}", out.len(), self.bytes.len()));
        }
        let mut expected = self.bytes.clone();
        if let Some(free) = &self.free {
            expected[free.clone()].copy_from_slice(&out[free.clone()]);
        }
        // A tunnel's source port is a dynamic one, RFC 7348 section 5.
        if self.ip == at::INNER_IP && out[at::OUTER_UDP] < 0xc0 {
            return Err("the outer source port is not a dynamic one".to_owned());
        }
        if expected == out || is_clamped(&expected, out, self.ip) {
            return Ok(());
        }
        let differs = expected.iter().zip(out).position(|(a, b)| a != b).unwrap_or_default();
        Err(format!("differs from byte {differs} on:\n is {out:02x?}\nnot {expected:02x?}"))
    }
}
