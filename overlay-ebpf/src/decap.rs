//! Out of the overlay: from a peer to a container or to this host. Nothing is changed before everything
//! has been checked.

use aya_ebpf::programs::TcContext;
use overlay_common::{
    Be16, DropReason,
    addr::MapIp,
    checksum, ecn,
    map::{Direction, Node, PeerKey},
    parse::{self, INNER_L3, L3, OUTER_UDP, OuterUdp, VXLAN_V4_OVERHEAD},
    template::DECAP_FLAGS,
    wire::{Ipv4Header, UdpHeader},
};

use crate::{deliver, maps, packet::Skb, verdict::Verdict};

/// A packet that came in on the uplink.
#[inline(always)]
pub(crate) fn from_uplink(ctx: &TcContext) -> Result<Verdict, DropReason> {
    let skb = Skb::new(ctx);
    let Some((outer, node)) = tunnel_packet(&skb) else { return Ok(Verdict::Pass) };
    skb.pull(INNER_L3 + Ipv4Header::LEN);
    let vni = parse::vxlan(&skb, &outer)?;
    let peer = maps::peer(PeerKey { vni, ip: MapIp::v4(outer.ip.src) })?;
    let (peer, network) = (peer.id, peer.network);
    let mut inner = parse::vxlan_inner(&skb, &outer, node.vtep_mac)?;
    // A peer speaks for its own subnets only.
    maps::route(network, inner.src).filter(|route| route.peer == peer).ok_or(DropReason::InnerSource)?;
    let tos = ecn::inner_tos(outer.ip.tos, inner.tos)?;
    let destination = deliver::find(&skb, network, inner.dst)?;

    let (packets, bytes) = (skb.wire_packets(), u64::from(inner.total_len.get()));
    skb.adjust_room(-(VXLAN_V4_OVERHEAD as i32), DECAP_FLAGS).map_err(|_| DropReason::DecapFailed)?;
    skb.outer_checksum_removed();
    if tos != inner.tos {
        set_tos(&skb, &mut inner, tos).map_err(|_| DropReason::DecapFailed)?;
    }
    let verdict = deliver::to(&skb, destination)?;
    maps::count_traffic(peer, Direction::FromPeer, packets, bytes);
    Ok(verdict)
}

/// The outer headers and this host, where the packet is addressed to one of our tunnels.
#[inline(always)]
fn tunnel_packet(skb: &Skb<'_>) -> Option<(OuterUdp, &'static Node)> {
    let uplink = maps::uplink(skb.ifindex())?;
    if !skb.is_for_us() {
        return None;
    }
    skb.pull(OUTER_UDP + UdpHeader::LEN);
    let outer = parse::outer_udp(skb)?;
    let node = maps::node()?;
    let ours =
        outer.ip.dst == uplink.addr && (node.port == outer.port() || maps::is_listen_port(outer.port()));
    ours.then_some((outer, node))
}

/// Writes the TOS byte of the inner header, now behind the Ethernet header, and its checksum.
#[inline(always)]
fn set_tos(skb: &Skb<'_>, ip: &mut Ipv4Header, tos: u8) -> Result<(), i64> {
    let word = |tos: u8| u16::from_be_bytes([ip.version_ihl, tos]);
    ip.checksum = Be16::new(checksum::update(ip.checksum.get(), word(ip.tos), word(tos)));
    ip.tos = tos;
    skb.store(L3, ip)
}
