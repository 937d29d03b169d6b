//! The packet behind an XDP context: as `packet.rs`, the only pointer arithmetic of its hook.

use core::mem::MaybeUninit;

use aya_ebpf::{helpers, programs::XdpContext};
use bytemuck::Pod;
use overlay_common::packet::Packet;

use crate::packet::{Captured, done, read_between, within};

/// A packet of the XDP hook. It may have fragments (`xdp.frags`); headers are in the linear part.
pub(crate) struct XdpPacket<'a> {
    ctx: &'a XdpContext,
}

impl<'a> XdpPacket<'a> {
    pub(crate) fn new(ctx: &'a XdpContext) -> Self {
        Self { ctx }
    }

    #[inline(always)]
    pub(crate) fn uplink(&self) -> u32 {
        self.ctx.ingress_ifindex() as u32
    }

    /// True where something stands in front of the packet already: that of a program which redirected it here.
    #[inline(always)]
    pub(crate) fn has_metadata(&self) -> bool {
        self.ctx.metadata() + 1 <= self.ctx.data()
    }

    /// Makes room for metadata.
    ///
    /// # Errors
    /// -ENOTSUPP of drivers that keep none. The packet is as it was.
    #[inline(always)]
    pub(crate) fn make_metadata(&self, len: usize) -> Result<(), i64> {
        // SAFETY: the context is valid, and the helper checks the length.
        done(unsafe { helpers::bpf_xdp_adjust_meta(self.ctx.ctx, -(len as i32)) })
    }

    /// Writes the metadata, for which there is room.
    #[inline(always)]
    pub(crate) fn write_metadata<T: Pod>(&self, value: &T) -> Result<(), i64> {
        let start = self.ctx.metadata();
        if start + size_of::<T>() > self.ctx.data() {
            return Err(-1);
        }
        // SAFETY: the bytes lie between data_meta and data.
        unsafe { core::ptr::write_unaligned(start as *mut T, *value) };
        Ok(())
    }

    /// Cuts the first bytes off; metadata move along.
    #[inline(always)]
    pub(crate) fn cut_front(&self, len: usize) -> Result<(), i64> {
        // SAFETY: the context is valid, and the helper checks the length.
        done(unsafe { helpers::bpf_xdp_adjust_head(self.ctx.ctx, len as i32) })
    }

    /// Writes a value into the packet's linear part.
    #[inline(always)]
    pub(crate) fn write<T: Pod>(&self, offset: usize, value: &T) -> Result<(), i64> {
        let start = self.ctx.data() + offset;
        if start + size_of::<T>() > self.ctx.data_end() {
            return Err(-1);
        }
        // SAFETY: the bytes lie between data and data_end.
        unsafe { core::ptr::write_unaligned(start as *mut T, *value) };
        Ok(())
    }
}

impl Packet for XdpPacket<'_> {
    #[inline(always)]
    fn len(&self) -> usize {
        // SAFETY: the context is valid.
        unsafe { helpers::bpf_xdp_get_buff_len(self.ctx.ctx) as usize }
    }

    #[inline(always)]
    fn read<T: Pod>(&self, offset: usize) -> Option<T> {
        // SAFETY: the context tells where the packet's linear part is.
        unsafe { read_between(self.ctx.data(), self.ctx.data_end(), offset) }
    }

    #[inline(always)]
    fn read_at<T: Pod>(&self, offset: usize) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: the helper writes all of `value` or fails.
        let result = unsafe {
            helpers::bpf_xdp_load_bytes(
                self.ctx.ctx,
                offset as u32,
                value.as_mut_ptr().cast(),
                size_of::<T>() as u32,
            )
        };
        // SAFETY: as above, and any bytes are a `T`.
        (result == 0).then(|| unsafe { value.assume_init() })
    }
}

impl Captured for XdpPacket<'_> {
    #[inline(always)]
    fn ifindex(&self) -> u32 {
        self.uplink()
    }

    #[inline(always)]
    fn capture<const N: usize>(&self, bytes: &mut [u8; N], len: usize) -> Result<(), i64> {
        let len = within(len as i64, N as i64);
        if len == 0 {
            return Err(-1);
        }
        // SAFETY: `len` bytes of `bytes` are writable, as the check above and the verifier both see.
        let result =
            unsafe { helpers::bpf_xdp_load_bytes(self.ctx.ctx, 0, bytes.as_mut_ptr().cast(), len as u32) };
        done(result)
    }
}
