//! Where the headers of a packet stand: an outer IPv6 header moves all that is behind it by 20 bytes.

use crate::packet::IPV6;

/// Offsets as in a tunnel packet, whether it is one or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Whether the first IP header is one of IPv6.
    pub(super) outer_v6: bool,
    /// Whether the second one is.
    pub(super) inner_v6: bool,
    pub(super) udp: usize,
    pub(super) vxlan: usize,
    pub(super) inner_eth: usize,
    pub(super) inner_ip: usize,
}

/// Of the first IP header.
pub(super) const OUTER_IP: usize = 14;

impl Layout {
    pub(super) fn of(packet: &[u8]) -> Self {
        let is_v6 = |at: usize| packet.get(at..at + 2) == Some(&IPV6.to_be_bytes());
        let outer_v6 = is_v6(12);
        let udp = OUTER_IP + if outer_v6 { 40 } else { 20 };
        let (vxlan, inner_eth, inner_ip) = (udp + 8, udp + 16, udp + 30);
        Self { outer_v6, inner_v6: is_v6(inner_eth + 12), udp, vxlan, inner_eth, inner_ip }
    }

    /// Both IP headers, by offset and version.
    pub(super) fn headers(&self) -> [(usize, bool); 2] {
        [(OUTER_IP, self.outer_v6), (self.inner_ip, self.inner_v6)]
    }

    /// Behind the inner IP header.
    pub(super) fn inner_end(&self) -> usize {
        self.inner_ip + if self.inner_v6 { 40 } else { 20 }
    }
}
