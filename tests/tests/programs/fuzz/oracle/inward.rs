//! Out of the overlay: what peers send.

use std::net::IpAddr;

use super::{
    Dropped, Judgement, Must, Never, Passed,
    expected::{Expected, Free},
};
use crate::{
    fuzz::{
        change::{is_clamped, word},
        header::Header,
        hosts::{GATEWAYS, HOMES, OWN, Way, is_local, peer_at, v4},
        input::Input,
        seed::UPLINK,
    },
    packet::{ARP, IPV4, IPV6, UDP},
    world::{
        BROADCAST, GATEWAY_MAC, OVERLAY_NEIGHBOUR, PORT_NUMBER, PeerHost, TO_HOST_MARK, UPLINK_MAC, VTEP_MAC,
        dev,
    },
};

/// ARP or neighbour discovery, which is another program's.
pub(in crate::fuzz) const RESOLUTION_INSIDE: &str = "it resolves an address";

/// The outer header of an IP packet for this host, by MAC and IP address.
fn for_us(packet: &[u8]) -> Option<Header<'_>> {
    let ip = Header::behind(word(packet, 12), &packet[14..])?;
    (packet[..6] == UPLINK_MAC && OWN.contains(&ip.dst())).then_some(ip)
}

/// The same for a tunnel packet that is no fragment and has no options.
fn tunnel(packet: &[u8]) -> Option<Header<'_>> {
    let ip = for_us(packet)?;
    let udp = 14 + ip.len();
    let is_ours = ip.is_plain()
        && ip.protocol() == UDP
        && packet.len() >= udp + 8
        && word(packet, udp + 2) == usize::from(PORT_NUMBER);
    is_ours.then_some(ip)
}

pub(in crate::fuzz) fn is_plain_tunnel(packet: &[u8]) -> bool {
    tunnel(packet).is_some()
}

/// UDP for us: all that `uplink_ingress` may leave to the tunnel device, because the kernel has to put it together or to
/// cut it up.
pub(super) fn is_for_our_device(input: &Input) -> bool {
    let is_udp = |ip: Header<'_>| {
        let behind = if ip.is_v6() && ip.protocol() == 44 { input.packet.get(54) } else { None };
        (behind.copied().unwrap_or(ip.protocol()) == UDP) && (!ip.is_plain() || input.gso_size != 0)
    };
    input.program == UPLINK && input.ifindex == dev::UPLINK && for_us(&input.packet).is_some_and(is_udp)
}

pub(super) fn uplink(input: &Input) -> Judgement {
    let packet = &input.packet;
    if input.ifindex != dev::UPLINK {
        return Passed("that device is no uplink");
    }
    let Some(outer) = for_us(packet) else { return Passed("it is not for us") };
    if !outer.is_plain() {
        let reason = "the kernel has to put it together";
        return if is_for_our_device(input) { Never(reason) } else { Passed(reason) };
    }
    if tunnel(packet).is_none() {
        return Passed("it is not for our port");
    }
    let inner = match accepted(packet, &outer) {
        Err(RESOLUTION_INSIDE) => return Passed(RESOLUTION_INSIDE),
        Err(reason) => return Dropped(reason),
        Ok(inner) => inner,
    };
    if !is_somebodys(inner.dst()) {
        return Dropped("its inner destination is not local");
    }
    Must(delivered(input, &outer, &inner))
}

/// True where a container of this host may have an address, or the host itself.
fn is_somebodys(dst: IpAddr) -> bool {
    is_local(dst) && dst != v4(BROADCAST)
}

/// True for a packet that a peer may send, but not to here.
pub(in crate::fuzz) fn is_for_nobody(packet: &[u8]) -> bool {
    let inner = tunnel(packet).and_then(|outer| accepted(packet, &outer).ok());
    inner.is_some_and(|inner| !is_somebodys(inner.dst()))
}

/// Why a tunnel packet must not be accepted, wherever it would go.
pub(in crate::fuzz) fn refusal(packet: &[u8]) -> Option<&'static str> {
    match tunnel(packet) {
        Some(outer) => accepted(packet, &outer).err(),
        None => Some("it is no tunnel packet for us"),
    }
}

/// The peer that a packet's outer source is.
pub(in crate::fuzz) fn sender(packet: &[u8]) -> Option<PeerHost> {
    peer_at(for_us(packet)?.src())
}

/// A neighbour solicitation or advertisement (RFC 4861), from the EtherType on.
fn is_neighbour_discovery(frame: &[u8]) -> bool {
    frame.starts_with(&[0x86, 0xdd])
        && frame.get(2 + 6..2 + 8) == Some(&[58, 255])
        && matches!(frame.get(2 + 40), Some(135 | 136))
}

/// An IPv6 destination that no router forwards to: link-local, loopback, and what is left of IPv4 in IPv6.
fn is_on_link(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local() || ip.octets()[..10] == [0; 10])
}

/// An IPv6 source that is none: these and multicast.
fn is_no_hosts(ip: IpAddr) -> bool {
    is_on_link(ip) || ip.is_multicast()
}

/// The inner header of a tunnel packet. Otherwise why it ought not to be accepted, in the order of its
/// bytes.
fn accepted<'a>(packet: &'a [u8], outer: &Header<'_>) -> Result<Header<'a>, &'static str> {
    let udp = 14 + outer.len();
    let (vxlan, inner_eth, inner_ip) = (udp + 8, udp + 16, udp + 30);
    let udp_len = word(packet, udp + 4);
    if 14 + outer.total() > packet.len() || outer.len() + udp_len > outer.total() || udp_len < 16 {
        return Err("its outer lengths contradict each other");
    }
    if packet[vxlan..vxlan + 4] != [8, 0, 0, 0] || packet[vxlan + 7] != 0 {
        return Err("it is not plain VXLAN");
    }
    let peer = peer_at(outer.src()).ok_or("a stranger sent it")?;
    if packet[vxlan + 4..vxlan + 7] != peer.vni.to_be_bytes()[1..] {
        return Err("its VNI is not the peer's");
    }
    if packet.len() < inner_ip {
        return Err("it is for another VTEP");
    }
    let is_arp = word(packet, inner_eth + 12) == usize::from(ARP);
    let is_nd = is_neighbour_discovery(&packet[inner_eth + 12..]);
    if ![VTEP_MAC, [0xff; 6]].iter().any(|mac| packet[inner_eth..].starts_with(mac)) {
        let to_a_group = packet[inner_eth] & 1 == 1;
        let resolves = to_a_group && (is_arp || is_nd);
        return Err(if resolves { RESOLUTION_INSIDE } else { "it is for another VTEP" });
    }
    if is_arp {
        return Err(RESOLUTION_INSIDE);
    }
    let inner = Header::behind(word(packet, inner_eth + 12), &packet[inner_ip..]);
    let inner = inner.ok_or("there is no IP header in it")?;
    if inner.total() < inner.claimed_len() || inner_ip + inner.total() > udp + udp_len {
        return Err("its inner length is not that of what is there");
    }
    if is_nd && (is_no_hosts(inner.src()) || is_on_link(inner.dst())) {
        return Err(RESOLUTION_INSIDE);
    }
    // No other address is anywhere near a peer's subnets: none of those that no host has, and no IPv4 address in
    // IPv6's clothes.
    if Way::to(inner.src()).is_none_or(|way| way.peer.id != peer.id) {
        return Err("its inner source is outside the peer's subnets");
    }
    // RFC 6040 section 4.2: congestion that the sender cannot hear of.
    if outer.tos() & 3 == 3 && inner.tos() & 3 == 0 {
        return Err("its congestion cannot be heard");
    }
    Ok(inner)
}

/// The ECN bits of what is delivered: RFC 6040 section 4.2, figure 4; CE over Not-ECT has been refused.
fn congestion(outer: &Header<'_>, inner: &Header<'_>) -> u8 {
    match (inner.tos() & 3, outer.tos() & 3) {
        (0b00, _) => 0b00,
        (0b10, 0b01) => 0b01,
        (_, 0b11) => 0b11,
        (inner, _) => inner,
    }
}

/// What is delivered: the inner packet, with the outer header's congestion mark. Through a router nobody speaks to
/// a neighbour (docs/adr/0010).
fn delivered(input: &Input, outer: &Header<'_>, inner: &Header<'_>) -> Expected {
    let dst = inner.dst();
    let bytes = inner.marked(congestion(outer, inner));
    let inner = Header::of_version(&bytes).unwrap();
    let bytes = if inner.is_v6() && inner.hops() == 255 { inner.one_hop_less() } else { inner.to_vec() };
    let (mut mark, mut free) = (input.mark, Free::Nothing);
    let [dst_mac, src_mac] = match HOMES.iter().find(|(addr, ..)| *addr == dst) {
        Some((_, mac, _)) => [*mac, GATEWAY_MAC],
        None if GATEWAYS.contains(&dst) => {
            mark = TO_HOST_MARK;
            [GATEWAY_MAC, OVERLAY_NEIGHBOUR]
        }
        None => {
            free = Free::Link(std::array::from_fn(|n| input.packet[n]));
            [[0; 6]; 2]
        }
    };
    let bytes = [&dst_mac[..], &src_mac, &inner.ethertype().to_be_bytes(), &bytes].concat();
    let fits = Way::to(inner.src()).map(|way| way.mtu());
    Expected { bytes, free, mark, ip: 14, fits }
}

/// Whether XDP left of a tunnel packet what tcx delivered: the same behind the Ethernet addresses, but for what tcx
/// does after it: a SYN clamped, a hop taken.
pub(in crate::fuzz) fn stripped_as(stripped: &[u8], delivered: &[u8]) -> bool {
    let Some(ip) = Header::behind(word(stripped, 12), &stripped[14..]) else { return false };
    let packet = if ip.is_v6() && ip.hops() == 255 { ip.one_hop_less() } else { ip.to_vec() };
    let expected = [&delivered[..14], &packet].concat();
    let fits = Way::to(ip.src()).map(|way| way.mtu());
    expected == delivered || fits.is_some_and(|mtu| is_clamped(&expected, delivered, 14, mtu))
}

/// The mix of a packet on the uplink: of one that is no tunnel's, the version alone.
pub(super) fn mix(input: &Input, outer: &Header<'_>) -> &'static str {
    let ethertype = input.packet.get(14 + outer.len() + 28..14 + outer.len() + 30);
    let inner = match ethertype.map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]])) {
        Some(IPV4) if is_plain_tunnel(&input.packet) => false,
        Some(IPV6) if is_plain_tunnel(&input.packet) => true,
        _ => return super::name_of_mix(outer.is_v6(), None),
    };
    super::name_of_mix(inner, Some(outer.is_v6()))
}
