//! Time.

use aya_ebpf::helpers;

/// Nanoseconds of `CLOCK_MONOTONIC`, with the resolution of a tick (kernel >= 5.11).
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: the helper has no arguments.
    unsafe { helpers::bpf_ktime_get_coarse_ns() }
}
