//! Bytes that are never the same twice.

use std::sync::atomic::{AtomicU64, Ordering};

/// So many bytes, of which no eight in a row occur again anywhere.
pub(crate) fn fresh(len: usize) -> Vec<u8> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        // splitmix64, a bijection of its counter.
        let mut word = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend((word ^ (word >> 31)).to_be_bytes());
    }
    bytes.truncate(len);
    bytes
}
