//! Neighbour advertisements and solicitations on the wire (RFC 4861 section 4).

use std::net::Ipv6Addr;

use harness::{
    frame::{Mac, checksum, eth},
    traffic::Frame,
};

const IPV6: u16 = 0x86dd;
const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Says to all that `ip` is at `mac`, unasked, and that what they know is to be forgotten (the override flag).
pub(crate) fn claim(ip: Ipv6Addr, mac: Mac) -> Vec<u8> {
    let mut icmp = vec![ADVERTISEMENT, 0, 0, 0, 0x20, 0, 0, 0];
    icmp.extend(ip.octets());
    icmp.extend([2, 1]);
    icmp.extend(mac);
    let len = u8::try_from(icmp.len()).unwrap();
    let pseudo = [&ip.octets()[..], &ALL_NODES.octets(), &[0, 0, 0, len, 0, 0, 0, ICMPV6]].concat();
    let sum = checksum(&[&pseudo, &icmp]);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    // A hop limit of 255: who is not on the link cannot have sent it.
    let mut packet = vec![0x60, 0, 0, 0, 0, len, ICMPV6, 255];
    packet.extend(ip.octets());
    packet.extend(ALL_NODES.octets());
    packet.extend(icmp);
    eth([0x33, 0x33, 0, 0, 0, 1], mac, IPV6, &packet)
}

/// Whether a frame asks for `ip` at one MAC address.
pub(crate) fn asks_at(frame: &Frame, ip: Ipv6Addr, mac: Mac) -> bool {
    let bytes = &frame.bytes;
    bytes.len() >= 78
        && bytes[..6] == mac
        && bytes[12..14] == IPV6.to_be_bytes()
        && (bytes[20], bytes[54]) == (ICMPV6, SOLICITATION)
        && bytes[62..78] == ip.octets()
}
