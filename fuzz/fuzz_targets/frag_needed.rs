//! A router's "fragmentation needed": believed only about what we sent, and never below the least MTU.
#![no_main]

use libfuzzer_sys::fuzz_target;
use overlay_common::{map::MIN_PATH_MTU, packet::Packet, parse::L3, path_mtu::frag_needed, wire::Ipv4Header};

const OURS: [u8; 4] = [10, 0, 0, 1];

fuzz_target!(|data: &[u8]| {
    let Some(ip) = data.read::<Ipv4Header>(L3) else { return };
    if let Some(told) = frag_needed(data, &ip, OURS) {
        // Type, code; the quoted source and destination.
        assert_eq!((data[34], data[35], &data[54..58]), (3, 4, &OURS[..]));
        assert_eq!(data[58..62], told.peer);
        assert!(told.mtu >= MIN_PATH_MTU && told.mtu <= u32::from(u16::MAX));
    }
});
