//! The neighbours behind peers that are bridges, as Open vSwitch's tunnels make them: where their frames go, and what they
//! ask by ARP and neighbour discovery.

use aya_ebpf::helpers;
use bytemuck::Pod;
use overlay_common::{
    Be16, DropReason, Mac,
    addr::MapIp,
    checksum,
    event::{Event, NEIGHBOUR_WANTED},
    map::{Neighbour, NeighbourKey, Node, Peer, Tunnel, peer_flag},
    packet::Packet,
    parse::L3,
    template::OUTER_TTL,
    tunnel::Opened,
    wire::{
        ArpPacket, EthHeader, IpHeader as _, Ipv4Header, Ipv6Header, NeighbourMessage, UdpHeader,
        arp::{REPLY, REQUEST},
        eth::{ETHERTYPE_ARP, ETHERTYPE_IPV6},
        nd::{self, NEIGHBOUR_SOLICITATION, Resolution},
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

/// Takes a peer's ARP: notes its sender, and writes the answer to who asks for an address of ours in its place. False
/// where there is nothing to answer.
///
/// # Errors
/// [`DropReason::InnerMalformed`]; [`DropReason::InnerSource`] where the sender is not in the peer's subnets;
/// [`DropReason::NotLocal`] for who asks for somebody else, as floods do.
#[inline(always)]
pub(crate) fn arp(skb: &Skb<'_>, node: &Node, opened: &Opened, peer: &Peer) -> Result<bool, DropReason> {
    let at = opened.at + EthHeader::LEN;
    let arp: ArpPacket = skb.read_at(at).ok_or(DropReason::InnerMalformed)?;
    if !arp.is_for_ipv4() || at + ArpPacket::LEN > opened.end {
        return Err(DropReason::InnerMalformed);
    }
    speaks::<Ipv4Header>(peer, arp.sender, arp.sender_mac)?;
    if arp.operation == REPLY {
        return Ok(false);
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
    write(skb, at, &answer).and_then(|()| write(skb, opened.at, &eth))?;
    Ok(true)
}

/// As [`arp`], of neighbour discovery. Who asks from a link-local address, as kernels do for whom they route, may be
/// anybody behind the peer: it is answered, and not remembered.
///
/// # Errors
/// As [`arp`]. [`DropReason::InnerMalformed`] for a message with other options than the sender's MAC address, too: there
/// is no room for the answer.
#[inline(always)]
pub(crate) fn discovery(
    skb: &Skb<'_>,
    node: &Node,
    opened: &Opened,
    peer: &Peer,
) -> Result<bool, DropReason> {
    let at = opened.at + EthHeader::LEN;
    let (message, src) = (at + Ipv6Header::LEN, at + Ipv6Header::SRC);
    let said: Resolution = skb.read_at(message).ok_or(DropReason::InnerMalformed)?;
    let (target, mac) = (said.message.target, said.mac);
    let asks = said.message.icmp_type == NEIGHBOUR_SOLICITATION;
    // Said of all that floods, before its form is looked at: duplicates are sought without a MAC address.
    if asks && <Ipv6Header as Carried>::subnet(peer.network, target).is_none() {
        return Err(DropReason::NotLocal);
    }
    let payload_len: Be16 = skb.read_at(at + Ipv6Header::PAYLOAD_LEN).ok_or(DropReason::InnerMalformed)?;
    let is_whole =
        payload_len == Be16::new(Resolution::LEN as u16) && message + Resolution::LEN <= opened.end;
    if !is_whole || !said.is_sound(sum_at(skb, src)?) {
        return Err(DropReason::InnerMalformed);
    }
    let asker: [u8; 16] = skb.read_at(src).ok_or(DropReason::InnerMalformed)?;
    let speaker = if asks { asker } else { target };
    if !nd::is_link_local(speaker) {
        speaks::<Ipv6Header>(peer, speaker, mac)?;
    }
    if !asks {
        return Ok(false);
    }
    let eth = EthHeader { dst: mac, src: node.vtep_mac, ethertype: ETHERTYPE_IPV6 };
    write(skb, opened.at, &eth)?;
    write(skb, src + size_of_val(&asker), &asker)?;
    write(skb, src, &target)?;
    write(skb, message, &Resolution::answer(node.vtep_mac, target))?;
    // Of words in the order of this CPU, and so in that order itself.
    let checksum = checksum::finish(sum_at(skb, src)?).to_ne_bytes();
    write(skb, message + NeighbourMessage::CHECKSUM, &checksum)?;
    Ok(true)
}

/// The sum over the message whose packet has its source address at an offset, of words in the order of this CPU. In
/// pieces, and by a helper: a loop that the compiler unrolls takes more than there is of the stack.
#[inline(always)]
fn sum_at(skb: &Skb<'_>, src: usize) -> Result<u32, DropReason> {
    type Piece = [u32; 8];
    let mut sum = u32::from_be(Resolution::PSEUDO);
    for at in [src, src + size_of::<Piece>()] {
        let mut piece: Piece = skb.read_at(at).ok_or(DropReason::InnerMalformed)?;
        let len = size_of::<Piece>() as u32;
        // SAFETY: as many bytes as it says; the helper reads them only.
        sum =
            unsafe { helpers::bpf_csum_diff(core::ptr::null_mut(), 0, piece.as_mut_ptr(), len, sum) as u32 };
    }
    Ok(sum)
}

/// Notes what somebody behind a peer says of itself, where it may.
#[inline(always)]
fn speaks<H: Carried>(peer: &Peer, ip: H::Addr, mac: Mac) -> Result<(), DropReason> {
    H::route(peer.network, ip).filter(|route| route.peer == peer.id).ok_or(DropReason::InnerSource)?;
    if peer.flags & peer_flag::LEARN != 0 {
        hear(peer.id, H::map_ip(ip), mac);
    }
    Ok(())
}

/// Sends a tunnel packet back the way it came.
///
/// # Errors
/// [`DropReason::EncapFailed`].
#[inline(always)]
pub(crate) fn turn_back<O: Outer>(skb: &Skb<'_>, opened: &Opened) -> Result<Verdict, DropReason> {
    let eth: EthHeader = skb.read_at(0).ok_or(DropReason::EncapFailed)?;
    write(skb, 0, &EthHeader { dst: eth.src, src: eth.dst, ..eth })?;
    let outer: O = skb.read_at(L3).ok_or(DropReason::EncapFailed)?;
    write(skb, L3, &outer.turned(OUTER_TTL))?;
    if opened.is_udp() {
        // The checksum no longer holds; none is right over IPv4, and over IPv6 for tunnels (RFC 6935).
        write(skb, L3 + O::LEN + UdpHeader::CHECKSUM, &[0_u8; 2])?;
    }
    Ok(Verdict::ToPort { ifindex: skb.ifindex() })
}

#[inline(always)]
fn write<T: Pod>(skb: &Skb<'_>, at: usize, value: &T) -> Result<(), DropReason> {
    skb.store(at, value).map_err(|_| DropReason::EncapFailed)
}
