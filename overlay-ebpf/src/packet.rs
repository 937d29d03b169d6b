//! The packet behind a context: the only pointer arithmetic, and the few helpers that change a packet.

mod tunnel_key;

use core::mem::MaybeUninit;

use aya_ebpf::{
    EbpfContext,
    bindings::{BPF_CSUM_LEVEL_DEC, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC},
    helpers,
    programs::TcContext,
};
use bytemuck::Pod;
use overlay_common::{Be16, packet::Packet, parse::L3};

/// A frame's VLAN tag (IEEE 802.1Q).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tag {
    None,
    /// VLAN id 0: of no VLAN.
    Priority,
    Vlan,
}

/// A packet of which a sample can be taken, whatever the hook.
pub(crate) trait Captured: Packet {
    /// The interface it came in on, or goes out of.
    fn ifindex(&self) -> u32;

    /// Copies the first `len` bytes, 1 to `N`, to the start of `bytes`.
    fn capture<const N: usize>(&self, bytes: &mut [u8; N], len: usize) -> Result<(), i64>;
}

/// A packet of the traffic-control hook.
pub(crate) struct Skb<'a> {
    ctx: &'a TcContext,
}

impl<'a> Skb<'a> {
    pub(crate) fn new(ctx: &'a TcContext) -> Self {
        Self { ctx }
    }

    /// Makes the first `len` bytes readable, as far as the packet has them. Drivers and GRO may leave
    /// headers in page fragments, where direct access does not reach.
    #[inline(always)]
    pub(crate) fn pull(&self, len: usize) {
        let want = if self.len() < len { self.len() } else { len };
        if self.ctx.data() + want > self.ctx.data_end() {
            // A failure leaves the bytes out of reach, and every read of them says so.
            let _ = self.ctx.pull_data(want as u32);
        }
    }

    /// As [`Self::pull`], of as many bytes as the packet itself says.
    #[inline(always)]
    pub(crate) fn pull_all(&self, len: usize) {
        let want = if self.len() < len { self.len() } else { len };
        // As above.
        let _ = self.ctx.pull_data(want as u32);
    }

    #[inline(always)]
    pub(crate) fn ifindex(&self) -> u32 {
        // SAFETY: the kernel hands the program a valid context.
        unsafe { (*self.ctx.skb.skb).ifindex }
    }

    /// The EtherType of what is in the packet, whatever its link-layer header.
    #[inline(always)]
    pub(crate) fn protocol(&self) -> Be16 {
        // SAFETY: as in `ifindex`. The field is in network order, in a word.
        Be16::new(u16::from_be(unsafe { (*self.ctx.skb.skb).protocol } as u16))
    }

    /// True where the frame's destination is this interface's own address (`PACKET_HOST`).
    #[inline(always)]
    pub(crate) fn is_for_us(&self) -> bool {
        // SAFETY: as in `ifindex`.
        unsafe { (*self.ctx.skb.skb).pkt_type == 0 }
    }

    /// Has the frame count as addressed to this interface, whatever its MAC address said.
    #[inline(always)]
    pub(crate) fn take_as_ours(&self) {
        const PACKET_HOST: u32 = 0;
        // It is of a type that may be changed already, or it stays what it is.
        let _ = self.ctx.change_type(PACKET_HOST);
    }

    /// Takes a priority tag (VLAN id 0) off, which says nothing about where a frame belongs (IEEE 802.1Q section
    /// 6.9.1), and tells which tag there is then. The kernel keeps tags beside the packet, where no header shows
    /// them.
    #[inline(always)]
    pub(crate) fn untag(&self) -> Tag {
        let tag = self.tag();
        // SAFETY: the context is valid.
        if tag == Tag::Priority && unsafe { helpers::bpf_skb_vlan_pop(self.ctx.skb.skb) } == 0 {
            return self.tag();
        }
        tag
    }

    /// The tag that the kernel keeps beside the packet.
    #[inline(always)]
    pub(crate) fn tag(&self) -> Tag {
        const VLAN_ID: u32 = 0xfff;
        // SAFETY: as in `ifindex`.
        let (present, tci) = unsafe { ((*self.ctx.skb.skb).vlan_present, (*self.ctx.skb.skb).vlan_tci) };
        match (present, tci & VLAN_ID) {
            (0, _) => Tag::None,
            (_, 0) => Tag::Priority,
            _ => Tag::Vlan,
        }
    }

    #[inline(always)]
    pub(crate) fn mark(&self) -> u32 {
        // SAFETY: as in `ifindex`.
        unsafe { (*self.ctx.skb.skb).mark }
    }

    #[inline(always)]
    pub(crate) fn set_mark(&self, mark: u32) {
        // SAFETY: as in `ifindex`; programs may write the mark.
        unsafe { (*self.ctx.skb.skb).mark = mark }
    }

    /// Payload bytes of each segment of an aggregate; 0 for a single packet.
    #[inline(always)]
    pub(crate) fn gso_size(&self) -> u32 {
        // SAFETY: as in `ifindex`.
        unsafe { (*self.ctx.skb.skb).gso_size }
    }

    /// Packets that this is on the wire: the segments of an aggregate, or one.
    #[inline(always)]
    pub(crate) fn wire_packets(&self) -> u64 {
        // SAFETY: as in `ifindex`.
        let segments = unsafe { (*self.ctx.skb.skb).gso_segs };
        if segments == 0 { 1 } else { u64::from(segments) }
    }

    /// The hash of the flow, computed where nobody has yet. Read it before the packet changes.
    #[inline(always)]
    pub(crate) fn flow_hash(&self) -> u32 {
        // SAFETY: as in `ifindex`.
        let known = unsafe { (*self.ctx.skb.skb).hash };
        if known != 0 {
            return known;
        }
        // SAFETY: the context is valid.
        unsafe { helpers::bpf_get_hash_recalc(self.ctx.skb.skb) }
    }

    /// What an XDP program put in front of the packet, where it is just as long as a `T`.
    #[inline(always)]
    pub(crate) fn metadata<T: Pod>(&self) -> Option<T> {
        // SAFETY: as in `ifindex`.
        let start = unsafe { (*self.ctx.skb.skb).data_meta } as usize;
        let end = self.ctx.data();
        if start + size_of::<T>() > end {
            return None;
        }
        // SAFETY: the bytes lie between data_meta and data, and any bytes are a `T`.
        let value = unsafe { load(start) };
        // Metadata are words. Asking for equality would be shorter, and the verifier learns no bounds from that.
        if start + size_of::<T>() + size_of::<u32>() <= end {
            return None;
        }
        Some(value)
    }

    /// Makes (positive) or removes (negative) room behind the Ethernet header.
    #[inline(always)]
    pub(crate) fn adjust_room(&self, bytes: i32, flags: u64) -> Result<(), i64> {
        self.ctx.adjust_room(bytes, BPF_ADJ_ROOM_MAC, flags)
    }

    /// One UDP checksum fewer is known good: the outer one is gone.
    #[inline(always)]
    pub(crate) fn outer_checksum_removed(&self) {
        // SAFETY: as in `ifindex`. The result tells of packets without a verified checksum: nothing to do.
        let _ = unsafe { helpers::bpf_csum_level(self.ctx.skb.skb, u64::from(BPF_CSUM_LEVEL_DEC)) };
    }

    /// Writes a value into the packet.
    #[inline(always)]
    pub(crate) fn store<T: Pod>(&self, offset: usize, value: &T) -> Result<(), i64> {
        self.ctx.store(offset, value, 0)
    }

    /// Writes the first `len` of `bytes` to the start of the packet.
    #[inline(always)]
    pub(crate) fn store_headers<const N: usize>(&self, bytes: &[u8; N], len: u32) -> Result<(), i64> {
        let len = within(i64::from(len), N as i64);
        if len == 0 {
            return Err(-1);
        }
        // SAFETY: `len` bytes of `bytes` are initialised, as the check above and the verifier both see.
        let result = unsafe {
            helpers::bpf_skb_store_bytes(self.ctx.skb.skb.cast(), 0, bytes.as_ptr().cast(), len as u32, 0)
        };
        done(result)
    }

    /// Puts an empty Ethernet header in front of a packet that has none.
    #[inline(always)]
    pub(crate) fn add_ethernet(&self) -> Result<(), i64> {
        // SAFETY: the context is valid, and the helper checks the length.
        done(unsafe { helpers::bpf_skb_change_head(self.ctx.skb.skb, L3 as u32, 0) })
    }

    /// Replaces two bytes of a transport header, and its checksum along with them. Checksums that the hardware or
    /// the receiver's kernel is still to fill in come out right too.
    #[inline(always)]
    pub(crate) fn replace_word(
        &self,
        offset: usize,
        checksum: usize,
        old: [u8; 2],
        new: [u8; 2],
    ) -> Result<(), i64> {
        const SIZE: u64 = 2;
        // The checksum adds the header's 16-bit words. Bytes at an odd place belong to two of them, which amounts
        // to the word with its bytes swapped (RFC 1071 section 2).
        let word = |[a, b]: [u8; 2]| {
            let bytes = if (checksum ^ offset) & 1 == 0 { [a, b] } else { [b, a] };
            u64::from(u16::from_ne_bytes(bytes))
        };
        self.ctx.l4_csum_replace(checksum, word(old), word(new), SIZE)?;
        self.store(offset, &new)
    }

    /// Copies `len` bytes, 1 to `N`, from any place in the packet to the start of `bytes`.
    #[inline(always)]
    pub(crate) fn load_bytes<const N: usize>(
        &self,
        offset: usize,
        bytes: &mut [u8; N],
        len: usize,
    ) -> Result<(), i64> {
        let len = within(len as i64, N as i64);
        if len == 0 {
            return Err(-1);
        }
        // SAFETY: `len` bytes of `bytes` are writable, as the check above and the verifier both see.
        let result = unsafe {
            helpers::bpf_skb_load_bytes(
                self.ctx.skb.skb.cast(),
                offset as u32,
                bytes.as_mut_ptr().cast(),
                len as u32,
            )
        };
        done(result)
    }

    /// False where no interface has this index any more: a redirect to it would be a silent loss.
    #[inline(always)]
    pub(crate) fn device_exists(&self, ifindex: u32) -> bool {
        const ENODEV: i64 = 19;
        let mut mtu = 0_u32;
        // SAFETY: the context is valid, and `mtu` outlives the call. Too large a packet is a positive
        // result, not -ENODEV.
        unsafe { helpers::bpf_check_mtu(self.ctx.as_ptr(), ifindex, &raw mut mtu, 0, 0) != -ENODEV }
    }
}

/// A helper's result.
#[inline(always)]
pub(crate) fn done(result: i64) -> Result<(), i64> {
    if result == 0 { Ok(()) } else { Err(result) }
}

/// Copies a value out of a packet's linear part, or `None` where that ends before it does.
///
/// # Safety
/// `data` and `data_end` are those of the program's context.
#[inline(always)]
pub(crate) unsafe fn read_between<T: Pod>(data: usize, data_end: usize, offset: usize) -> Option<T> {
    let start = data + offset;
    if start + size_of::<T>() > data_end {
        return None;
    }
    // SAFETY: the bytes lie between data and data_end.
    Some(unsafe { load(start) })
}

/// Copies the word of `$size` bytes, `$at` bytes into a `$value`, if that has one there.
macro_rules! copy_word {
    ($value:ty, $size:literal, $at:expr, $word:literal, $from:ident, $to:ident) => {
        if ($size < 8 && size_of::<$value>() & $size != 0) || ($size == 8 && size_of::<$value>() >= $at + 8) {
            core::arch::asm!(
                concat!("{word} = *(", $word, " *)({from} + {at})"),
                concat!("*(", $word, " *)({to} + {at}) = {word}"),
                from = in(reg) $from,
                to = in(reg) $to,
                at = const $at,
                word = out(reg) _,
                options(nostack, preserves_flags),
            );
        }
    };
}

/// Copies a value out of a packet, word by word. A packet's headers stand at odd places, where the compiler would
/// load bytes and put them together; the kernel lets programs load words from there (and fixes up what the CPU cannot).
///
/// # Safety
/// The `size_of::<T>()` bytes at `start` may be read.
#[inline(always)]
unsafe fn load<T: Pod>(start: usize) -> T {
    /// The stack is read and written at even places only.
    #[repr(C, align(8))]
    struct Slot<T>(MaybeUninit<T>);
    let mut slot = Slot(MaybeUninit::<T>::uninit());
    let to = slot.0.as_mut_ptr() as usize;
    // SAFETY: every byte of the slot is written once, and any bytes are a `T`.
    unsafe {
        // Longest: an IPv6 header.
        const { assert!(size_of::<T>() < 48) };
        copy_word!(T, 8, 0, "u64", start, to);
        copy_word!(T, 8, 8, "u64", start, to);
        copy_word!(T, 8, 16, "u64", start, to);
        copy_word!(T, 8, 24, "u64", start, to);
        copy_word!(T, 8, 32, "u64", start, to);
        copy_word!(T, 4, size_of::<T>() & !7, "u32", start, to);
        copy_word!(T, 2, size_of::<T>() & !3, "u16", start, to);
        copy_word!(T, 1, size_of::<T>() & !1, "u8", start, to);
        slot.0.assume_init()
    }
}

/// A number where it is 1 to `most`, else 0.
///
/// LLVM knows what the caller's arithmetic can yield and would drop a plain comparison, which the verifier needs; and
/// it may compare one copy of a number and use another, of which the verifier before 6.8 knows nothing then. What
/// comes out of this is one number, and its bounds go with it.
#[inline(always)]
pub(crate) fn within(number: i64, most: i64) -> i64 {
    let mut number = number;
    // SAFETY: the jumps stay inside, and only the register named is written.
    unsafe {
        core::arch::asm!(
            "if {number} s> {most} goto +1",
            "if {number} s> 0 goto +1",
            "{number} = 0",
            number = inout(reg) number,
            most = in(reg) most,
        );
    }
    number
}

impl Packet for Skb<'_> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.ctx.len() as usize
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
            helpers::bpf_skb_load_bytes(
                self.ctx.skb.skb.cast(),
                offset as u32,
                value.as_mut_ptr().cast(),
                size_of::<T>() as u32,
            )
        };
        // SAFETY: as above, and any bytes are a `T`.
        (result == 0).then(|| unsafe { value.assume_init() })
    }
}

impl Captured for Skb<'_> {
    #[inline(always)]
    fn ifindex(&self) -> u32 {
        Skb::ifindex(self)
    }

    #[inline(always)]
    fn capture<const N: usize>(&self, bytes: &mut [u8; N], len: usize) -> Result<(), i64> {
        self.load_bytes(0, bytes, len)
    }
}
