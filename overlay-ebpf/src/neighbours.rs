//! The neighbours behind peers that are bridges, as Open vSwitch's tunnels make them: where their frames go, and what they
//! ask by ARP.

use overlay_common::{
    DropReason, Mac,
    addr::MapIp,
    event::{Event, NEIGHBOUR_WANTED},
    map::{Neighbour, NeighbourKey, Node, Peer, Tunnel, peer_flag},
    packet::Packet,
    parse::L3,
    template::OUTER_TTL,
    tunnel::Opened,
    wire::{
        ArpPacket, EthHeader, Ipv4Header, UdpHeader,
        arp::{REPLY, REQUEST},
        eth::ETHERTYPE_ARP,
    },
};

use crate::{accept::Outer, carried::Carried, clock, maps, packet::Skb, verdict::Verdict};

/// The MAC address that frames for an address behind a tunnel go to: its own, or that of who routes for it, or broadcast.
/// Has it asked for where it was not heard lately.
#[inline(always)]
pub(crate) fn of(tunnel: &Tunnel, ip: MapIp) -> Mac {
    let (peer, now) = (tunnel.peer, clock::now());
    let key = NeighbourKey { peer, ip };
    match maps::NEIGHBOURS.get_ptr_mut(key) {
        Some(known) => {
            // SAFETY: entries are preallocated; a torn read at worst sends one frame to who is asked for then.
            let neighbour = unsafe { *known };
            if neighbour.is_wanted(now) {
                // SAFETY: as above; a 64-bit store is not torn.
                unsafe { (*known).asked = now };
                want(ip);
            }
            if neighbour.is_alive(now) {
                return neighbour.mac;
            }
        }
        None => {
            // Where there is no room for it, it is asked for with every packet.
            let _ = maps::NEIGHBOURS.insert(key, Neighbour { asked: now, ..Neighbour::default() }, 0);
            want(ip);
        }
    }
    // SAFETY: as above.
    let gateway = unsafe { maps::NEIGHBOURS.get(NeighbourKey { peer, ip: tunnel.gateway }) };
    match gateway {
        Some(gateway) if gateway.is_alive(now) => gateway.mac,
        _ => Mac::BROADCAST,
    }
}

#[inline(always)]
fn want(ip: MapIp) {
    maps::send_event(&Event { kind: NEIGHBOUR_WANTED, ip, ..Event::default() });
}

/// Nanoseconds between two notes that somebody was heard.
const SEEN_INTERVAL: u64 = 1_000_000_000;

/// Notes who sent from an address behind a peer.
#[inline(always)]
pub(crate) fn hear(peer: u32, ip: MapIp, mac: Mac) {
    if mac.is_multicast() {
        return;
    }
    let (key, now) = (NeighbourKey { peer, ip }, clock::now());
    if let Some(known) = maps::NEIGHBOURS.get_ptr_mut(key) {
        // SAFETY: as in `of`.
        let (old, seen) = unsafe { ((*known).mac, (*known).seen) };
        if old == mac {
            if now.wrapping_sub(seen) > SEEN_INTERVAL {
                // SAFETY: as in `of`; a 64-bit store is not torn.
                unsafe { (*known).seen = now };
            }
            return;
        }
    }
    let _ = maps::NEIGHBOURS.insert(key, Neighbour { seen: now, asked: now, mac, padding: [0; 2] }, 0);
}

/// Takes a peer's ARP: notes its sender, and answers who asks for an address of ours in place.
///
/// # Errors
/// [`DropReason::InnerMalformed`]; [`DropReason::InnerSource`] where the sender is not in the peer's subnets;
/// [`DropReason::NotLocal`] for who asks for somebody else, as floods do.
#[inline(always)]
pub(crate) fn arp<O: Outer>(
    skb: &Skb<'_>,
    node: &Node,
    outer: &O,
    opened: &Opened,
    peer: &Peer,
) -> Result<Verdict, DropReason> {
    let at = opened.at + EthHeader::LEN;
    let arp: ArpPacket = skb.read_at(at).ok_or(DropReason::InnerMalformed)?;
    if !arp.is_for_ipv4() || at + ArpPacket::LEN > opened.end {
        return Err(DropReason::InnerMalformed);
    }
    let route = <Ipv4Header as Carried>::route(peer.network, arp.sender);
    let route = route.filter(|route| route.peer == peer.id).ok_or(DropReason::InnerSource)?;
    if peer.flags & peer_flag::LEARN != 0 {
        hear(peer.id, MapIp::v4(arp.sender), arp.sender_mac);
    }
    if arp.operation == REPLY {
        return Ok(Verdict::Taken);
    }
    let subnet = <Ipv4Header as Carried>::subnet(peer.network, arp.target).ok_or(DropReason::NotLocal)?;
    if arp.operation != REQUEST || subnet.broadcast == MapIp::v4(arp.target) {
        return Err(DropReason::NotLocal);
    }
    // Whoever it is on this host: packets to it come to our VTEP.
    let answer = ArpPacket {
        operation: REPLY,
        sender_mac: node.vtep_mac,
        sender: arp.target,
        target_mac: arp.sender_mac,
        target: arp.sender,
        ..arp
    };
    let eth = EthHeader { dst: arp.sender_mac, src: node.vtep_mac, ethertype: ETHERTYPE_ARP };
    let tunnel = maps::tunnel(route.tunnel)?;
    let hop = &tunnel.hops[0];
    let (ifindex, next_hop) = (hop.uplink, hop.next_hop.words());
    let written = skb
        .store(at, &answer)
        .and_then(|()| skb.store(opened.at, &eth))
        .and_then(|()| skb.store(L3, &outer.turned(OUTER_TTL)))
        .and_then(|()| match opened.is_udp() {
            // The checksum no longer holds; none is right over IPv4, and over IPv6 for tunnels (RFC 6935).
            true => skb.store(L3 + O::LEN + UdpHeader::CHECKSUM, &[0_u8; 2]),
            false => Ok(()),
        });
    written.map_err(|_| DropReason::EncapFailed)?;
    Ok(Verdict::ToNeighbour { ifindex, next_hop })
}
