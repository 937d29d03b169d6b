//! Samples of drops, for whoever listens.

use overlay_common::{
    DropReason,
    map::{SAMPLE_BYTES, SAMPLE_INTERVAL, Sample},
};

use crate::{clock, maps, packet::Captured, verdict::Program};

/// Keeps a copy of a packet that is about to be dropped, if somebody listens and the reason's last sample on this
/// CPU is not too fresh.
#[inline(always)]
pub(crate) fn take<P: Captured>(packet: &P, program: Program, reason: DropReason) {
    let now = clock::now();
    let listening = maps::SAMPLING.get(0).is_some_and(|sampling| now < sampling.until);
    if !listening || !is_due(reason, now) {
        return;
    }
    let Some(mut entry) = maps::SAMPLES.reserve(0) else { return };
    let len = packet.len();
    let captured = if len < SAMPLE_BYTES { len } else { SAMPLE_BYTES };
    let sample = entry.write(Sample {
        time: now,
        reason: reason.number(),
        ifindex: packet.ifindex(),
        program: program as u32,
        len: len as u32,
        captured: captured as u32,
        padding: [0; 4],
        bytes: [0; SAMPLE_BYTES],
    });
    if packet.capture(&mut sample.bytes, captured).is_err() {
        sample.captured = 0;
    }
    entry.submit(0);
}

#[inline(always)]
fn is_due(reason: DropReason, now: u64) -> bool {
    let Some(last) = maps::SAMPLED.get_ptr_mut(reason.number()) else { return false };
    // SAFETY: the entry is this CPU's own, and programs on one CPU do not preempt each other here.
    unsafe {
        if now.wrapping_sub(*last) < SAMPLE_INTERVAL {
            return false;
        }
        *last = now;
    }
    true
}
