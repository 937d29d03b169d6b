//! Changes to packets that know where the fields are.

use super::{input::Input, random::Random};
use crate::{
    packet::{at, checksum, pattern},
    world::{
        A, B, BROADCAST, CONTAINER, CONTAINER_MAC, GATEWAY, GATEWAY_MAC, LISTEN_PORT, NEW, OTHER, OTHER_MAC,
        OVERLAY_NEIGHBOUR, PORT_NUMBER, SUBNET, UNDERLAY, UPLINK_MAC, VTEP_MAC,
    },
};

/// Where 16-bit fields stand whose extremes matter: in the first IPv4 header and behind it, and in the inner one.
const FIELDS: [usize; 12] = [
    12,
    at::OUTER_IP + 2,
    at::OUTER_IP + 6,
    at::OUTER_IP + 10,
    at::OUTER_UDP,
    at::OUTER_UDP + 2,
    at::OUTER_UDP + 4,
    at::OUTER_UDP + 12,
    at::INNER_ETH + 12,
    at::INNER_IP + 2,
    at::INNER_IP + 6,
    at::INNER_IP + 20 + 12,
];

const ADDRESSES: [[u8; 4]; 18] = [
    A.underlay,
    B.underlay,
    UNDERLAY,
    A.container,
    B.container,
    A.subnet,
    CONTAINER,
    OTHER,
    NEW,
    GATEWAY,
    SUBNET,
    BROADCAST,
    [0; 4],
    [0xff; 4],
    [127, 0, 0, 1],
    [224, 0, 0, 1],
    [172, 29, 0, 9],
    [8, 8, 8, 8],
];

const MACS: [[u8; 6]; 8] = [
    UPLINK_MAC,
    VTEP_MAC,
    GATEWAY_MAC,
    CONTAINER_MAC,
    OTHER_MAC,
    OVERLAY_NEIGHBOUR,
    [0xff; 6],
    [0x01, 0, 0x5e, 0, 0, 1],
];

/// Where addresses and protocol numbers stand, in outer and inner headers.
const IP_ADDRESSES: [usize; 4] = [at::OUTER_IP + 12, at::OUTER_IP + 16, at::INNER_IP + 12, at::INNER_IP + 16];

/// Changes an input a few times; one in eight stays as it is.
pub(super) fn mutate(random: &mut Random, input: &mut Input) {
    for _ in 0..random.below(8).min(1 + random.below(4)) {
        change(random, &mut input.packet);
    }
    if random.once_in(2) {
        repair(&mut input.packet);
    }
    input.packet.truncate(3000);
    input.lengthen();
}

/// One change.
fn change(random: &mut Random, packet: &mut Vec<u8>) {
    let headers = packet.len().clamp(1, at::INNER_IP + 60);
    if packet.is_empty() {
        return packet.extend(pattern(60));
    }
    match random.below(16) {
        0 | 1 => packet[random.below(headers)] ^= 1 << random.below(8),
        2 | 3 => packet[random.below(headers)] = random.next() as u8,
        4 | 5 => number(random, packet),
        6 => packet.truncate(random.below(packet.len() + 1)),
        7 => {
            let len = random.below(packet.len().min(at::INNER_IP + 40) + 1);
            packet.truncate(len);
        }
        8 => packet.extend(pattern(random.pick(&[1, 2, 7, 46, 500]))),
        9 | 10 => {
            let (offset, addr) = (random.pick(&IP_ADDRESSES), random.pick(&ADDRESSES));
            write(packet, offset, &addr);
        }
        11 => {
            let offset = random.pick(&[0, 6, at::INNER_ETH, at::INNER_ETH + 6]);
            write(packet, offset, &random.pick(&MACS));
        }
        12 => {
            let offset = random.pick(&[12, at::INNER_ETH + 12]);
            let ethertype = random.pick(&[0x0800, 0x0806, 0x86dd, 0x8100, 0x88a8, 0x88cc, 0x05dc_u16]);
            write(packet, offset, &ethertype.to_be_bytes());
        }
        13 => options(random, packet),
        14 => shift(random, packet),
        _ => tunnel_header(random, packet),
    }
}

/// A field at one of its extremes, or beside what it is.
fn number(random: &mut Random, packet: &mut [u8]) {
    let offset = random.pick(&FIELDS);
    let Some(&[high, low]) = packet.get(offset..offset + 2) else { return };
    let is = u16::from_be_bytes([high, low]);
    let near = is.wrapping_add(random.below(64) as u16).wrapping_sub(32);
    let value = random.pick(&[0, 1, 7, 8, 19, 20, 0x1fff, 0x2000, 0x4000, 0x7fff, 0xffff, near, near, near]);
    write(packet, offset, &value.to_be_bytes());
}

/// Options put in behind an IP header, with or without the header saying so.
fn options(random: &mut Random, packet: &mut Vec<u8>) {
    let offset = random.pick(&[at::OUTER_IP, at::INNER_IP]);
    if packet.len() < offset + 20 {
        return;
    }
    let words = 1 + random.below(10);
    let kinds = random.pick(&[1, 0, 7, 68, 131, 148_u8]);
    let at = offset + 20;
    packet.splice(at..at, vec![kinds; words * 4]);
    if !random.once_in(4) {
        packet[offset] = 0x40 | (5 + words) as u8;
        let total = u16::from_be_bytes([packet[offset + 2], packet[offset + 3]]);
        write(packet, offset + 2, &total.wrapping_add(words as u16 * 4).to_be_bytes());
    }
}

/// A tag or a few bytes in, or out.
fn shift(random: &mut Random, packet: &mut Vec<u8>) {
    let at = random.pick(&[12, 14, at::OUTER_UDP, at::VXLAN, at::INNER_ETH, at::INNER_IP]);
    if packet.len() < at + 8 {
        return;
    }
    if random.once_in(2) {
        packet.splice(at..at, random.pick(&[[0x81, 0, 0, 7], [0x88, 0xa8, 0, 7], [0; 4], [0xff; 4]]));
    } else {
        packet.drain(at..at + 1 + random.below(8));
    }
}

/// The fields of the tunnel's own headers.
fn tunnel_header(random: &mut Random, packet: &mut [u8]) {
    match random.below(3) {
        0 => {
            let port = random.pick(&[PORT_NUMBER, LISTEN_PORT, A.port, 0, 53, u16::MAX]);
            write(packet, at::OUTER_UDP + 2, &port.to_be_bytes());
        }
        1 => {
            let vni = random.pick(&[A.vni, B.vni, 0, 0xff_ffff, A.vni + 1]);
            write(packet, at::VXLAN + 4, &vni.to_be_bytes()[1..]);
        }
        _ => {
            let flags =
                random.pick(&[[8, 0, 0, 0], [0, 0, 0, 0], [0x0c, 0, 0, 0], [0x88, 0, 0, 0], [8, 0, 0, 1]]);
            write(packet, at::VXLAN, &flags);
        }
    }
}

/// Writes as much as there is room for.
fn write(packet: &mut [u8], offset: usize, bytes: &[u8]) {
    if let Some(room) = packet.get_mut(offset..offset + bytes.len()) {
        room.copy_from_slice(bytes);
    }
}

/// Puts the lengths and header checksums right, so that what is behind them is looked at, too.
fn repair(packet: &mut [u8]) {
    let is_tunnel = packet.get(12..14) == Some(&[8, 0]) && packet.get(at::OUTER_IP + 9) == Some(&17);
    for offset in [at::INNER_IP, at::OUTER_IP] {
        let Some(header) = packet.get(offset..offset + 20) else { continue };
        let header_len = usize::from(header[0] & 15) * 4;
        let (end, tunnel) = (packet.len() - offset, is_tunnel && offset == at::OUTER_IP);
        if header[0] >> 4 != 4
            || header_len < 20
            || header_len > end
            || (!is_tunnel && offset == at::INNER_IP)
        {
            continue;
        }
        write(packet, offset + 2, &(end as u16).to_be_bytes());
        write(packet, offset + 10, &[0; 2]);
        let sum = checksum(&packet[offset..offset + header_len]);
        write(packet, offset + 10, &sum.to_be_bytes());
        if tunnel {
            write(packet, offset + header_len + 4, &((end - header_len) as u16).to_be_bytes());
        }
    }
}
