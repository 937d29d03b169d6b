//! The kinds of tunnel.

use core::{fmt, str::FromStr};

use crate::wire::{geneve, vxlan};

/// How packets travel to a peer. The numbers are stored in maps and never change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Encap {
    /// VXLAN (RFC 7348) over UDP.
    #[default]
    Vxlan = 1,
    /// None: the packet itself, to a host on the same link. Elsewhere a tunnel, VXLAN.
    Direct = 2,
    /// Geneve (RFC 8926) over UDP.
    Geneve = 3,
    /// GRE (RFC 2784, RFC 2890) with Ethernet frames in it, as Open vSwitch and `gretap` speak it.
    Gre = 4,
    /// GRE with IP packets in it.
    GreL3 = 5,
    /// IP packets in IP packets (RFC 2003, RFC 2473, RFC 4213).
    Ipip = 6,
}

impl Encap {
    /// Every kind.
    pub const ALL: [Self; 6] = [Self::Vxlan, Self::Direct, Self::Geneve, Self::Gre, Self::GreL3, Self::Ipip];

    /// The name in the CLI, in configuration and in peers files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vxlan => "vxlan",
            Self::Direct => "direct",
            Self::Geneve => "geneve",
            Self::Gre => "gre",
            Self::GreL3 => "gre-l3",
            Self::Ipip => "ipip",
        }
    }

    /// The name in etcd, `BackendType`: flannel's, where it has the kind.
    pub const fn backend_type(self) -> &'static str {
        match self {
            Self::Direct => "host-gw",
            other => other.name(),
        }
    }

    /// The kind with this name in etcd.
    pub fn from_backend_type(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|encap| encap.backend_type() == name)
    }

    /// The kind stored under a number in a map.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|encap| *encap as u32 == number)
    }

    /// The UDP port that IANA has assigned to it; `None` for what is not carried by UDP.
    pub const fn assigned_port(self) -> Option<u16> {
        match self {
            Self::Vxlan => Some(vxlan::PORT),
            Self::Geneve => Some(geneve::PORT),
            Self::Direct | Self::Gre | Self::GreL3 | Self::Ipip => None,
        }
    }

    /// True where Ethernet frames are carried, so that the far end may be a bridge.
    pub const fn carries_frames(self) -> bool {
        matches!(self, Self::Vxlan | Self::Geneve | Self::Gre)
    }
}

impl fmt::Display for Encap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The name is no tunnel kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidEncap;

impl fmt::Display for InvalidEncap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an encapsulation: vxlan, geneve, gre, gre-l3, ipip or direct is expected")
    }
}

impl core::error::Error for InvalidEncap {}

impl FromStr for Encap {
    type Err = InvalidEncap;

    fn from_str(text: &str) -> Result<Self, InvalidEncap> {
        Self::ALL.into_iter().find(|encap| encap.name() == text).ok_or(InvalidEncap)
    }
}

/// A set of kinds, as maps hold it: the bit of each kind's number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds(u32);

impl Kinds {
    /// From the word that a map holds.
    #[inline(always)]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The word that a map holds.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// This set and one kind more.
    #[must_use]
    pub const fn with(self, encap: Encap) -> Self {
        Self(self.0 | 1 << encap as u32)
    }

    /// What is in either.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether a kind is in it.
    #[inline(always)]
    pub const fn contains(self, encap: Encap) -> bool {
        self.0 & 1 << encap as u32 != 0
    }
}

impl FromIterator<Encap> for Kinds {
    fn from_iter<I: IntoIterator<Item = Encap>>(kinds: I) -> Self {
        kinds.into_iter().fold(Self::default(), Self::with)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_frozen() {
        let frozen = [
            (1, "vxlan", "vxlan"),
            (2, "direct", "host-gw"),
            (3, "geneve", "geneve"),
            (4, "gre", "gre"),
            (5, "gre-l3", "gre-l3"),
            (6, "ipip", "ipip"),
        ];
        let table = Encap::ALL.map(|encap| (encap as u32, encap.name(), encap.backend_type()));
        assert_eq!(table, frozen);
        for encap in Encap::ALL {
            assert_eq!(encap.name().parse(), Ok(encap));
            assert_eq!(Encap::from_backend_type(encap.backend_type()), Some(encap));
            assert_eq!(Encap::from_number(encap as u32), Some(encap));
            assert!(InvalidEncap.to_string().contains(encap.name()));
        }
        assert_eq!("host-gw".parse::<Encap>(), Err(InvalidEncap));
        assert_eq!(Encap::from_number(7), None);
    }

    #[test]
    fn sets() {
        let some: Kinds = [Encap::Gre, Encap::Ipip].into_iter().collect();
        let held = Encap::ALL.map(|encap| some.contains(encap));
        assert_eq!(held, [false, false, false, true, false, true]);
        assert_eq!(Kinds::from_bits(some.bits()), some);
        assert_eq!(some.or(Kinds::default().with(Encap::Direct)).bits(), 0b101_0100);
    }
}
