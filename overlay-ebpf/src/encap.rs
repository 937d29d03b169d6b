//! Into the overlay: from a container or from the host to a peer.

use aya_ebpf::programs::TcContext;
use overlay_common::{
    DropReason, Mac, flow,
    map::{Direction, Port, TemplateBytes, Tunnel, port_flag, tunnel_flag},
    mark,
    packet::Packet,
    parse::{self, Carrier, Frame, L3},
    template::{self, Stamp},
    wire::{
        EthHeader, Ipv4Header, Ipv6Header,
        eth::{ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6},
    },
};

use crate::{
    carried::Carried,
    device,
    flows::Egress,
    learn, local, maps, mss, neighbours,
    packet::{Skb, Tag},
    verdict::Verdict,
};

/// A packet that a container sent, seen on its bridge port or on the bridge.
#[inline(always)]
pub(crate) fn from_workload(ctx: &TcContext) -> Result<Verdict, DropReason> {
    let skb = Skb::new(ctx);
    skb.pull(mss::LEN);
    let Some(eth) = skb.read::<EthHeader>(0) else { return Ok(Verdict::Pass) };
    match eth.ethertype {
        ETHERTYPE_IPV4 => from_sender::<Ipv4Header>(&skb, &eth),
        ETHERTYPE_IPV6 => from_sender::<Ipv6Header>(&skb, &eth),
        ETHERTYPE_ARP => match admit(&skb, &eth)? {
            Some(port) => refuse_gateway_claim::<Ipv4Header>(&skb, port).map(|()| Verdict::Pass),
            None => Ok(Verdict::Pass),
        },
        _ => admit(&skb, &eth).map(|_| Verdict::Pass),
    }
}

/// The port that a frame came in on, where the frame is a container's and may be for the overlay.
#[inline(always)]
fn admit(skb: &Skb<'_>, eth: &EthHeader) -> Result<Option<&'static Port>, DropReason> {
    let Some(port) = maps::port(skb.ifindex()) else { return Ok(None) };
    if is_for_host(skb, port) {
        return Ok(None);
    }
    match skb.untag() {
        Tag::None => {}
        // It is for a VLAN of the bridge; the tag would go out on the uplink with it.
        Tag::Vlan => return Ok(None),
        // The kernel takes off any number of them, and routes what is behind.
        Tag::Priority => return Err(DropReason::VlanStacked),
    }
    // No container is the bridge.
    if eth.src == port.gateway_mac { Err(DropReason::GatewayClaimed) } else { Ok(Some(port)) }
}

#[inline(always)]
fn from_sender<H: Carried>(skb: &Skb<'_>, eth: &EthHeader) -> Result<Verdict, DropReason> {
    let Some(frame) = parse::frame::<_, H>(skb, skb.gso_size()) else {
        let Some(port) = admit(skb, eth)? else { return Ok(Verdict::Pass) };
        return refuse_claim_within::<H>(skb, port).map(|()| Verdict::Pass);
    };
    let flow = Egress::new(skb.ifindex(), eth, H::words(frame.ip.src()), H::words(frame.ip.dst()));
    // A tag, or a claim to be the gateway, is not the flow's but the packet's.
    let id = match flow.tunnel() {
        Some(id) if skb.tag() == Tag::None && !frame.ip.is_on_link() => id,
        _ => {
            let Some(port) = admit(skb, eth)? else { return Ok(Verdict::Pass) };
            refuse_claim_within::<H>(skb, port)?;
            // A frame for another MAC address goes to a neighbour of the sender: a container, a router, a VPN.
            let sender = judge_sender(skb, port, &frame);
            if eth.dst != port.gateway_mac {
                return Ok(local::deliver(skb, port, &frame, sender.is_ok()));
            }
            let Some(route) = H::route(port.vni, frame.ip.dst()) else {
                return refuse_forged_tunnel(skb, &frame).map(|()| Verdict::Pass);
            };
            sender?;
            flow.keep(route.tunnel);
            route.tunnel
        }
    };
    let tunnel = maps::tunnel(id)?;
    if !fast_path_takes(skb, &frame, tunnel) {
        return Ok(Verdict::Pass);
    }
    encap(skb, &frame, tunnel, Way::Forwarded)
}

/// A packet that the kernel routed to a peer's subnet: the host's own, or one the fast path left to it.
#[inline(always)]
pub(crate) fn from_host(ctx: &TcContext) -> Result<Verdict, DropReason> {
    let skb = Skb::new(ctx);
    skb.pull(mss::LEN);
    let Some(eth) = skb.read::<EthHeader>(0) else { return Ok(Verdict::Pass) };
    if eth.dst != Mac::OVERLAY_NEIGHBOUR {
        return Ok(Verdict::Pass);
    }
    let Some(port) = maps::port(skb.ifindex()) else { return Ok(Verdict::Pass) };
    match eth.ethertype {
        ETHERTYPE_IPV4 => from_kernel::<Ipv4Header>(&skb, port),
        ETHERTYPE_IPV6 => from_kernel::<Ipv6Header>(&skb, port),
        _ => Ok(Verdict::Pass),
    }
}

#[inline(always)]
fn from_kernel<H: Carried>(skb: &Skb<'_>, port: &Port) -> Result<Verdict, DropReason> {
    // Nobody else has the neighbour's MAC address: what is passed on would vanish in the bridge.
    let frame = parse::frame::<_, H>(skb, skb.gso_size()).ok_or(DropReason::InnerMalformed)?;
    let route = H::route(port.vni, frame.ip.dst()).ok_or(DropReason::NoRoute)?;
    // The peer believes only sources in our subnets; anything else would die there, unexplained.
    if H::subnet(port.vni, frame.ip.src()).is_none() {
        return Err(DropReason::SourceSpoofed);
    }
    let tunnel = maps::tunnel(route.tunnel)?;
    // What cannot be measured here, an aggregate in a nested tunnel say, the kernel has measured against the
    // route's MTU.
    if wire_len(skb, &frame).is_some_and(|len| len > tunnel.mtu) {
        return Err(DropReason::MtuExceeded);
    }
    // Routing has taken the TTL already from what was forwarded, and nothing is due from the host's own.
    encap(skb, &frame, tunnel, Way::Routed)
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

/// Refuses who says by ARP or neighbour discovery that it is the bridge.
#[inline(always)]
fn refuse_gateway_claim<H: Carried>(skb: &Skb<'_>, port: &Port) -> Result<(), DropReason> {
    match H::claimed(skb)? {
        Some(addr) if H::is_gateway(port, addr) => Err(DropReason::GatewayClaimed),
        _ => Ok(()),
    }
}

/// The same for packets of a version that carries its own neighbour discovery. IPv4 has ARP.
#[inline(always)]
fn refuse_claim_within<H: Carried>(skb: &Skb<'_>, port: &Port) -> Result<(), DropReason> {
    if H::ETHERTYPE == ETHERTYPE_IPV6 { refuse_gateway_claim::<H>(skb, port) } else { Ok(()) }
}

/// Refuses tunnel packets that a container makes itself for a peer's host. The host's own NAT would let them leave
/// with this host's address, and the peer would believe what is in them. To containers of a peer they are
/// packets like any other.
#[inline(always)]
fn refuse_forged_tunnel<H: Carried>(skb: &Skb<'_>, frame: &Frame<H>) -> Result<(), DropReason> {
    let host = H::map_ip(frame.ip.dst());
    match parse::carrier(skb, &frame.ip) {
        Ok(Carrier::Udp(port)) if maps::is_peers_tunnel(host, port) => Err(DropReason::TunnelForged),
        Ok(Carrier::Tunnel) if maps::is_peers_host(host) => Err(DropReason::TunnelForged),
        Err(reason) if maps::is_peers_host(host) => Err(reason),
        _ => Ok(()),
    }
}

/// Whether the sender may use its source address. On a bridge port the endpoint table knows (and learns);
/// on the bridge itself only the subnet can be told.
#[inline(always)]
fn judge_sender<H: Carried>(skb: &Skb<'_>, port: &Port, frame: &Frame<H>) -> Result<(), DropReason> {
    let src = frame.ip.src();
    if !H::is_in_subnet(port, src) {
        return Err(DropReason::SourceSpoofed);
    }
    if H::is_gateway(port, src) {
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
fn fast_path_takes<H: Carried>(skb: &Skb<'_>, frame: &Frame<H>, tunnel: &Tunnel) -> bool {
    frame.ip.is_plain() && frame.ip.ttl() > 1 && wire_len(skb, frame).is_some_and(|len| len <= tunnel.mtu)
}

/// The size of the inner IP packets on the wire; `None` where that cannot be told.
#[inline(always)]
fn wire_len<H: Carried>(skb: &Skb<'_>, frame: &Frame<H>) -> Option<u32> {
    parse::wire_ip_len(skb, frame, skb.gso_size())
}

/// How a packet came here, and so whether it still owes the overlay a hop.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Forwarded,
    Routed,
}

/// Puts the outer headers in front. A refusal by the kernel comes before they are there: then the kernel routes
/// the packet, and what comes back from there refused again goes through the tunnel device.
#[inline(always)]
fn encap<H: Carried>(
    skb: &Skb<'_>,
    frame: &Frame<H>,
    tunnel: &Tunnel,
    way: Way,
) -> Result<Verdict, DropReason> {
    let inner_len = skb.len() - L3;
    let packets = skb.wire_packets();
    let template_len = tunnel.template_len as usize;
    if mss::is_syn(skb, &frame.ip) {
        mss::clamp::<H>(skb, tunnel.mtu);
    }
    if !template::is_tunnel(template_len) {
        return straight(skb, frame, tunnel, way, packets);
    }
    // RFC 6040 section 4.1, normal mode: the outer header has the inner one's ECN bits, CE included.
    let tos = frame.ip.tos();
    let outer_len = inner_len + template_len - L3;
    if outer_len > 0xffff || tunnel.flags & tunnel_flag::UDP_CHECKSUM != 0 {
        return through_device(skb, frame, tunnel, way, packets);
    }
    let hash = skb.flow_hash();
    let stamp = Stamp { inner_len: inner_len as u16, tos, source_port: flow::source_port(hash) };
    let mut headers: TemplateBytes = tunnel.template;
    stamp.apply(&mut headers.bytes, template_len, tunnel.flags, tunnel.checksum);
    if tunnel.flags & tunnel_flag::LEARN != 0 {
        let mac = neighbours::of(tunnel, H::map_ip(frame.ip.dst()));
        template::put_inner_dst(&mut headers, template_len, mac);
    }
    if skb.adjust_room(template_len as i32 - L3 as i32, tunnel.room_flags).is_err() {
        return match way {
            Way::Forwarded => Ok(Verdict::Pass),
            Way::Routed => through_device(skb, frame, tunnel, way, packets),
        };
    }
    let mut len = tunnel.template_len;
    if way == Way::Forwarded {
        template::put_inner(&mut headers, template_len, &frame.ip.one_hop_less());
        len += size_of::<H::Start>() as u32;
    }
    skb.store_headers(&headers, len).map_err(|_| DropReason::EncapFailed)?;
    if way == Way::Routed {
        skb.forget_route();
    }
    Ok(leave(tunnel, hash, packets, inner_len as u64))
}

/// Counts a packet that is ready for the wire, and sends it the way of its flow.
#[inline(always)]
fn leave(tunnel: &Tunnel, hash: u32, packets: u64, bytes: u64) -> Verdict {
    maps::count_traffic(tunnel.peer, Direction::ToPeer, packets, bytes);
    let hop = &tunnel.hops[flow::hop(hash)];
    Verdict::ToNeighbour { ifindex: hop.uplink, next_hop: hop.next_hop.words() }
}

/// Sends a packet to a peer on the same link as it is. The MAC addresses are the kernel's to write.
#[inline(always)]
fn straight<H: Carried>(
    skb: &Skb<'_>,
    frame: &Frame<H>,
    tunnel: &Tunnel,
    way: Way,
    packets: u64,
) -> Result<Verdict, DropReason> {
    match way {
        Way::Forwarded => {
            skb.store(L3, &frame.ip.one_hop_less()).map_err(|_| DropReason::EncapFailed)?;
        }
        Way::Routed => skb.forget_route(),
    }
    Ok(leave(tunnel, skb.flow_hash(), packets, (skb.len() - L3) as u64))
}

/// Leaves the outer headers to the tunnel device.
#[inline(always)]
fn through_device<H: Carried>(
    skb: &Skb<'_>,
    frame: &Frame<H>,
    tunnel: &Tunnel,
    way: Way,
    packets: u64,
) -> Result<Verdict, DropReason> {
    let bytes = (skb.len() - L3) as u64;
    if way == Way::Forwarded {
        skb.store(L3, &frame.ip.one_hop_less()).map_err(|_| DropReason::EncapFailed)?;
    }
    let verdict = device::encap(skb, tunnel, frame.ip.tos())?;
    maps::count_traffic(tunnel.peer, Direction::ToPeer, packets, bytes);
    Ok(verdict)
}
