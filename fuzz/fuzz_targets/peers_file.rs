//! A peers file: peers, or one line that starts with the number of the line that is wrong.
#![no_main]

use libfuzzer_sys::fuzz_target;
use overlay_user::store::file::parse::parse;

fuzz_target!(|text: &str| {
    match parse(text) {
        Ok(peers) => assert!(peers.iter().all(|(subnet, peer)| *subnet == peer.subnet)),
        Err(fault) => {
            let line: usize = fault.split(':').next().and_then(|line| line.parse().ok()).expect(&fault);
            assert!(line >= 1 && line <= text.split('\n').count() + 1 && !fault.contains('\n'), "{fault:?}");
        }
    }
});
