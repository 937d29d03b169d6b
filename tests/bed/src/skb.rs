//! The context of a test run: `struct __sk_buff` (`include/uapi/linux/bpf.h`), of which the kernel takes
//! only some fields and wants all others zero (`convert___skb_to_skb` in `net/bpf/test_run.c`).

/// Bytes of `struct __sk_buff`.
const SIZE: usize = 192;

/// Offsets of the fields used here.
mod field {
    pub(super) const MARK: usize = 8;
    pub(super) const IFINDEX: usize = 40;
    pub(super) const GSO_SEGS: usize = 164;
    pub(super) const GSO_SIZE: usize = 176;
}

/// The fields of a context that tests set or read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// The device the packet comes in on or goes out of, in the calling thread's namespace.
    pub ifindex: u32,
    pub mark: u32,
    /// Payload bytes of a segment; 0 for a single packet.
    pub gso_size: u32,
    pub gso_segs: u32,
}

impl Context {
    pub fn to_bytes(self) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        for (offset, value) in [
            (field::MARK, self.mark),
            (field::IFINDEX, self.ifindex),
            (field::GSO_SEGS, self.gso_segs),
            (field::GSO_SIZE, self.gso_size),
        ] {
            bytes[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
        }
        bytes
    }

    pub fn mark_in(bytes: &[u8; SIZE]) -> u32 {
        let mut field = [0; 4];
        field.copy_from_slice(&bytes[field::MARK..field::MARK + 4]);
        u32::from_ne_bytes(field)
    }
}
