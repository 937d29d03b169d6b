//! VXLAN (RFC 7348 section 5).

use bytemuck::{Pod, Zeroable};

/// The IANA-assigned UDP port, and our default.
pub const PORT: u16 = 4789;
/// The port Linux used before the assignment, and flannel's default.
pub const LINUX_PORT: u16 = 8472;
/// The I flag: the VNI is valid.
pub const FLAG_VNI: u8 = 0x08;

/// A VXLAN header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C, align(4))]
pub struct VxlanHeader {
    /// [`FLAG_VNI`] and reserved flags.
    pub flags: u8,
    /// Reserved; zero.
    pub reserved: [u8; 3],
    /// The network identifier, big-endian.
    pub vni: [u8; 3],
    /// Reserved; zero.
    pub reserved2: u8,
}

impl VxlanHeader {
    /// Bytes.
    pub const LEN: usize = 8;

    /// True where the VNI is valid and no extension is in use. The kernel's vxlan device drops any other
    /// header, and so do we: a flag we do not know may change what the payload is.
    #[inline(always)]
    pub const fn is_plain(&self) -> bool {
        let [a, b, c] = self.reserved;
        self.flags == FLAG_VNI && a | b | c | self.reserved2 == 0
    }
}

const _: () = assert!(size_of::<VxlanHeader>() == VxlanHeader::LEN);
