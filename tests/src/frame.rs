//! Frames written field by field from the RFCs, to be put on a wire as they are. Nothing here comes from the
//! code under test.

mod ipv6;

use std::net::{Ipv4Addr, SocketAddrV4};

pub use self::ipv6::Ipv6;

/// `EtherType` of IPv4.
pub const IPV4: u16 = 0x0800;
/// `EtherType` of ARP.
pub const ARP: u16 = 0x0806;
/// `EtherType` of IPv6.
pub const IPV6: u16 = 0x86dd;
/// `EtherType` of a VLAN tag (IEEE 802.1Q).
pub const VLAN: u16 = 0x8100;

/// IP's protocol numbers.
pub const ICMP: u8 = 1;
/// See [`ICMP`].
pub const TCP: u8 = 6;
/// See [`ICMP`].
pub const UDP: u8 = 17;

/// See [`ICMP`].
pub const ICMPV6: u8 = 58;

/// An Ethernet address.
pub type Mac = [u8; 6];

/// The address of everybody.
pub const BROADCAST: Mac = [0xff; 6];

/// Bytes in front of the inner IP header: Ethernet, IP, UDP, VXLAN, Ethernet.
pub const INNER_IP: usize = 14 + 20 + 8 + 8 + 14;

/// Reads `02:42:ac:11:00:02`.
///
/// # Panics
/// It is something else.
#[must_use]
pub fn mac(text: &str) -> Mac {
    let bytes: Option<Vec<u8>> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    let mac = bytes.and_then(|bytes| bytes.try_into().ok());
    mac.unwrap_or_else(|| panic!("`{text}` is no MAC address"))
}

/// The Internet checksum of bytes that follow each other (RFC 1071 section 4.1); all but the last part of even
/// length.
#[must_use]
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum: u64 = 0;
    for pair in parts.iter().flat_map(|part| part.chunks(2)) {
        sum += u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

/// An Ethernet II frame.
#[must_use]
pub fn eth(dst: Mac, src: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(14 + payload.len());
    frame.extend(dst);
    frame.extend(src);
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The same frame with an 802.1Q tag.
#[must_use]
pub fn tagged(frame: &[u8], vlan: u16) -> Vec<u8> {
    let mut tagged = frame[..12].to_vec();
    tagged.extend(VLAN.to_be_bytes());
    tagged.extend(vlan.to_be_bytes());
    tagged.extend(&frame[12..]);
    tagged
}

/// An ARP packet for IPv4 over Ethernet (RFC 826): 1 asks, 2 answers.
#[must_use]
pub fn arp(operation: u16, sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4];
    packet.extend(operation.to_be_bytes());
    for (mac, ip) in [sender, target] {
        packet.extend(mac);
        packet.extend(ip.octets());
    }
    packet
}

/// An IPv4 packet, its header's checksum right.
#[derive(Clone, Debug)]
pub struct Ipv4 {
    /// DSCP and ECN.
    pub tos: u8,
    /// What the header claims, the truth where `None`.
    pub total_len: Option<u16>,
    /// Identification.
    pub id: u16,
    /// Flags and fragment offset.
    pub flags_fragment: u16,
    /// Time to live.
    pub ttl: u8,
    /// The payload's protocol.
    pub protocol: u8,
    /// Source.
    pub src: Ipv4Addr,
    /// Destination.
    pub dst: Ipv4Addr,
    /// A multiple of four bytes.
    pub options: Vec<u8>,
    /// All behind the header.
    pub payload: Vec<u8>,
}

impl Ipv4 {
    /// A packet with DF and TTL 64.
    #[must_use]
    pub fn new(protocol: u8, src: Ipv4Addr, dst: Ipv4Addr, payload: Vec<u8>) -> Self {
        let options = Vec::new();
        Self {
            tos: 0,
            total_len: None,
            id: 0x4f56,
            flags_fragment: 0x4000,
            ttl: 64,
            protocol,
            src,
            dst,
            options,
            payload,
        }
    }

    /// A UDP datagram with a right checksum.
    #[must_use]
    pub fn udp(src: SocketAddrV4, dst: SocketAddrV4, payload: &[u8]) -> Self {
        let mut datagram = words(&[src.port(), dst.port(), len(8 + payload.len()), 0]);
        datagram.extend(payload);
        put_checksum(&mut datagram, 6, UDP, src, dst);
        Self::new(UDP, *src.ip(), *dst.ip(), datagram)
    }

    /// A TCP SYN with a right checksum (RFC 9293 section 3.1).
    #[must_use]
    pub fn syn(src: SocketAddrV4, dst: SocketAddrV4) -> Self {
        let mut segment = words(&[src.port(), dst.port(), 0x4f56, 0x4c44, 0, 0, 0x5002, 0xffff, 0, 0]);
        put_checksum(&mut segment, 16, TCP, src, dst);
        Self::new(TCP, *src.ip(), *dst.ip(), segment)
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let header_len = 20 + self.options.len();
        let total = self.total_len.unwrap_or_else(|| len(header_len + self.payload.len()));
        let version_ihl = 0x40 | u8::try_from(header_len / 4).unwrap_or(0x0f);
        let mut packet = vec![version_ihl, self.tos];
        packet.extend(words(&[total, self.id, self.flags_fragment]));
        packet.extend([self.ttl, self.protocol, 0, 0]);
        packet.extend(self.src.octets());
        packet.extend(self.dst.octets());
        packet.extend(&self.options);
        let sum = checksum(&[&packet]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet.extend(&self.payload);
        packet
    }
}

/// A VXLAN packet over IPv4 (RFC 7348 section 5), without an outer UDP checksum.
#[derive(Clone, Debug)]
pub struct Tunnel {
    /// Outer Ethernet destination.
    pub eth_dst: Mac,
    /// Outer Ethernet source.
    pub eth_src: Mac,
    /// Outer DSCP and ECN.
    pub tos: u8,
    /// Outer source.
    pub src: Ipv4Addr,
    /// Outer destination.
    pub dst: Ipv4Addr,
    /// Outer UDP source port.
    pub src_port: u16,
    /// Outer UDP destination port.
    pub port: u16,
    /// Flags and three reserved bytes.
    pub flags: [u8; 4],
    /// Network identifier.
    pub vni: u32,
    /// The last byte, reserved.
    pub reserved: u8,
    /// Inner Ethernet destination: the receiver's VTEP.
    pub inner_dst: Mac,
    /// Inner Ethernet source.
    pub inner_src: Mac,
    /// Inner `EtherType`.
    pub inner_ethertype: u16,
    /// All behind the inner Ethernet header.
    pub inner: Vec<u8>,
}

impl Tunnel {
    /// What UDP carries: VXLAN header and inner frame.
    #[must_use]
    pub fn payload(&self) -> Vec<u8> {
        let mut payload = self.flags.to_vec();
        payload.extend(&self.vni.to_be_bytes()[1..]);
        payload.push(self.reserved);
        payload.extend(eth(self.inner_dst, self.inner_src, self.inner_ethertype, &self.inner));
        payload
    }

    /// The outer IP packet.
    #[must_use]
    pub fn ip(&self) -> Ipv4 {
        let payload = self.payload();
        let mut datagram = words(&[self.src_port, self.port, len(8 + payload.len()), 0]);
        datagram.extend(payload);
        Ipv4 { tos: self.tos, id: 0, ..Ipv4::new(UDP, self.src, self.dst, datagram) }
    }

    /// The outer IP packet with an outer UDP checksum, as some peers send it.
    #[must_use]
    pub fn checksummed(&self) -> Ipv4 {
        let (src, dst) = (SocketAddrV4::new(self.src, self.src_port), SocketAddrV4::new(self.dst, self.port));
        Ipv4 { tos: self.tos, id: 0, ..Ipv4::udp(src, dst, &self.payload()) }
    }

    /// The whole frame.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        eth(self.eth_dst, self.eth_src, IPV4, &self.ip().bytes())
    }
}

/// The transport checksum with its pseudo header (RFC 768, RFC 9293), written at `at`.
fn put_checksum(segment: &mut [u8], at: usize, protocol: u8, src: SocketAddrV4, dst: SocketAddrV4) {
    let mut pseudo = [src.ip().octets(), dst.ip().octets()].concat();
    pseudo.extend(words(&[u16::from(protocol), len(segment.len())]));
    // UDP sends a sum of zero as its other form; zero means none.
    let sum = match checksum(&[&pseudo, segment]) {
        0 => 0xffff,
        sum => sum,
    };
    segment[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

fn words(words: &[u16]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

fn len(bytes: usize) -> u16 {
    u16::try_from(bytes).unwrap_or_else(|_| panic!("{bytes} bytes are no IP packet"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_hold() {
        let (src, dst) = ("10.0.0.1:1000".parse().unwrap(), "10.0.0.2:2000".parse().unwrap());
        for packet in [Ipv4::udp(src, dst, b"odd"), Ipv4::syn(src, dst)] {
            let bytes = packet.bytes();
            assert_eq!(checksum(&[&bytes[..20]]), 0);
            let length = len(packet.payload.len()).to_be_bytes();
            let pseudo = [&bytes[12..20], &[0, packet.protocol], &length].concat();
            assert_eq!(checksum(&[&pseudo, &packet.payload]), 0);
        }
    }
}
