//! The VXLAN network identifier.

use core::fmt;

use bytemuck::{Pod, Zeroable};

/// A VXLAN network identifier, 1 to 16,777,215 (24 bits, RFC 7348 section 5). Zero is kept to mean "none".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vni(u32);

/// The number is no VNI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidVni(pub u32);

impl fmt::Display for InvalidVni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not a VNI: 1 to {} is expected", self.0, Vni::MAX)
    }
}

impl core::error::Error for InvalidVni {}

impl Vni {
    /// The largest VNI: 24 bits.
    pub const MAX: u32 = 0x00ff_ffff;
    /// VNI 1: flannel's default, and ours.
    pub const DEFAULT: Self = Self(1);

    /// Checks the range.
    ///
    /// # Errors
    /// [`InvalidVni`] for zero and for numbers over 24 bits.
    pub const fn new(value: u32) -> Result<Self, InvalidVni> {
        if value == 0 || value > Self::MAX { Err(InvalidVni(value)) } else { Ok(Self(value)) }
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The form in which map keys hold it.
    pub const fn key(self) -> VniKey {
        VniKey { bytes: self.0.to_be_bytes() }
    }

    /// The three bytes of the VXLAN header.
    pub const fn to_wire(self) -> [u8; 3] {
        let [_, a, b, c] = self.0.to_be_bytes();
        [a, b, c]
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<u32> for Vni {
    type Error = InvalidVni;

    fn try_from(value: u32) -> Result<Self, InvalidVni> {
        Self::new(value)
    }
}

/// A VNI inside a map key: big-endian, so that it can lead an LPM key. Any 24 bits that came off the wire
/// fit; a value that is no VNI matches no entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(transparent)]
pub struct VniKey {
    /// The number, big-endian. Named, so that `bpftool map dump` has a name for it.
    pub bytes: [u8; 4],
}

impl VniKey {
    /// "No VNI": never a network's, used where an entry is about a host as a whole.
    pub const NONE: Self = Self { bytes: [0; 4] };

    /// From the three bytes of a VXLAN header.
    #[inline(always)]
    pub const fn from_wire([a, b, c]: [u8; 3]) -> Self {
        Self { bytes: [0, a, b, c] }
    }

    /// The number, 0 for [`VniKey::NONE`].
    pub const fn get(self) -> u32 {
        u32::from_be_bytes(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range() {
        assert_eq!(Vni::new(0), Err(InvalidVni(0)));
        assert_eq!(Vni::new(1 << 24), Err(InvalidVni(1 << 24)));
        assert_eq!(Vni::new(Vni::MAX).map(Vni::get), Ok(Vni::MAX));
    }

    #[test]
    fn wire_and_key_agree() {
        let vni = Vni::new(0x00ab_cdef).unwrap();
        assert_eq!(vni.to_wire(), [0xab, 0xcd, 0xef]);
        assert_eq!(VniKey::from_wire(vni.to_wire()), vni.key());
        assert_eq!(vni.key().get(), vni.get());
    }
}
