//! A packet from the underlay, outer headers and inner: what is accepted is as long as it says, both times.
#![no_main]

use libfuzzer_sys::fuzz_target;
use overlay_common::{
    Mac,
    parse::{arp_sender, ipv4_frame, outer_ipv4, outer_udp, vxlan, vxlan_inner, wire_ip_len},
};

const VTEP: Mac = Mac([6, 0x11, 0x22, 0x33, 0x44, 0x55]);

fuzz_target!(|data: &[u8]| {
    let _ = arp_sender(data);
    if let Some(frame) = ipv4_frame(data, 0) {
        assert!(frame.ip.header_len() >= 20 && 14 + frame.ip.total_len.get() as usize <= data.len());
        let _ = (wire_ip_len(data, &frame, 0), wire_ip_len(data, &frame, 1000));
    }
    let Some(outer) = outer_ipv4(data).and_then(|ip| outer_udp(data, ip)) else { return };
    if !outer.is_plain() || vxlan(data, &outer).is_err() {
        return;
    }
    let udp_len = outer.udp.len.get() as usize;
    assert!(34 + udp_len <= data.len() && udp_len >= 16);
    if let Ok(inner) = vxlan_inner(data, &outer, VTEP) {
        assert!(inner.header_len() >= 20 && inner.header_len() <= inner.total_len.get() as usize);
        assert!(64 + inner.total_len.get() as usize <= 34 + udp_len);
    }
});
