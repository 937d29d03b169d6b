//! UDP (RFC 768).

use bytemuck::{Pod, Zeroable};

use crate::Be16;

/// A UDP header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C, align(4))]
pub struct UdpHeader {
    /// Source port.
    pub src_port: Be16,
    /// Destination port.
    pub dst_port: Be16,
    /// Bytes of header and payload.
    pub len: Be16,
    /// Checksum; zero means none, which RFC 7348 section 5 asks of VXLAN over IPv4.
    pub checksum: Be16,
}

impl UdpHeader {
    /// Bytes.
    pub const LEN: usize = 8;
    /// Offset of the checksum.
    pub const CHECKSUM: usize = 6;
}

const _: () = assert!(size_of::<UdpHeader>() == UdpHeader::LEN);
