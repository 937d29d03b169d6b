//! The kinds of tunnel.

use core::{fmt, str::FromStr};

/// How packets travel to a peer. The numbers are stored in the `TUNNELS` map and never change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Encap {
    /// VXLAN (RFC 7348) over UDP over IPv4.
    #[default]
    Vxlan = 1,
}

impl Encap {
    /// Every kind.
    pub const ALL: [Self; 1] = [Self::Vxlan];

    /// The name in the CLI, in configuration, in peers files and in etcd's `BackendType`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vxlan => "vxlan",
        }
    }

    /// The kind stored under a number in a map.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|encap| *encap as u32 == number)
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
        f.write_str("not an encapsulation: vxlan is expected")
    }
}

impl core::error::Error for InvalidEncap {}

impl FromStr for Encap {
    type Err = InvalidEncap;

    fn from_str(text: &str) -> Result<Self, InvalidEncap> {
        Self::ALL.into_iter().find(|encap| encap.name() == text).ok_or(InvalidEncap)
    }
}
