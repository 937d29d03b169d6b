//! TCP (RFC 9293 section 3.1).

use bytemuck::{Pod, Zeroable};

use crate::{Be16, Be32};

/// The SYN flag, in [`TcpHeader::flags`].
pub const FLAG_SYN: u8 = 0x02;

/// A TCP header without options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C, align(4))]
pub struct TcpHeader {
    /// Source port.
    pub src_port: Be16,
    /// Destination port.
    pub dst_port: Be16,
    /// Sequence number.
    pub sequence: Be32,
    /// Acknowledgement number.
    pub acknowledgement: Be32,
    /// Header length in 32-bit words in the high nibble.
    pub data_offset: u8,
    /// [`FLAG_SYN`] and the others.
    pub flags: u8,
    /// Receive window.
    pub window: Be16,
    /// Checksum.
    pub checksum: Be16,
    /// Urgent pointer.
    pub urgent: Be16,
}

impl TcpHeader {
    /// Bytes, without options.
    pub const LEN: usize = 20;
    /// The most bytes that options can have.
    pub const MAX_OPTIONS: usize = 40;

    /// Header length in bytes, options included, as the header claims.
    #[inline(always)]
    pub const fn header_len(&self) -> usize {
        ((self.data_offset >> 4) as usize) * 4
    }
}

const _: () = assert!(size_of::<TcpHeader>() == TcpHeader::LEN);
