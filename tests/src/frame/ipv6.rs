//! IPv6 (RFC 8200), its neighbour discovery (RFC 4861), and tunnels over it.

use std::net::Ipv6Addr;

use super::{ICMPV6, IPV6, Mac, TCP, Tunnel, UDP, checksum, eth, len, words};

/// Types of ICMPv6 (RFC 4861 section 4).
const ADVERTISEMENT: u8 = 136;
const SOLICITATION: u8 = 135;

/// An IPv6 packet.
#[derive(Clone, Debug)]
pub struct Ipv6 {
    /// Traffic class: DSCP and ECN.
    pub class: u8,
    /// What the header claims to follow it, the truth where `None`.
    pub payload_len: Option<u16>,
    /// What follows.
    pub next_header: u8,
    /// Hops that are left.
    pub hop_limit: u8,
    /// Source.
    pub src: Ipv6Addr,
    /// Destination.
    pub dst: Ipv6Addr,
    /// All behind the header.
    pub payload: Vec<u8>,
}

impl Ipv6 {
    /// A packet with hop limit 64.
    #[must_use]
    pub fn new(next_header: u8, src: Ipv6Addr, dst: Ipv6Addr, payload: Vec<u8>) -> Self {
        Self { class: 0, payload_len: None, next_header, hop_limit: 64, src, dst, payload }
    }

    /// A UDP datagram with a right checksum.
    #[must_use]
    pub fn udp(src: (Ipv6Addr, u16), dst: (Ipv6Addr, u16), payload: &[u8]) -> Self {
        let mut datagram = words(&[src.1, dst.1, len(8 + payload.len()), 0]);
        datagram.extend(payload);
        let sum = transport_checksum(UDP, src.0, dst.0, &datagram);
        datagram[6..8].copy_from_slice(&sum.to_be_bytes());
        Self::new(UDP, src.0, dst.0, datagram)
    }

    /// A TCP SYN with a right checksum (RFC 9293 section 3.1).
    #[must_use]
    pub fn syn(src: (Ipv6Addr, u16), dst: (Ipv6Addr, u16)) -> Self {
        let mut segment = words(&[src.1, dst.1, 0x4f56, 0x4c44, 0, 0, 0x5002, 0xffff, 0, 0]);
        let sum = transport_checksum(TCP, src.0, dst.0, &segment);
        segment[16..18].copy_from_slice(&sum.to_be_bytes());
        Self::new(TCP, src.0, dst.0, segment)
    }

    /// A neighbour advertisement: `target` is at this MAC address, whatever was believed before.
    #[must_use]
    pub fn advertisement(src: Ipv6Addr, dst: Ipv6Addr, target: Ipv6Addr, mac: Mac) -> Self {
        // Solicited and override; the target's link-layer address is option 2.
        Self::neighbour(ADVERTISEMENT, 0x60, 2, src, dst, target, mac)
    }

    /// A neighbour solicitation: who asks for `target` is at this MAC address.
    #[must_use]
    pub fn solicitation(src: Ipv6Addr, dst: Ipv6Addr, target: Ipv6Addr, mac: Mac) -> Self {
        Self::neighbour(SOLICITATION, 0, 1, src, dst, target, mac)
    }

    /// A router advertisement of high preference (RFC 4861 section 4.2, RFC 4191 section 2.2) for half an hour.
    #[must_use]
    pub fn router_advertisement(src: Ipv6Addr, dst: Ipv6Addr, mac: Mac) -> Self {
        let mut message = vec![134, 0, 0, 0, 64, 0x08, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1];
        message.extend(mac);
        let sum = transport_checksum(ICMPV6, src, dst, &message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        Self { hop_limit: 255, ..Self::new(ICMPV6, src, dst, message) }
    }

    fn neighbour(
        kind: u8,
        flags: u8,
        option: u8,
        src: Ipv6Addr,
        dst: Ipv6Addr,
        target: Ipv6Addr,
        mac: Mac,
    ) -> Self {
        let mut message = vec![kind, 0, 0, 0, flags, 0, 0, 0];
        message.extend(target.octets());
        message.extend([option, 1]);
        message.extend(mac);
        let sum = transport_checksum(ICMPV6, src, dst, &message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        // Who hears it believes that it came from no further than the link (RFC 4861 section 7.1.2).
        Self { hop_limit: 255, ..Self::new(ICMPV6, src, dst, message) }
    }

    /// The same packet with a destination options header (RFC 8200 section 4.6) in front of its payload, which holds
    /// nothing but padding.
    #[must_use]
    pub fn with_options(&self) -> Self {
        let payload = [&[self.next_header, 0, 1, 4, 0, 0, 0, 0], &self.payload[..]].concat();
        Self { next_header: 60, payload, ..self.clone() }
    }

    /// The same packet in two fragments (RFC 8200 section 4.5), the first with so many bytes of payload, a multiple of
    /// eight; or in one that is all of it (RFC 6946), where that is 0.
    #[must_use]
    pub fn in_fragments(&self, id: u32, first: usize) -> Vec<Self> {
        let part = |at: usize, more: u16, bytes: &[u8]| {
            let mut payload = vec![self.next_header, 0];
            payload.extend((len(at) | more).to_be_bytes());
            payload.extend(id.to_be_bytes());
            payload.extend(bytes);
            Self { next_header: 44, payload, ..self.clone() }
        };
        match first {
            0 => vec![part(0, 0, &self.payload)],
            _ => vec![part(0, 1, &self.payload[..first]), part(first, 0, &self.payload[first..])],
        }
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let payload_len = self.payload_len.unwrap_or_else(|| len(self.payload.len()));
        let mut packet = vec![0x60 | self.class >> 4, self.class << 4, 0, 0];
        packet.extend(payload_len.to_be_bytes());
        packet.extend([self.next_header, self.hop_limit]);
        packet.extend([self.src.octets(), self.dst.octets()].concat());
        packet.extend(&self.payload);
        packet
    }
}

impl Tunnel {
    /// The outer packet over IPv6 instead, without a UDP checksum.
    #[must_use]
    pub fn ip_v6(&self, src: Ipv6Addr, dst: Ipv6Addr) -> Ipv6 {
        let mut outer = self.checksummed_v6(src, dst);
        outer.payload[6..8].fill(0);
        outer
    }

    /// The outer packet over IPv6 instead, with a UDP checksum.
    #[must_use]
    pub fn checksummed_v6(&self, src: Ipv6Addr, dst: Ipv6Addr) -> Ipv6 {
        let outer = Ipv6::udp((src, self.src_port), (dst, self.port), &self.payload());
        Ipv6 { class: self.tos, ..outer }
    }

    /// The whole frame over IPv6 instead.
    #[must_use]
    pub fn bytes_v6(&self, src: Ipv6Addr, dst: Ipv6Addr) -> Vec<u8> {
        eth(self.eth_dst, self.eth_src, IPV6, &self.ip_v6(src, dst).bytes())
    }
}

/// The checksum with IPv6's pseudo header (RFC 8200 section 8.1).
fn transport_checksum(protocol: u8, src: Ipv6Addr, dst: Ipv6Addr, segment: &[u8]) -> u16 {
    let mut pseudo = [src.octets(), dst.octets()].concat();
    pseudo.extend(words(&[0, len(segment.len()), 0, u16::from(protocol)]));
    match checksum(&[&pseudo, segment]) {
        0 => 0xffff,
        sum => sum,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sum over what was summed, itself included, is all ones (RFC 1071 section 1).
    #[test]
    fn checksums_hold() {
        let (src, dst): (Ipv6Addr, Ipv6Addr) = ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap());
        for packet in [
            Ipv6::udp((src, 1000), (dst, 2000), b"odd"),
            Ipv6::syn((src, 1000), (dst, 2000)),
            Ipv6::advertisement(src, dst, src, [2; 6]),
        ] {
            let pseudo =
                [&src.octets()[..], &dst.octets(), &[0, 0], &len(packet.payload.len()).to_be_bytes()];
            let pseudo = [&pseudo.concat()[..], &[0, 0, 0, packet.next_header]].concat();
            assert_eq!(checksum(&[&pseudo, &packet.payload]), 0);
            let bytes = packet.bytes();
            assert_eq!((bytes[0], bytes.len()), (0x60, 40 + packet.payload.len()));
        }
    }
}
