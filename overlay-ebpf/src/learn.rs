//! Endpoints learned from where they speak: the weakest authority. It fills an empty slot or one whose
//! interface is gone, and never displaces a live entry; who claims an address that lives on another port is
//! reported to the daemon, which asks the kernel.

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    helpers,
};
use overlay_common::{
    addr::MapIp,
    event::{ENDPOINT_MOVED, Event},
    map::{Endpoint, EndpointKey, EndpointSource, MAX_LEARNED_PER_PORT, Port, endpoint_flag, port_flag},
    parse::Frame,
    wire::ipv4,
};

use crate::{maps, packet::Skb};

/// Nanoseconds between two updates of an endpoint's `last_seen`.
const SEEN_INTERVAL: u64 = 1_000_000_000;
/// Milliseconds between two events of one port.
const EVENT_INTERVAL: u32 = 100;

/// Whether the sender of a frame, seen on a bridge port, owns the source address, which lies in the
/// port's subnet. Learns the address if nobody owns it yet.
#[inline(always)]
pub(crate) fn sender(skb: &Skb<'_>, port: &Port, frame: &Frame) -> bool {
    let key = EndpointKey { vni: port.vni, ip: MapIp::v4(frame.ip.src) };
    let now = now();
    let Some(known) = maps::ENDPOINTS.get_ptr_mut(key) else {
        return learn(skb, port, frame, key, now, u64::from(BPF_NOEXIST));
    };
    // SAFETY: entries are preallocated and their memory stays valid; a torn read of these fields at worst
    // sends one packet to the slow path.
    let (ifindex, mac, last_seen) = unsafe { ((*known).ifindex, (*known).mac, (*known).last_seen) };
    if ifindex == skb.ifindex() && mac == frame.eth.src {
        if now > last_seen.wrapping_add(SEEN_INTERVAL) {
            // SAFETY: as above; a 64-bit store is not torn.
            unsafe { (*known).last_seen = now }
        }
        return true;
    }
    if ifindex != skb.ifindex() && !skb.device_exists(ifindex) {
        return learn(skb, port, frame, key, now, u64::from(BPF_ANY));
    }
    report_move(skb, port, frame, key);
    // Another MAC address behind the same port is that container's own affair.
    ifindex == skb.ifindex()
}

/// Enters the sender as an endpoint.
#[inline(always)]
fn learn(skb: &Skb<'_>, port: &Port, frame: &Frame, key: EndpointKey, now: u64, flags: u64) -> bool {
    let host_bits = !u32::from_be_bytes(port.mask);
    let host = u32::from_be_bytes(frame.ip.src) & host_bits;
    // The network and broadcast addresses are nobody's (but /31 has neither, RFC 3021), nor is the gateway
    // a container's.
    let reserved = host_bits > 1 && (host == 0 || host == host_bits);
    if reserved || frame.ip.src == port.gateway || frame.eth.src.is_multicast() {
        return false;
    }
    if ipv4::is_multicast_or_broadcast(frame.ip.src) {
        return false;
    }
    if port.learned >= MAX_LEARNED_PER_PORT {
        return false;
    }
    let endpoint = Endpoint {
        last_seen: now,
        ifindex: skb.ifindex(),
        flags: if port.flags & port_flag::PEER != 0 { endpoint_flag::PEER } else { 0 },
        source: EndpointSource::Spoken as u32,
        mac: frame.eth.src,
        gateway_mac: port.gateway_mac,
    };
    if maps::ENDPOINTS.insert(key, endpoint, flags).is_err() {
        // Somebody was faster, or the table is full: the next packet finds out.
        return flags == u64::from(BPF_NOEXIST);
    }
    count_learned(skb);
    true
}

#[inline(always)]
fn count_learned(skb: &Skb<'_>) {
    if let Some(port) = maps::PORTS.get_ptr_mut(skb.ifindex()) {
        // SAFETY: preallocated memory. The count may lose an increment to another CPU; it is a bound, not
        // a ledger, and the daemon recounts.
        unsafe { (*port).learned += 1 }
    }
}

/// Tells the daemon that an address speaks from where it is not known to live.
#[inline(always)]
fn report_move(skb: &Skb<'_>, port: &Port, frame: &Frame, key: EndpointKey) {
    let now = (now() / 1_000_000) as u32;
    if now.wrapping_sub(port.last_event_ms) < EVENT_INTERVAL {
        return;
    }
    if let Some(port) = maps::PORTS.get_ptr_mut(skb.ifindex()) {
        // SAFETY: preallocated memory, a 32-bit store.
        unsafe { (*port).last_event_ms = now }
    }
    maps::send_event(&Event {
        kind: ENDPOINT_MOVED,
        ifindex: skb.ifindex(),
        vni: key.vni,
        ip: key.ip,
        mac: frame.eth.src,
        padding: [0; 2],
    });
}

/// Nanoseconds of `CLOCK_MONOTONIC`, with the resolution of a tick (kernel >= 5.11).
#[inline(always)]
fn now() -> u64 {
    // SAFETY: the helper has no arguments.
    unsafe { helpers::bpf_ktime_get_coarse_ns() }
}
