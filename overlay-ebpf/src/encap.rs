//! Into the overlay: from a container or from the host to a peer.

use aya_ebpf::programs::TcContext;
use overlay_common::{
    DropReason, Mac, checksum, flow,
    map::{Direction, Port, Route, TEMPLATE_BYTES, Tunnel, port_flag},
    mark,
    packet::Packet,
    parse::{self, Frame, L3, masked},
    template::Stamp,
    wire::{EthHeader, Ipv4Header, eth::ETHERTYPE_IPV4},
};

use crate::{
    device, learn, local, maps, mss,
    packet::{Skb, Tag},
    verdict::Verdict,
};

/// A packet that a container sent, seen on its bridge port or on the bridge.
#[inline(always)]
pub(crate) fn from_workload(ctx: &TcContext) -> Result<Verdict, DropReason> {
    let skb = Skb::new(ctx);
    let Some(port) = maps::port(skb.ifindex()) else { return Ok(Verdict::Pass) };
    if is_for_host(&skb, port) {
        return Ok(Verdict::Pass);
    }
    match skb.untag() {
        Tag::None => {}
        // It is for a VLAN of the bridge; the tag would go out on the uplink with it.
        Tag::Vlan => return Ok(Verdict::Pass),
        // The kernel takes off any number of them, and routes what is behind.
        Tag::Priority => return Err(DropReason::VlanStacked),
    }
    skb.pull(mss::LEN);
    refuse_gateway_claim(&skb, port)?;
    let Some(frame) = parse::ipv4_frame(&skb, skb.gso_size()) else { return Ok(Verdict::Pass) };
    let sender = judge_sender(&skb, port, &frame);
    // A frame for another MAC address goes to a neighbour of the sender: a container, a router, a VPN.
    if frame.eth.dst != port.gateway_mac {
        return Ok(local::deliver(&skb, port, &frame, sender.is_ok()));
    }
    let Some(route) = maps::route(port.vni, frame.ip.dst) else {
        return refuse_forged_tunnel(&skb, &frame).map(|()| Verdict::Pass);
    };
    sender?;
    let tunnel = maps::tunnel(route.tunnel)?;
    if !fast_path_takes(&skb, &frame, tunnel) {
        return Ok(Verdict::Pass);
    }
    encap(&skb, &frame, tunnel, Hop::Forwarded)
}

/// A packet that the kernel routed to a peer's subnet: the host's own, or one the fast path left to it.
#[inline(always)]
pub(crate) fn from_host(ctx: &TcContext) -> Result<Verdict, DropReason> {
    let skb = Skb::new(ctx);
    skb.pull(mss::LEN);
    let eth: Option<EthHeader> = skb.read(0);
    if !eth.is_some_and(|eth| eth.dst == Mac::OVERLAY_NEIGHBOUR && eth.ethertype == ETHERTYPE_IPV4) {
        return Ok(Verdict::Pass);
    }
    let Some(port) = maps::port(skb.ifindex()) else { return Ok(Verdict::Pass) };
    // Nobody else has the neighbour's MAC address: what is passed on would vanish in the bridge.
    let frame = parse::ipv4_frame(&skb, skb.gso_size()).ok_or(DropReason::InnerMalformed)?;
    let route: &Route = maps::route(port.vni, frame.ip.dst).ok_or(DropReason::NoRoute)?;
    // The peer believes only sources in our subnets; anything else would die there, unexplained.
    if maps::subnet(port.vni, frame.ip.src).is_none() {
        return Err(DropReason::SourceSpoofed);
    }
    let tunnel = maps::tunnel(route.tunnel)?;
    // What cannot be measured here, an aggregate in a nested tunnel say, the kernel has measured against the
    // route's MTU.
    if wire_len(&skb, &frame).is_some_and(|len| len > tunnel.mtu) {
        return Err(DropReason::MtuExceeded);
    }
    // Routing has taken the TTL already from what was forwarded, and nothing is due from the host's own.
    encap(&skb, &frame, tunnel, Hop::Routed)
}

/// True for what `uplink_ingress` sends up to the host through the bridge. The mark is taken off again.
/// No container can set it: a mark does not cross namespaces.
#[inline(always)]
fn is_for_host(skb: &Skb<'_>, port: &Port) -> bool {
    if port.flags & port_flag::BRIDGE == 0 || skb.mark() != mark::TO_HOST {
        return false;
    }
    skb.set_mark(0);
    true
}

/// Refuses who says by ARP, or by the source of a frame, that it is the bridge. No container is.
#[inline(always)]
fn refuse_gateway_claim(skb: &Skb<'_>, port: &Port) -> Result<(), DropReason> {
    let eth: Option<EthHeader> = skb.read(0);
    let by_mac = eth.is_some_and(|eth| eth.src == port.gateway_mac);
    let by_arp = parse::arp_sender(skb).is_some_and(|sender| sender == port.gateway);
    if by_mac || by_arp { Err(DropReason::GatewayClaimed) } else { Ok(()) }
}

/// Refuses tunnel packets that a container makes itself for a peer's host. The host's own NAT would let them leave
/// with this host's address, and the peer would believe what is in them. To containers of a peer they are
/// packets like any other.
#[inline(always)]
fn refuse_forged_tunnel(skb: &Skb<'_>, frame: &Frame) -> Result<(), DropReason> {
    let Some(outer) = parse::outer_udp(skb, frame.ip) else { return Ok(()) };
    if maps::is_peers_tunnel(frame.ip.dst, outer.port()) { Err(DropReason::TunnelForged) } else { Ok(()) }
}

/// Whether the sender may use its source address. On a bridge port the endpoint table knows (and learns);
/// on the bridge itself only the subnet can be told.
#[inline(always)]
fn judge_sender(skb: &Skb<'_>, port: &Port, frame: &Frame) -> Result<(), DropReason> {
    if masked(frame.ip.src, port.mask) != port.subnet {
        return Err(DropReason::SourceSpoofed);
    }
    if frame.ip.src == port.gateway {
        return Err(DropReason::GatewayClaimed);
    }
    if port.flags & port_flag::BRIDGE != 0 { Ok(()) } else { learn::sender(skb, port, frame) }
}

/// Whether the fast path takes a packet. What it declines goes to the kernel, which routes it to the
/// bridge, where `bridge_egress` encapsulates it: with options, an expiring TTL or an oversize packet the
/// kernel knows what to do and whom to tell. Fragments go that way all together, though most would fit: where the
/// host tracks connections, the kernel reassembles those that take the slow path, and would wait in vain for
/// one that took the fast path.
#[inline(always)]
fn fast_path_takes(skb: &Skb<'_>, frame: &Frame, tunnel: &Tunnel) -> bool {
    frame.ip.version_ihl == Ipv4Header::VERSION_IHL
        && !frame.ip.is_fragment()
        && frame.ip.ttl > 1
        && wire_len(skb, frame).is_some_and(|len| len <= tunnel.mtu)
}

/// The size of the inner IP packets on the wire; `None` where that cannot be told.
#[inline(always)]
fn wire_len(skb: &Skb<'_>, frame: &Frame) -> Option<u32> {
    parse::wire_ip_len(skb, frame, skb.gso_size())
}

/// Whether this packet still owes the overlay hop its TTL.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hop {
    Forwarded,
    Routed,
}

/// Puts the outer headers in front. A refusal by the kernel comes before they are there: then the kernel routes
/// the packet, and what comes back from there refused again goes through the tunnel device.
#[inline(always)]
fn encap(skb: &Skb<'_>, frame: &Frame, tunnel: &Tunnel, hop: Hop) -> Result<Verdict, DropReason> {
    let inner_len = skb.len() - L3;
    let packets = skb.wire_packets();
    let template_len = tunnel.template_len as usize;
    if mss::is_syn(skb, &frame.ip) {
        mss::clamp(skb, tunnel.mtu);
    }
    // RFC 6040 section 4.1, normal mode: the outer header has the inner one's ECN bits, CE included.
    let tos = frame.ip.tos;
    let outer_len = inner_len + template_len - L3;
    if outer_len > 0xffff {
        return through_device(skb, frame, tunnel, hop, packets);
    }
    let stamp = Stamp { inner_len: inner_len as u16, tos, source_port: flow::source_port(skb.flow_hash()) };
    let mut headers: [u8; TEMPLATE_BYTES] = tunnel.template;
    stamp.apply(&mut headers, template_len, tunnel.checksum);
    if skb.adjust_room(template_len as i32 - L3 as i32, tunnel.room_flags).is_err() {
        return match hop {
            Hop::Forwarded => Ok(Verdict::Pass),
            Hop::Routed => through_device(skb, frame, tunnel, hop, packets),
        };
    }
    skb.store_headers(&headers, tunnel.template_len).map_err(|_| DropReason::EncapFailed)?;
    match hop {
        Hop::Forwarded => {
            take_ttl(skb, template_len, &frame.ip).map_err(|_| DropReason::EncapFailed)?;
        }
        Hop::Routed => skb.forget_route(),
    }
    maps::count_traffic(tunnel.peer, Direction::ToPeer, packets, inner_len as u64);
    let [.., a, b, c, d] = tunnel.next_hop.bytes;
    Ok(Verdict::ToNeighbour { ifindex: tunnel.uplink, next_hop: [a, b, c, d] })
}

/// Leaves the outer headers to the tunnel device.
#[inline(always)]
fn through_device(
    skb: &Skb<'_>,
    frame: &Frame,
    tunnel: &Tunnel,
    hop: Hop,
    packets: u64,
) -> Result<Verdict, DropReason> {
    let bytes = (skb.len() - L3) as u64;
    if hop == Hop::Forwarded {
        take_ttl(skb, L3, &frame.ip).map_err(|_| DropReason::EncapFailed)?;
    }
    let verdict = device::encap(skb, tunnel, frame.ip.tos)?;
    maps::count_traffic(tunnel.peer, Direction::ToPeer, packets, bytes);
    Ok(verdict)
}

/// Takes one from the TTL of the IP header at `offset`: the overlay is one hop.
#[inline(always)]
fn take_ttl(skb: &Skb<'_>, offset: usize, ip: &Ipv4Header) -> Result<(), i64> {
    let ttl = ip.ttl - 1;
    let word = |ttl: u8| u16::from_be_bytes([ttl, ip.protocol]);
    let [high, low] = checksum::update(ip.checksum.get(), word(ip.ttl), word(ttl)).to_be_bytes();
    // TTL, protocol and checksum stand next to each other: bytes 8 to 11.
    skb.store(offset + 8, &[ttl, ip.protocol, high, low])
}
