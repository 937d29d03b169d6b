//! Without a tunnel: what the containers of peers on the same link send, as it is on the wire.

use aya_ebpf::programs::TcContext;
use overlay_common::{
    DropReason,
    map::{Node, node_flag},
    packet::Packet,
    parse,
    wire::{
        EthHeader, Ipv4Header, Ipv6Header,
        eth::{ETHERTYPE_IPV4, ETHERTYPE_IPV6},
    },
};

use crate::{
    accept::Sender,
    carried::Carried,
    decap::Arrival,
    maps, mss,
    packet::{Skb, Tag},
    verdict::Verdict,
};

/// A packet that came in on an uplink with Ethernet headers and is in no tunnel.
#[inline(always)]
pub(crate) fn from_uplink(ctx: &TcContext) -> Result<Verdict, DropReason> {
    let skb = Skb::new(ctx);
    let Some(node) = maps::node().filter(|node| node.flags & node_flag::DIRECT != 0) else {
        return Ok(Verdict::Pass);
    };
    if !skb.is_for_us() || skb.untag() != Tag::None {
        return Ok(Verdict::Pass);
    }
    skb.pull(mss::LEN);
    let Some(eth) = skb.read::<EthHeader>(0) else { return Ok(Verdict::Pass) };
    match eth.ethertype {
        ETHERTYPE_IPV4 => from_container::<Ipv4Header>(&skb, node),
        ETHERTYPE_IPV6 => from_container::<Ipv6Header>(&skb, node),
        _ => Ok(Verdict::Pass),
    }
}

#[inline(always)]
fn from_container<H: Carried>(skb: &Skb<'_>, node: &Node) -> Result<Verdict, DropReason> {
    let Some(ip) = parse::outer_ip::<_, H, { parse::L3 }>(skb) else { return Ok(Verdict::Pass) };
    if H::subnet(node.vni, ip.dst()).is_none() {
        return Ok(Verdict::Pass);
    }
    // Whoever else sends to our containers, the host's firewall judges.
    let Some(route) = H::route(node.vni, ip.src()) else { return Ok(Verdict::Pass) };
    let frame = parse::frame::<_, H>(skb, skb.gso_size()).ok_or(DropReason::InnerMalformed)?;
    let arrival = Arrival::find(skb, Sender { peer: route.peer, network: node.vni }, &frame.ip)?;
    arrival.hand_over(skb, &frame.ip, frame.ip.packet_len() as u64)
}
