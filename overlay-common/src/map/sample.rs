//! Samples of dropped packets, taken only while somebody listens.

use bytemuck::{Pod, Zeroable};

/// Whether drops are sampled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Sampling {
    /// Until when: nanoseconds of `CLOCK_MONOTONIC`. Who listens renews it, so that a listener that was killed
    /// costs nothing for long.
    pub until: u64,
}

/// Nanoseconds between two samples of one reason on one CPU: a flood must not drown the other reasons.
pub const SAMPLE_INTERVAL: u64 = 10_000_000;

/// Bytes of a packet that a sample keeps: the outer and the inner headers.
pub const SAMPLE_BYTES: usize = 128;

/// A dropped packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Sample {
    /// When: nanoseconds of `CLOCK_MONOTONIC`.
    pub time: u64,
    /// Why: a [`crate::DropReason`].
    pub reason: u32,
    /// The interface.
    pub ifindex: u32,
    /// Which program dropped it: the position in [`super::program::ALL`].
    pub program: u32,
    /// The packet's length, bytes, from the Ethernet header on.
    pub len: u32,
    /// How much of it is in `bytes`.
    pub captured: u32,
    /// Zero.
    pub padding: [u8; 4],
    /// The packet's first bytes.
    pub bytes: [u8; SAMPLE_BYTES],
}
