//! Ethernet addresses, and the one form in which map keys hold IP addresses.

use core::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use bytemuck::{Pod, Zeroable};

/// An Ethernet (MAC) address, in the order of its bytes on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C, align(2))]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// ff:ff:ff:ff:ff:ff.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// The link-layer address of the permanent neighbours that stand for peer subnets on a bridge: the
    /// kernel routes what it sends to a peer subnet to this address, and `bridge_egress` claims frames
    /// that carry it. Locally administered; no device ever owns it.
    pub const OVERLAY_NEIGHBOUR: Self = Self([0x02, 0x6f, 0x76, 0x6c, 0x00, 0xfe]);

    /// True for group addresses: multicast and broadcast (IEEE 802, the low bit of the first byte).
    #[inline(always)]
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Derives a stable, locally administered unicast address from a node's identity.
    ///
    /// The same seed gives the same address on every host and after every restart (FNV-1a, 64 bits), so a
    /// VTEP needs no stored address to come back as itself.
    pub fn derive(seed: &[u8]) -> Self {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in seed {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        let [a, b, c, d, e, f, ..] = hash.to_be_bytes();
        Self([(a & 0xfe) | 0x02, b, c, d, e, f])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The text was not six hexadecimal bytes joined by colons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidMac;

impl fmt::Display for InvalidMac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "not a MAC address: six hexadecimal bytes joined by colons are expected, as in 02:42:ac:11:00:02",
        )
    }
}

impl core::error::Error for InvalidMac {}

impl FromStr for Mac {
    type Err = InvalidMac;

    fn from_str(text: &str) -> Result<Self, InvalidMac> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or(InvalidMac)?;
            if !part.bytes().all(|c| c.is_ascii_hexdigit()) {
                return Err(InvalidMac);
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| InvalidMac)?;
        }
        if parts.next().is_some() { Err(InvalidMac) } else { Ok(Self(bytes)) }
    }
}

/// An IP address as map keys hold it: 16 bytes, IPv4 in its v4-mapped form `::ffff:a.b.c.d` (RFC 4291
/// section 2.5.5.2), so that both versions share one key type. Aligned, and handled in words: the programs would copy
/// bytes one by one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C, align(4))]
pub struct MapIp {
    /// The address, network order. Named, so that `bpftool map dump` has a name for it.
    bytes: [u8; 16],
}

impl MapIp {
    /// The third word of a v4-mapped address.
    const V4_MARK: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

    /// Sixteen bytes in network order.
    #[inline(always)]
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self { bytes }
    }

    /// The v4-mapped form of four bytes in network order.
    #[inline(always)]
    pub const fn v4(addr: [u8; 4]) -> Self {
        Self { bytes: bytemuck::must_cast([0, 0, Self::V4_MARK, u32::from_ne_bytes(addr)]) }
    }

    /// The bytes, network order.
    #[inline(always)]
    pub const fn bytes(self) -> [u8; 16] {
        self.bytes
    }

    /// The bytes as they stand in memory, four to a word.
    #[inline(always)]
    pub const fn words(&self) -> [u32; 4] {
        bytemuck::must_cast(self.bytes)
    }

    /// True for the v4-mapped form.
    #[inline(always)]
    pub const fn is_v4(self) -> bool {
        Self::is_v4_words(self.words())
    }

    /// True for the [`Self::words`] of a v4-mapped address.
    #[inline(always)]
    pub const fn is_v4_words([a, b, mark, _]: [u32; 4]) -> bool {
        a | b == 0 && mark == Self::V4_MARK
    }

    /// The IPv4 address, unless this is a real IPv6 address.
    pub const fn to_v4(self) -> Option<Ipv4Addr> {
        match self.bytes {
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d] => Some(Ipv4Addr::new(a, b, c, d)),
            _ => None,
        }
    }
}

impl From<Ipv4Addr> for MapIp {
    fn from(addr: Ipv4Addr) -> Self {
        Self::v4(addr.octets())
    }
}

impl From<Ipv6Addr> for MapIp {
    fn from(addr: Ipv6Addr) -> Self {
        Self::new(addr.octets())
    }
}

impl From<IpAddr> for MapIp {
    fn from(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(addr) => addr.into(),
            IpAddr::V6(addr) => addr.into(),
        }
    }
}

impl From<MapIp> for IpAddr {
    fn from(ip: MapIp) -> Self {
        ip.to_v4().map_or_else(|| Self::V6(ip.bytes().into()), Self::V4)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn mac_text_round_trips(bytes: [u8; 6]) {
            let mac = Mac(bytes);
            prop_assert_eq!(mac.to_string().parse(), Ok(mac));
        }

        #[test]
        fn mac_parse_never_panics(text in ".{0,24}") {
            let _ = text.parse::<Mac>();
        }

        #[test]
        fn derived_mac_is_local_unicast(seed: Vec<u8>) {
            let mac = Mac::derive(&seed);
            prop_assert!(!mac.is_multicast());
            prop_assert_eq!(mac.0[0] & 2, 2);
        }

        #[test]
        fn map_ip_round_trips(bytes: [u8; 4]) {
            prop_assert_eq!(MapIp::v4(bytes).to_v4(), Some(Ipv4Addr::from(bytes)));
        }
    }

    #[test]
    fn malformed_macs_are_refused() {
        for text in [
            "",
            "02:42",
            "02:42:ac:11:00:02:03",
            "+2:42:ac:11:00:02",
            "0242:ac:11:00:02",
            "zz:42:ac:11:00:02",
        ] {
            assert_eq!(text.parse::<Mac>(), Err(InvalidMac), "{text:?}");
        }
    }
}
