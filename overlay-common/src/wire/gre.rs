//! GRE (RFC 2784), with keys and sequence numbers (RFC 2890).

use bytemuck::{Pod, Zeroable};

use crate::Be16;

/// Protocol number of GRE.
pub const PROTOCOL_GRE: u8 = 47;

/// The K flag: a key follows.
pub const FLAG_KEY: u16 = 0x2000;
/// The C flag: a checksum follows.
const FLAG_CHECKSUM: u16 = 0x8000;
/// The S flag: a sequence number follows.
const FLAG_SEQUENCE: u16 = 0x1000;

/// A GRE header, without what its flags say follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct GreHeader {
    /// Flags, and the version (3 bits, 0).
    pub flags: Be16,
    /// EtherType of what is carried.
    pub protocol: Be16,
}

impl GreHeader {
    /// Bytes, without optional fields.
    pub const LEN: usize = 4;
    /// Bytes of the key, and of each other optional field.
    const FIELD_LEN: usize = 4;

    /// Bytes with optional fields; `None` for routing, which no receiver has to know (RFC 2784 section 2.3), and for
    /// version 1, PPTP's.
    #[inline(always)]
    pub fn full_len(&self) -> Option<usize> {
        let flags = self.flags.get();
        if flags & !(FLAG_CHECKSUM | FLAG_KEY | FLAG_SEQUENCE) != 0 {
            return None;
        }
        let field = |flag: u16| if flags & flag != 0 { Self::FIELD_LEN } else { 0 };
        Some(Self::LEN + field(FLAG_CHECKSUM) + field(FLAG_KEY) + field(FLAG_SEQUENCE))
    }

    /// Offset of the key, which follows a checksum; `None` where there is none.
    #[inline(always)]
    pub const fn key_offset(&self) -> Option<usize> {
        let flags = self.flags.get();
        if flags & FLAG_KEY == 0 {
            return None;
        }
        Some(if flags & FLAG_CHECKSUM != 0 { Self::LEN + Self::FIELD_LEN } else { Self::LEN })
    }
}

const _: () = assert!(size_of::<GreHeader>() == GreHeader::LEN);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_follow_the_flags() {
        let header = |flags| GreHeader { flags: Be16::new(flags), ..GreHeader::default() };
        for (flags, len, key) in [
            (0, Some(4), None),
            (0x2000, Some(8), Some(4)),
            (0x8000, Some(8), None),
            (0x1000, Some(8), None),
            (0xa000, Some(12), Some(8)),
            (0xb000, Some(16), Some(8)),
        ] {
            assert_eq!((header(flags).full_len(), header(flags).key_offset()), (len, key), "{flags:#x}");
        }
        for flags in [0x4000, 0x0001, 0x2001, 0x0800, 0x0080] {
            assert_eq!(header(flags).full_len(), None, "{flags:#x}");
        }
    }
}
