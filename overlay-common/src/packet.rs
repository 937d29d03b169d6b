//! Reading packets without pointer arithmetic.

use bytemuck::Pod;

/// Bytes that may end anywhere. The programs implement it for their packet pointers, the host for slices;
/// all parsing goes through it.
#[expect(clippy::len_without_is_empty, reason = "no caller asks: a packet that short fails its first read")]
pub trait Packet {
    /// Bytes in the whole packet, those `read` cannot reach included.
    fn len(&self) -> usize;

    /// Copies a header out, or `None` where the packet ends before it does. The offset is a constant, which the
    /// verifier can follow; only the first bytes of a packet may be within reach.
    fn read<T: Pod>(&self, offset: usize) -> Option<T>;

    /// As [`Packet::read`], from an offset that the packet itself gave. Slower, and reaches every byte.
    fn read_at<T: Pod>(&self, offset: usize) -> Option<T>;
}

impl Packet for [u8] {
    fn len(&self) -> usize {
        <[u8]>::len(self)
    }

    fn read<T: Pod>(&self, offset: usize) -> Option<T> {
        let end = offset.checked_add(size_of::<T>())?;
        self.get(offset..end).map(bytemuck::pod_read_unaligned)
    }

    fn read_at<T: Pod>(&self, offset: usize) -> Option<T> {
        self.read(offset)
    }
}
