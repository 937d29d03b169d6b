//! IPv6 packets, byte by byte from RFC 8200.

use crate::packet::{UDP, pattern, udp};

pub type Addr6 = [u8; 16];

/// ICMPv6's protocol number.
pub const ICMPV6: u8 = 58;

/// An address from its eight groups.
pub const fn addr(groups: [u16; 8]) -> Addr6 {
    let mut bytes = [0; 16];
    let mut n = 0;
    while n < 8 {
        let [high, low] = groups[n].to_be_bytes();
        bytes[2 * n] = high;
        bytes[2 * n + 1] = low;
        n += 1;
    }
    bytes
}

/// An IPv6 packet.
#[derive(Clone, Debug)]
pub struct Ipv6 {
    pub class: u8,
    pub flow_label: u32,
    /// What the header claims; the truth where `None`.
    pub payload_len: Option<u16>,
    pub next_header: u8,
    pub hop_limit: u8,
    pub src: Addr6,
    pub dst: Addr6,
    pub payload: Vec<u8>,
}

impl Ipv6 {
    /// A UDP packet of 48 + 56 bytes, as a container sends it.
    pub fn udp(src: Addr6, dst: Addr6) -> Self {
        Self {
            class: 0,
            flow_label: 0,
            payload_len: None,
            next_header: UDP,
            hop_limit: 64,
            src,
            dst,
            payload: udp(1111, 2222, &pattern(56)),
        }
    }

    /// The same with as much payload as makes it `total` bytes long.
    pub fn sized(src: Addr6, dst: Addr6, total: usize) -> Self {
        Self { payload: udp(1111, 2222, &pattern(total - 48)), ..Self::udp(src, dst) }
    }

    /// A neighbour solicitation or advertisement (RFC 4861 sections 4.3 and 4.4), without its options and its checksum.
    pub fn neighbour(kind: u8, src: Addr6, dst: Addr6, target: Addr6) -> Self {
        let payload = [&[kind, 0, 0, 0, 0, 0, 0, 0], &target[..]].concat();
        Self { next_header: ICMPV6, hop_limit: 255, payload, ..Self::udp(src, dst) }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let len = self.payload_len.unwrap_or_else(|| self.payload.len().try_into().unwrap());
        let first = 6 << 28 | u32::from(self.class) << 20 | self.flow_label;
        let mut packet = first.to_be_bytes().to_vec();
        packet.extend(len.to_be_bytes());
        packet.extend([self.next_header, self.hop_limit]);
        packet.extend(self.src);
        packet.extend(self.dst);
        packet.extend(&self.payload);
        packet
    }
}
