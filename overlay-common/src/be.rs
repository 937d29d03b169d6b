//! Integers in network byte order. They have alignment 1, so headers made of them can be read anywhere,
//! and no arithmetic, so that a value is converted exactly once.

use bytemuck::{Pod, Zeroable};

/// A 16-bit integer as it stands on the wire: big-endian (RFC 1700, "network byte order").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(transparent)]
pub struct Be16([u8; 2]);

impl Be16 {
    /// Encodes a value in host byte order.
    #[inline(always)]
    pub const fn new(value: u16) -> Self {
        Self(value.to_be_bytes())
    }

    /// The value in host byte order.
    #[inline(always)]
    pub const fn get(self) -> u16 {
        u16::from_be_bytes(self.0)
    }
}

/// A 32-bit integer as it stands on the wire: big-endian.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(transparent)]
pub struct Be32([u8; 4]);

impl Be32 {
    /// Encodes a value in host byte order.
    #[inline(always)]
    pub const fn new(value: u32) -> Self {
        Self(value.to_be_bytes())
    }

    /// The value in host byte order.
    #[inline(always)]
    pub const fn get(self) -> u32 {
        u32::from_be_bytes(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_big_endian() {
        assert_eq!(bytemuck::bytes_of(&Be16::new(0x1234)), [0x12, 0x34]);
        assert_eq!(bytemuck::bytes_of(&Be32::new(0x1234_5678)), [0x12, 0x34, 0x56, 0x78]);
        assert_eq!(Be32::new(0xdead_beef).get(), 0xdead_beef);
        assert_eq!(Be16::new(0xbeef).get(), 0xbeef);
    }
}
