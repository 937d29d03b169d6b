//! Without a tunnel: what the containers of peers on the same link send, as it is on the wire.

use aya_ebpf::programs::TcContext;
use overlay_common::{
    DropReason, parse,
    wire::{Ipv4Header, Ipv6Header, eth::ETHERTYPE_IPV4},
};

use crate::{accept::Sender, carried::Carried, decap::Arrival, maps, packet::Skb, verdict::Verdict};

/// A packet to one of our containers, which is in no tunnel.
#[inline(always)]
pub(crate) fn from_uplink(ctx: &TcContext) -> Result<Verdict, DropReason> {
    let skb = Skb::new(ctx);
    match skb.protocol() {
        ETHERTYPE_IPV4 => from_container::<Ipv4Header>(&skb),
        _ => from_container::<Ipv6Header>(&skb),
    }
}

#[inline(always)]
fn from_container<H: Carried>(skb: &Skb<'_>) -> Result<Verdict, DropReason> {
    let Some(node) = maps::node() else { return Ok(Verdict::Pass) };
    let Some(ip) = parse::outer_ip::<_, H, { parse::L3 }>(skb) else { return Ok(Verdict::Pass) };
    // Whoever else sends to our containers, the host's firewall judges.
    let Some(route) = H::route(node.vni, ip.src()) else { return Ok(Verdict::Pass) };
    let frame = parse::frame::<_, H>(skb, skb.gso_size()).ok_or(DropReason::InnerMalformed)?;
    let arrival = Arrival::find(skb, Sender { peer: route.peer, network: node.vni }, &frame.ip)?;
    arrival.hand_over(skb, &frame.ip, frame.ip.packet_len() as u64)
}
