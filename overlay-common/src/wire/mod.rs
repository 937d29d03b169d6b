//! The headers on the wire: one file each, `repr(C)` with alignment 1, multi-byte fields big-endian.

pub mod eth;
pub mod ipv4;
pub mod udp;
pub mod vxlan;

pub use eth::EthHeader;
pub use ipv4::Ipv4Header;
pub use udp::UdpHeader;
pub use vxlan::VxlanHeader;
