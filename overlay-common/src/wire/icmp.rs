//! ICMP (RFC 792, RFC 4443).

use bytemuck::{Pod, Zeroable};

use crate::{Be16, Be32};

/// Type 3, "destination unreachable".
pub const UNREACHABLE: u8 = 3;
/// Code 4 of type 3, "fragmentation needed and DF set".
pub const FRAGMENTATION_NEEDED: u8 = 4;

/// The header of a "fragmentation needed" message (RFC 1191 section 4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct FragNeededHeader {
    /// [`UNREACHABLE`].
    pub icmp_type: u8,
    /// [`FRAGMENTATION_NEEDED`].
    pub code: u8,
    /// Checksum of the message.
    pub checksum: Be16,
    /// Unused.
    pub unused: Be16,
    /// The next hop's MTU, bytes; zero from routers older than RFC 1191.
    pub mtu: Be16,
}

impl FragNeededHeader {
    /// Bytes. What could not be sent follows: its IP header, and at least 8 bytes more.
    pub const LEN: usize = 8;
}

/// Type 2 of ICMPv6, "packet too big".
pub const PACKET_TOO_BIG: u8 = 2;
/// The header of a "packet too big" message (RFC 4443 section 3.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct TooBigHeader {
    /// [`PACKET_TOO_BIG`].
    pub icmp_type: u8,
    /// Zero.
    pub code: u8,
    /// Checksum of the message.
    pub checksum: Be16,
    /// The next hop's MTU, bytes.
    pub mtu: Be32,
}

impl TooBigHeader {
    /// Bytes. As much as fits of what could not be sent follows.
    pub const LEN: usize = 8;
}

const _: () = assert!(size_of::<FragNeededHeader>() == FragNeededHeader::LEN);
const _: () = assert!(size_of::<TooBigHeader>() == TooBigHeader::LEN);
