//! What a rule wants to know of an IP header, the same for both versions (RFC 791, RFC 8200).

use std::net::IpAddr;

use super::{
    change::{updated, word},
    hosts,
};
use crate::packet::{IPV4, IPV6, TCP, UDP};

/// Next headers that stand between IPv6's header and the transport's, and that hops on the way may look at (RFC 7045):
/// hop-by-hop options, routing, fragment, destination options, mobility, host identity, shim. What IPsec adds is the
/// ends' affair.
const EXTENSIONS: [u8; 7] = [0, 43, 44, 60, 135, 139, 140];
const FRAGMENT: u8 = 44;
/// Hop-by-hop options, routing, destination options: what kernels step over on their way to a socket.
pub(super) const LOOKED_BEHIND: [u8; 3] = [0, 43, 60];
/// More extension headers than these are looked behind by nobody.
pub(super) const MOST_EXTENSIONS: usize = 7;

/// An IP header whose version and header length are possible, and all behind it.
#[derive(Clone, Copy)]
pub(super) struct Header<'a> {
    bytes: &'a [u8],
    v6: bool,
}

impl<'a> Header<'a> {
    /// By the EtherType in front of it, which must be that of its version.
    pub(super) fn behind(ethertype: usize, bytes: &'a [u8]) -> Option<Self> {
        let header = Self::of_version(bytes)?;
        (ethertype == usize::from(header.ethertype())).then_some(header)
    }

    /// By the version that it claims.
    pub(super) fn of_version(bytes: &'a [u8]) -> Option<Self> {
        let v6 = match bytes.first()? >> 4 {
            4 => false,
            6 => true,
            _ => return None,
        };
        let header = Self { bytes, v6 };
        (bytes.len() >= header.len() && header.claimed_len() >= header.len()).then_some(header)
    }

    pub(super) fn ethertype(&self) -> u16 {
        if self.v6 { IPV6 } else { IPV4 }
    }

    pub(super) fn is_v6(&self) -> bool {
        self.v6
    }

    /// Bytes without options and extension headers.
    pub(super) fn len(&self) -> usize {
        if self.v6 { 40 } else { 20 }
    }

    /// Bytes with options, as the header claims.
    pub(super) fn claimed_len(&self) -> usize {
        if self.v6 { 40 } else { usize::from(self.bytes[0] & 15) * 4 }
    }

    /// Bytes of the packet, as the header claims.
    pub(super) fn total(&self) -> usize {
        if self.v6 { 40 + word(self.bytes, 4) } else { word(self.bytes, 2) }
    }

    /// True where the packet ends within the bytes that are there. An aggregate of BIG TCP does not say how long it is.
    pub(super) fn is_whole(&self, is_aggregate: bool) -> bool {
        let unsaid = if self.v6 { 40 } else { 0 };
        let total = if is_aggregate && self.total() == unsaid { self.bytes.len() } else { self.total() };
        total >= self.claimed_len() && total <= self.bytes.len()
    }

    pub(super) fn src(&self) -> IpAddr {
        self.addr(if self.v6 { 8 } else { 12 })
    }

    pub(super) fn dst(&self) -> IpAddr {
        self.addr(if self.v6 { 24 } else { 16 })
    }

    fn addr(&self, at: usize) -> IpAddr {
        if self.v6 {
            hosts::v6(std::array::from_fn(|n| self.bytes[at + n]))
        } else {
            hosts::v4(std::array::from_fn(|n| self.bytes[at + n]))
        }
    }

    /// DSCP and ECN.
    pub(super) fn tos(&self) -> u8 {
        if self.v6 { (word(self.bytes, 0) >> 4) as u8 } else { self.bytes[1] }
    }

    pub(super) fn hops(&self) -> u8 {
        self.bytes[if self.v6 { 7 } else { 8 }]
    }

    /// What follows.
    pub(super) fn protocol(&self) -> u8 {
        self.bytes[if self.v6 { 6 } else { 9 }]
    }

    /// No options, no extension headers, no fragment.
    pub(super) fn is_plain(&self) -> bool {
        if self.v6 {
            !EXTENSIONS.contains(&self.protocol())
        } else {
            self.bytes[0] == 0x45 && word(self.bytes, 6) & 0x3fff == 0
        }
    }

    /// Where the UDP header stands, behind options or in a first fragment too; `None` where there is none that ends
    /// within the packet, or within what trails behind it.
    pub(super) fn udp(&self, trailing: bool) -> Option<usize> {
        let end = if trailing { self.bytes.len() } else { self.total().min(self.bytes.len()) };
        let first = |offset_and_flags: usize, mask: usize| offset_and_flags & mask == 0;
        let at = if !self.v6 {
            (self.protocol() == UDP && first(word(self.bytes, 6), 0x1fff)).then(|| self.claimed_len())
        } else if self.protocol() == FRAGMENT && end >= 48 {
            (self.bytes[40] == UDP && first(word(self.bytes, 42), 0xfff8)).then_some(48)
        } else {
            (self.protocol() == UDP).then_some(40)
        }?;
        (at + 8 <= end).then_some(at)
    }

    /// What kernels find behind what they step over on their way to who takes it, and where.
    pub(super) fn hidden(&self, trailing: bool) -> Result<Option<(u8, usize)>, TooManyHeaders> {
        let end = if trailing { self.bytes.len() } else { self.total().min(self.bytes.len()) };
        let bytes = &self.bytes[..end];
        if !self.v6 {
            let first = word(self.bytes, 6) & 0x1fff == 0;
            return Ok(first.then(|| (self.protocol(), self.claimed_len())));
        }
        let Some((mut next, mut at)) = behind_options(bytes, self.protocol(), 40)? else { return Ok(None) };
        if next == FRAGMENT {
            if at + 8 > end || word(bytes, at + 2) & 0xfff8 != 0 {
                return Ok(None);
            }
            let Some(behind) = behind_options(bytes, bytes[at], at + 8)? else { return Ok(None) };
            (next, at) = behind;
        }
        Ok(Some((next, at)))
    }

    /// The UDP port that stands at an offset; `None` where no UDP header ends within the packet, or within what trails
    /// behind it.
    pub(super) fn port_at(&self, at: usize, trailing: bool) -> Option<u16> {
        let end = if trailing { self.bytes.len() } else { self.total().min(self.bytes.len()) };
        (at + 8 <= end).then(|| word(self.bytes, at + 2) as u16)
    }

    /// The largest packet that an aggregate is cut into; `None` where that is not TCP or UDP behind a plain header.
    pub(super) fn segment(&self, size: u16) -> Option<usize> {
        let transport = match self.protocol() {
            _ if self.claimed_len() != self.len() => return None,
            TCP => usize::from(*self.bytes.get(self.len() + 12)? >> 4) * 4,
            UDP => 8,
            _ => return None,
        };
        Some(self.len() + transport + usize::from(size))
    }

    pub(super) fn to_vec(self) -> Vec<u8> {
        self.bytes.to_vec()
    }

    /// The packet with one hop less.
    pub(super) fn one_hop_less(&self) -> Vec<u8> {
        let mut packet = self.to_vec();
        if self.v6 {
            packet[7] -= 1;
        } else {
            change_word(&mut packet, 8, |packet| packet[8] -= 1);
        }
        packet
    }

    /// The packet with another congestion mark.
    pub(super) fn marked(&self, ecn: u8) -> Vec<u8> {
        let mut packet = self.to_vec();
        if self.v6 {
            packet[1] = packet[1] & !0x30 | ecn << 4;
        } else if ecn != self.tos() & 3 {
            change_word(&mut packet, 0, |packet| packet[1] = packet[1] & !3 | ecn);
        }
        packet
    }
}

/// More extension headers than anybody looks behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooManyHeaders;

/// What stands behind hop-by-hop options, routing headers and destination options; `None` where the bytes end before.
fn behind_options(bytes: &[u8], mut next: u8, mut at: usize) -> Result<Option<(u8, usize)>, TooManyHeaders> {
    for _ in 0..=MOST_EXTENSIONS {
        if !LOOKED_BEHIND.contains(&next) {
            return Ok(Some((next, at)));
        }
        let Some(&[following, words]) = bytes.get(at..).and_then(|rest| rest.first_chunk()) else {
            return Ok(None);
        };
        // RFC 8200 section 4.3: 8 bytes, and as many times 8 as the second one says.
        (next, at) = (following, at + (usize::from(words) + 1) * 8);
    }
    Err(TooManyHeaders)
}

/// Changes a word of an IPv4 header, and its checksum along with it.
fn change_word(packet: &mut [u8], at: usize, change: impl FnOnce(&mut [u8])) {
    let before = word(packet, at) as u16;
    change(packet);
    let sum = updated(word(packet, 10) as u16, before, word(packet, at) as u16);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

#[test]
fn both_versions_are_read_alike() {
    use super::{hosts::WAYS, ip::Ip};
    for way in WAYS {
        let ip = Ip::udp(way.container, way.container).tos(0xb9).hops(7).label(0xfffff);
        let bytes = ip.bytes();
        let header = Header::behind(ip.ethertype().into(), &bytes).unwrap();
        assert_eq!((header.src(), header.dst()), (way.container, way.container));
        assert_eq!((header.tos(), header.hops(), header.protocol()), (0xb9, 7, UDP));
        assert!(header.is_plain() && header.is_whole(false) && header.udp(false) == Some(header.len()));
        assert_eq!(header.total(), bytes.len());
        assert_eq!(header.one_hop_less(), ip.clone().hops(6).bytes());
        assert_eq!(header.marked(3), ip.tos(0xbb).bytes());
        assert!(Header::behind(0x0806, &bytes).is_none());
        assert!(Header::of_version(&bytes[..header.len() - 1]).is_none());
        assert!(!Header::of_version(&bytes[..bytes.len() - 1]).unwrap().is_whole(false));
    }
}
