//! What is accepted from the underlay: the checks that both places to decapsulate share. Nothing here changes a
//! packet.

use overlay_common::{
    Be16, DropReason,
    addr::MapIp,
    checksum, ecn,
    map::{Node, PeerKey},
    packet::Packet,
    parse::{self, OuterUdp},
    vni::VniKey,
    wire::{Ipv4Header, ipv4},
};

use crate::maps;

/// Who sent a tunnel packet.
#[derive(Clone, Copy)]
pub(crate) struct Sender {
    pub(crate) peer: u32,
    pub(crate) network: VniKey,
}

impl Sender {
    /// Finds the peer that sends with a VNI from an address. `None` for what another owner of the port may know.
    #[inline(always)]
    pub(crate) fn find(
        vni: VniKey,
        addr: [u8; 4],
        port: Be16,
        node: &Node,
    ) -> Result<Option<Self>, DropReason> {
        match maps::peer(PeerKey { vni, ip: MapIp::v4(addr) }) {
            Ok(peer) => Ok(Some(Self { peer: peer.id, network: peer.network })),
            Err(_) if vni != node.vni && maps::port_is_shared(port) => Ok(None),
            Err(reason) => Err(reason),
        }
    }

    /// Judges an inner packet: a peer speaks for its own subnets only. Returns the TOS byte that the inner header
    /// is to have.
    #[inline(always)]
    pub(crate) fn may_send(&self, inner: &Ipv4Header, outer_tos: u8) -> Result<u8, DropReason> {
        if ipv4::is_martian_source(inner.src) || ipv4::is_martian_destination(inner.dst) {
            return Err(DropReason::InnerMartian);
        }
        maps::route(self.network, inner.src)
            .filter(|route| route.peer == self.peer)
            .ok_or(DropReason::InnerSource)?;
        ecn::inner_tos(outer_tos, inner.tos)
    }
}

/// A tunnel packet that may come in.
pub(crate) struct Accepted {
    pub(crate) sender: Sender,
    /// The inner header as it came.
    pub(crate) inner: Ipv4Header,
    /// The TOS byte that it is to have.
    pub(crate) tos: u8,
}

/// The UDP header of a packet to one of our tunnels.
#[inline(always)]
pub(crate) fn tunnel<P: Packet>(packet: &P, ip: Ipv4Header) -> Option<(OuterUdp, &'static Node)> {
    let outer = parse::outer_udp(packet, ip)?;
    let node = maps::node()?;
    maps::is_tunnel_port(node, outer.port()).then_some((outer, node))
}

/// Judges a tunnel packet without fragments and IP options. `None` for what another owner of the port may know.
#[inline(always)]
pub(crate) fn plain<P: Packet>(
    packet: &P,
    outer: &OuterUdp,
    node: &Node,
) -> Result<Option<Accepted>, DropReason> {
    let vni = match parse::vxlan(packet, outer) {
        Err(DropReason::VxlanFlags) if maps::port_is_shared(outer.port()) => return Ok(None),
        vni => vni?,
    };
    let Some(sender) = Sender::find(vni, outer.ip.src, outer.port(), node)? else { return Ok(None) };
    let inner = parse::vxlan_inner(packet, outer, node.vtep_mac)?;
    let tos = sender.may_send(&inner, outer.ip.tos)?;
    Ok(Some(Accepted { sender, inner, tos }))
}

/// Gives a header another TOS byte, and the checksum to go with it.
#[inline(always)]
pub(crate) fn remark(ip: &mut Ipv4Header, tos: u8) {
    let word = |tos: u8| u16::from_be_bytes([ip.version_ihl, tos]);
    ip.checksum = Be16::new(checksum::update(ip.checksum.get(), word(ip.tos), word(tos)));
    ip.tos = tos;
}
