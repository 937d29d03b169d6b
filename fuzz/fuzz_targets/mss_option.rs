//! The options of a SYN: what is found lies among them, and says what it stands for.
#![no_main]

use libfuzzer_sys::fuzz_target;
use overlay_common::mss::{Found, find};

fuzz_target!(|data: &[u8]| {
    let mut options = [0xff; 40];
    let len = data.len().min(options.len());
    options[..len].copy_from_slice(&data[..len]);
    if let Some(Found { offset, value }) = find(&options, len) {
        assert!(offset + 2 <= len);
        assert_eq!(options[offset - 2..offset], [2, 4]);
        assert_eq!(options[offset..offset + 2], value.to_be_bytes());
    }
});
