//! Geneve (RFC 8926 section 3.4).

use bytemuck::{Pod, Zeroable};

use crate::Be16;

/// The IANA-assigned UDP port.
pub const PORT: u16 = 6081;

/// A Geneve header, without options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C, align(4))]
pub struct GeneveHeader {
    /// Version (2 bits, 0) and length of the options in words of four bytes (6 bits).
    pub version_options: u8,
    /// Control packet, critical options, and reserved flags.
    pub flags: u8,
    /// EtherType of what is carried.
    pub protocol: Be16,
    /// The network identifier, big-endian.
    pub vni: [u8; 3],
    /// Reserved; zero, and ignored.
    pub reserved: u8,
}

impl GeneveHeader {
    /// Bytes, without options.
    pub const LEN: usize = 8;
    /// The packet is for the tunnel's end itself.
    const CONTROL: u8 = 0x80;
    /// Some option must not be skipped.
    const CRITICAL: u8 = 0x40;

    /// Bytes with options, where they may be skipped; `None` for versions, control packets and critical options that
    /// an end which does not know them has to drop.
    #[inline(always)]
    pub const fn len_with_options(&self) -> Option<usize> {
        if self.version_options >> 6 != 0 || self.flags & (Self::CONTROL | Self::CRITICAL) != 0 {
            return None;
        }
        Some(Self::LEN + (self.version_options as usize & 0x3f) * 4)
    }
}

const _: () = assert!(size_of::<GeneveHeader>() == GeneveHeader::LEN);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_skipped_where_they_may_be() {
        let len = |version_options, flags| {
            GeneveHeader { version_options, flags, ..GeneveHeader::default() }.len_with_options()
        };
        assert_eq!([len(0, 0), len(1, 0), len(0x3f, 0x3f)], [Some(8), Some(12), Some(260)]);
        assert_eq!([len(0x40, 0), len(0, 0x80), len(1, 0x40)], [None; 3]);
    }
}
