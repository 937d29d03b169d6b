//! Changes to packets that know where the fields are.

use super::{
    input::Input,
    layout::{Layout, OUTER_IP},
    random::Random,
    special::{ADDRESSES4, ADDRESSES6, MACS},
};
use crate::{
    packet::{checksum, pattern},
    world::{A, B, LISTEN_PORT, PORT_NUMBER},
};

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
    if packet.is_empty() {
        return packet.extend(pattern(60));
    }
    let layout = Layout::of(packet);
    let headers = packet.len().min(layout.inner_end() + 40);
    match random.below(18) {
        0 | 1 => packet[random.below(headers)] ^= 1 << random.below(8),
        2 | 3 => packet[random.below(headers)] = random.next() as u8,
        4 | 5 => number(random, packet, &layout),
        6 => packet.truncate(random.below(packet.len() + 1)),
        7 => {
            let len = random.below(packet.len().min(layout.inner_end() + 20) + 1);
            packet.truncate(len);
        }
        8 => packet.extend(pattern(random.pick(&[1, 2, 7, 46, 500]))),
        9..=11 => address(random, packet, &layout),
        12 => {
            let offset = random.pick(&[0, 6, layout.inner_eth, layout.inner_eth + 6]);
            write(packet, offset, &random.pick(&MACS));
        }
        13 => {
            let offset = random.pick(&[12, layout.inner_eth + 12]);
            let ethertype = random.pick(&[0x0800, 0x0806, 0x86dd, 0x8100, 0x88a8, 0x88cc, 0x05dc_u16]);
            write(packet, offset, &ethertype.to_be_bytes());
        }
        14 => options(random, packet, &layout),
        15 => shift(random, packet, &layout),
        16 => byte(random, packet, &layout),
        _ => tunnel_header(random, packet, &layout),
    }
}

/// Where 16-bit fields stand whose extremes matter: lengths, fragments, checksums, ports.
fn fields(random: &mut Random, layout: &Layout) -> usize {
    let (ip, v6) = random.pick(&layout.headers());
    let behind = ip + if v6 { 40 } else { 20 };
    // Of IPv6 the length; the first word of an extension header, which in ICMPv6 is type and code; its second word.
    let of_ip = if v6 { [ip + 4, behind, behind + 2] } else { [ip + 2, ip + 6, ip + 10] };
    match random.below(8) {
        0 => 12,
        1 => layout.inner_eth + 12,
        2 => behind + 12,
        3..=5 => random.pick(&of_ip),
        _ => random.pick(&[behind, behind + 2, behind + 4]),
    }
}

/// A field at one of its extremes, or beside what it is.
fn number(random: &mut Random, packet: &mut [u8], layout: &Layout) {
    let offset = fields(random, layout);
    let Some(&[high, low]) = packet.get(offset..offset + 2) else { return };
    let is = u16::from_be_bytes([high, low]);
    let near = is.wrapping_add(random.below(64) as u16).wrapping_sub(32);
    let value = random.pick(&[0, 1, 7, 8, 19, 20, 0x1fff, 0x2000, 0x4000, 0x7fff, 0xffff, near, near, near]);
    write(packet, offset, &value.to_be_bytes());
}

/// An address that means something, where one stands.
fn address(random: &mut Random, packet: &mut [u8], layout: &Layout) {
    let (ip, v6) = random.pick(&layout.headers());
    let second = random.below(2);
    if v6 {
        write(packet, ip + 8 + 16 * second, &random.pick(&ADDRESSES6));
    } else {
        write(packet, ip + 12 + 4 * second, &random.pick(&ADDRESSES4));
    }
}

/// What follows a header, how many hops are left, or the version.
fn byte(random: &mut Random, packet: &mut [u8], layout: &Layout) {
    let (ip, v6) = random.pick(&layout.headers());
    match random.below(4) {
        0 => write(packet, ip, &[random.pick(&[0x45, 0x60, 0x46, 0x65, 0x05, 0x6b])]),
        1 => write(packet, ip + if v6 { 7 } else { 8 }, &[random.pick(&[0, 1, 2, 254, 255])]),
        _ => {
            let protocols = [0, 1, 4, 6, 17, 41, 43, 44, 50, 51, 58, 59, 60, 135, 139, 140, 253];
            write(packet, ip + if v6 { 6 } else { 9 }, &[random.pick(&protocols)]);
        }
    }
}

/// Options or an extension header put in behind an IP header, with or without the header saying so.
fn options(random: &mut Random, packet: &mut Vec<u8>, layout: &Layout) {
    let (ip, v6) = random.pick(&layout.headers());
    let behind = ip + if v6 { 40 } else { 20 };
    if packet.len() < behind {
        return;
    }
    let said = !random.once_in(4);
    let added = if v6 {
        let kind = random.pick(&[0, 43, 44, 60, 135, 51_u8]);
        let words = if kind == 44 { 0 } else { random.pick(&[0, 0, 0, 1, 3]) };
        let fill = random.pick(&[0, 1, 4, 0xff]);
        let mut header = vec![fill; 8 * (usize::from(words) + 1)];
        (header[0], header[1]) = (packet[ip + 6], words);
        if said {
            packet[ip + 6] = kind;
        }
        header
    } else {
        let words = 1 + random.below(10);
        if said {
            packet[ip] = 0x40 | (5 + words) as u8;
        }
        vec![random.pick(&[1, 0, 7, 68, 131, 148_u8]); words * 4]
    };
    if said {
        let (at, len) = (if v6 { ip + 4 } else { ip + 2 }, added.len() as u16);
        let total = u16::from_be_bytes([packet[at], packet[at + 1]]);
        write(packet, at, &total.wrapping_add(len).to_be_bytes());
    }
    packet.splice(behind..behind, added);
}

/// A tag or a few bytes in, or out.
fn shift(random: &mut Random, packet: &mut Vec<u8>, layout: &Layout) {
    let at = random.pick(&[12, 14, layout.udp, layout.vxlan, layout.inner_eth, layout.inner_ip]);
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
fn tunnel_header(random: &mut Random, packet: &mut [u8], layout: &Layout) {
    match random.below(3) {
        0 => {
            let port = random.pick(&[PORT_NUMBER, LISTEN_PORT, A.port, 0, 53, u16::MAX]);
            write(packet, layout.udp + 2, &port.to_be_bytes());
        }
        1 => {
            let vni = random.pick(&[A.vni, B.vni, 0, 0xff_ffff, A.vni + 1]);
            write(packet, layout.vxlan + 4, &vni.to_be_bytes()[1..]);
        }
        _ => {
            let flags =
                random.pick(&[[8, 0, 0, 0], [0, 0, 0, 0], [0x0c, 0, 0, 0], [0x88, 0, 0, 0], [8, 0, 0, 1]]);
            write(packet, layout.vxlan, &flags);
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
    let layout = Layout::of(packet);
    let protocol = packet.get(OUTER_IP + if layout.outer_v6 { 6 } else { 9 });
    let is_ip = layout.outer_v6 || packet.get(12..14) == Some(&[8, 0]);
    let is_tunnel = is_ip && protocol == Some(&17);
    if is_tunnel {
        repair_ip(packet, layout.inner_ip, layout.inner_v6);
        let len = (packet.len().saturating_sub(layout.udp)) as u16;
        write(packet, layout.udp + 4, &len.to_be_bytes());
    }
    if is_ip {
        repair_ip(packet, OUTER_IP, layout.outer_v6);
    }
}

fn repair_ip(packet: &mut [u8], offset: usize, v6: bool) {
    let len = if v6 { 40 } else { 20 };
    let Some(header) = packet.get(offset..offset + len) else { return };
    let end = packet.len() - offset;
    if v6 {
        return write(packet, offset + 4, &((end - 40) as u16).to_be_bytes());
    }
    let header_len = usize::from(header[0] & 15) * 4;
    if header[0] >> 4 != 4 || header_len < 20 || header_len > end {
        return;
    }
    write(packet, offset + 2, &(end as u16).to_be_bytes());
    write(packet, offset + 10, &[0; 2]);
    let sum = checksum(&packet[offset..offset + header_len]);
    write(packet, offset + 10, &sum.to_be_bytes());
}
