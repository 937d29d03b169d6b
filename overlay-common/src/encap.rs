//! The kinds of tunnel.

use core::{fmt, str::FromStr};

/// How packets travel to a peer. The numbers are stored in the `TUNNELS` map and never change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Encap {
    /// VXLAN (RFC 7348) over UDP over either version of IP.
    #[default]
    Vxlan = 1,
    /// None: the packet itself, to a host on the same link. Elsewhere a tunnel, VXLAN.
    Direct = 2,
}

impl Encap {
    /// Every kind.
    pub const ALL: [Self; 2] = [Self::Vxlan, Self::Direct];

    /// The name in the CLI, in configuration and in peers files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vxlan => "vxlan",
            Self::Direct => "direct",
        }
    }

    /// The name in etcd, `BackendType`: flannel's, where it has the kind.
    pub const fn backend_type(self) -> &'static str {
        match self {
            Self::Vxlan => "vxlan",
            Self::Direct => "host-gw",
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
        f.write_str("not an encapsulation: vxlan or direct is expected")
    }
}

impl core::error::Error for InvalidEncap {}

impl FromStr for Encap {
    type Err = InvalidEncap;

    fn from_str(text: &str) -> Result<Self, InvalidEncap> {
        Self::ALL.into_iter().find(|encap| encap.name() == text).ok_or(InvalidEncap)
    }
}
