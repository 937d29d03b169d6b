//! Endpoints learned from where they speak: the weakest authority. It fills an empty slot or one whose
//! interface is gone, and never displaces a live entry; who claims an address that lives on another port is
//! reported to the daemon, which asks the kernel.

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use overlay_common::{
    DropReason, Mac,
    event::{ENDPOINT_MOVED, Event},
    map::{Endpoint, EndpointKey, EndpointSource, MAX_LEARNED_PER_PORT, Port, endpoint_flag, port_flag},
    parse::Frame,
};

use crate::{carried::Carried, clock, maps, packet::Skb};

/// Nanoseconds between two updates of an endpoint's `last_seen`.
const SEEN_INTERVAL: u64 = 1_000_000_000;
/// Milliseconds between two events of one port.
const EVENT_INTERVAL: u32 = 100;

/// Whether the sender of a frame, seen on a bridge port, may use its source address, which lies in the port's
/// subnet. Learns the address if nobody owns it yet.
///
/// # Errors
/// [`DropReason::SourceSpoofed`], [`DropReason::SourceMacSpoofed`] and [`DropReason::PortFull`].
#[inline(always)]
pub(crate) fn sender<H: Carried>(skb: &Skb<'_>, port: &Port, frame: &Frame<H>) -> Result<(), DropReason> {
    let key = EndpointKey { vni: port.vni, ip: H::map_ip(frame.ip.src()) };
    let now = clock::now();
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
        return Ok(());
    }
    if ifindex != skb.ifindex() && !skb.device_exists(ifindex) {
        return learn(skb, port, frame, key, now, u64::from(BPF_ANY));
    }
    report_move(skb, port, frame.eth.src, key);
    // Who changes its MAC address says so by ARP before it sends, and the daemon hears of it from the kernel.
    let own_port = ifindex == skb.ifindex();
    Err(if own_port { DropReason::SourceMacSpoofed } else { DropReason::SourceSpoofed })
}

/// Enters the sender as an endpoint.
#[inline(always)]
fn learn<H: Carried>(
    skb: &Skb<'_>,
    port: &Port,
    frame: &Frame<H>,
    key: EndpointKey,
    now: u64,
    flags: u64,
) -> Result<(), DropReason> {
    let addr = frame.ip.src();
    if H::is_reserved(port, addr) || H::is_martian_source(addr) {
        return Err(DropReason::SourceSpoofed);
    }
    if frame.eth.src.is_multicast() {
        return Err(DropReason::SourceMacSpoofed);
    }
    if port.learned >= MAX_LEARNED_PER_PORT {
        return Err(DropReason::PortFull);
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
        return if flags == u64::from(BPF_NOEXIST) { Ok(()) } else { Err(DropReason::PortFull) };
    }
    count_learned(skb);
    Ok(())
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
fn report_move(skb: &Skb<'_>, port: &Port, mac: Mac, key: EndpointKey) {
    let now = (clock::now() / 1_000_000) as u32;
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
        mac,
        padding: [0; 2],
    });
}
