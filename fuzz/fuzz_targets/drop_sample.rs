//! A sample of a dropped packet, as `overlayctl drops --follow` reads it: whatever it holds, there is one line.
#![no_main]

use std::time::{Duration, UNIX_EPOCH};

use libfuzzer_sys::fuzz_target;
use overlay_common::map::Sample;
use overlay_user::ctl::sample::{Clocks, Row};

fuzz_target!(|data: &[u8]| {
    let mut bytes = [0; size_of::<Sample>()];
    let len = data.len().min(bytes.len());
    bytes[..len].copy_from_slice(&data[..len]);
    let clocks = Clocks { monotonic: 1 << 40, wall: UNIX_EPOCH + Duration::from_secs(1 << 31) };
    let row = Row::of(&bytemuck::pod_read_unaligned(&bytes), None, clocks);
    assert!(!row.to_string().contains('\n'));
});
