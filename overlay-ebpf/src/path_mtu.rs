//! Path MTU discovery (RFC 1191, RFC 8201) for the tunnels: a router's word that a tunnel packet was too large is noted,
//! and the daemon told, which gives the tunnels and the kernel's routes to that peer the smaller MTU. The sender
//! learns of it with its next packet, from the kernel.

use overlay_common::{
    event::{Event, PATH_MTU_CHANGED},
    map::{PATH_MTU_LIFETIME, PathMtu},
    path_mtu::{self, PathMtuIp, TooBig},
};

use crate::{clock, maps, packet::Skb};

/// Nanoseconds after which the same word is worth an event again: routers repeat it for every packet.
const REPEAT_AFTER: u64 = 1_000_000_000;

/// Looks at an ICMP packet for this host. The kernel gets it in any case.
#[inline(always)]
pub(crate) fn learn<O: PathMtuIp, const LINK: usize>(skb: &Skb<'_>, ip: &O, ours: O::Addr) {
    skb.pull(path_mtu::len::<O>(LINK));
    let Some(told) = path_mtu::too_big::<_, O, LINK>(skb, ip, ours) else { return };
    let to_tunnel = match told.port {
        Some(port) => maps::is_peers_tunnel(told.peer, port),
        None => maps::is_peers_host(told.peer),
    };
    if to_tunnel {
        note(skb, &told);
    }
}

#[inline(always)]
fn note(skb: &Skb<'_>, told: &TooBig) {
    let ip = told.peer;
    let now = clock::now();
    let mut fresh = true;
    // SAFETY: entries are preallocated; a torn read at worst delays one note.
    if let Some(known) = unsafe { maps::PATH_MTUS.get(ip) } {
        let age = now.wrapping_sub(known.told);
        // Another router's larger MTU does not lift the smaller one; time does.
        if known.mtu < told.mtu && age < PATH_MTU_LIFETIME {
            return;
        }
        fresh = known.mtu != told.mtu || age > REPEAT_AFTER;
    }
    let entry = PathMtu { told: now, mtu: told.mtu, padding: [0; 4] };
    if fresh && maps::PATH_MTUS.insert(ip, entry, 0).is_ok() {
        maps::send_event(&Event { kind: PATH_MTU_CHANGED, ifindex: skb.ifindex(), ip, ..Event::default() });
    }
}
