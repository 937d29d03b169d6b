//! Into the overlay: from a container or from the host to a peer.

use aya_ebpf::programs::TcContext;
use overlay_common::{
    DropReason, Mac, checksum, ecn, flow,
    map::{Direction, Port, Route, TEMPLATE_BYTES, Tunnel, port_flag},
    mark,
    packet::Packet,
    parse::{self, Frame, L3, masked},
    template::Stamp,
    wire::Ipv4Header,
};

use crate::{learn, maps, packet::Skb, verdict::Verdict};

/// A packet that a container sent, seen on its bridge port or on the bridge.
#[inline(always)]
pub(crate) fn from_workload(ctx: &TcContext) -> Result<Verdict, DropReason> {
    let skb = Skb::new(ctx);
    let Some(port) = maps::port(skb.ifindex()) else { return Ok(Verdict::Pass) };
    if is_for_host(&skb, port) {
        return Ok(Verdict::Pass);
    }
    skb.pull(L3 + Ipv4Header::LEN);
    let Some(frame) = parse::ipv4_frame(&skb) else { return Ok(Verdict::Pass) };
    let owns_source = sender_owns_source(&skb, port, &frame);
    // A frame for another MAC address goes to a neighbour of the sender: a router, a VPN, a virtual IP.
    if frame.eth.dst != port.gateway_mac {
        return Ok(Verdict::Pass);
    }
    let Some(route) = maps::route(port.vni, frame.ip.dst) else { return Ok(Verdict::Pass) };
    if !owns_source {
        return Err(DropReason::SourceSpoofed);
    }
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
    skb.pull(L3 + Ipv4Header::LEN);
    let Some(frame) = parse::ipv4_frame(&skb) else { return Ok(Verdict::Pass) };
    if frame.eth.dst != Mac::OVERLAY_NEIGHBOUR {
        return Ok(Verdict::Pass);
    }
    let Some(port) = maps::port(skb.ifindex()) else { return Ok(Verdict::Pass) };
    let route: &Route = maps::route(port.vni, frame.ip.dst).ok_or(DropReason::NoRoute)?;
    // The peer believes only sources in our subnets; anything else would die there, unexplained.
    if maps::subnet(port.vni, frame.ip.src).is_none() {
        return Err(DropReason::SourceSpoofed);
    }
    let tunnel = maps::tunnel(route.tunnel)?;
    if !fits(&skb, &frame, tunnel) {
        return Err(DropReason::MtuExceeded);
    }
    // Routing has taken the TTL already from what was forwarded, and nothing is due from the host's own.
    match encap(&skb, &frame, tunnel, Hop::Routed)? {
        Verdict::Pass => Err(DropReason::EncapFailed),
        verdict => Ok(verdict),
    }
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

/// Whether the sender may use its source address. On a bridge port the endpoint table knows (and learns);
/// on the bridge itself only the subnet can be told.
#[inline(always)]
fn sender_owns_source(skb: &Skb<'_>, port: &Port, frame: &Frame) -> bool {
    if masked(frame.ip.src, port.mask) != port.subnet {
        return false;
    }
    port.flags & port_flag::BRIDGE != 0 || learn::sender(skb, port, frame)
}

/// Whether the fast path takes a packet. What it declines goes to the kernel, which routes it to the
/// bridge, where `bridge_egress` encapsulates it: with fragments, options, an expiring TTL or an oversize
/// packet the kernel knows what to do and whom to tell.
#[inline(always)]
fn fast_path_takes(skb: &Skb<'_>, frame: &Frame, tunnel: &Tunnel) -> bool {
    frame.ip.version_ihl == Ipv4Header::VERSION_IHL
        && !frame.ip.is_fragment()
        && frame.ip.ttl > 1
        && fits(skb, frame, tunnel)
}

/// Whether every packet on the wire stays within the tunnel's MTU, and the aggregate's outer length within
/// the 16 bits of an IP header.
#[inline(always)]
fn fits(skb: &Skb<'_>, frame: &Frame, tunnel: &Tunnel) -> bool {
    let gso_size = skb.gso_size();
    if gso_size != 0 {
        // The transport header tells a segment's size.
        skb.pull(L3 + Ipv4Header::LEN + 20);
    }
    let outer_len = skb.len() - L3 + tunnel.template_len as usize - L3;
    parse::wire_ip_len(skb, frame, gso_size).is_some_and(|len| len <= tunnel.mtu) && outer_len <= 0xffff
}

/// Whether this packet still owes the overlay hop its TTL.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hop {
    Forwarded,
    Routed,
}

/// Puts the outer headers in front. A refusal by the kernel comes before anything has changed, and the
/// packet is passed on untouched.
#[inline(always)]
fn encap(skb: &Skb<'_>, frame: &Frame, tunnel: &Tunnel, hop: Hop) -> Result<Verdict, DropReason> {
    let inner_len = skb.len() - L3;
    let stamp = Stamp {
        inner_len: inner_len as u16,
        tos: ecn::outer_tos(frame.ip.tos),
        source_port: flow::source_port(skb.flow_hash()),
    };
    let packets = skb.wire_packets();
    let template_len = tunnel.template_len as usize;
    let mut headers: [u8; TEMPLATE_BYTES] = tunnel.template;
    stamp.apply(&mut headers, template_len, tunnel.checksum);
    if skb.adjust_room(template_len as i32 - L3 as i32, tunnel.room_flags).is_err() {
        return Ok(Verdict::Pass);
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

/// Takes one from the TTL of the IP header at `offset`: the overlay is one hop.
#[inline(always)]
fn take_ttl(skb: &Skb<'_>, offset: usize, ip: &Ipv4Header) -> Result<(), i64> {
    let ttl = ip.ttl - 1;
    let word = |ttl: u8| u16::from_be_bytes([ttl, ip.protocol]);
    let [high, low] = checksum::update(ip.checksum.get(), word(ip.ttl), word(ttl)).to_be_bytes();
    // TTL, protocol and checksum stand next to each other: bytes 8 to 11.
    skb.store(offset + 8, &[ttl, ip.protocol, high, low])
}
