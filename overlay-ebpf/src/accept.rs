//! What is accepted from the underlay: the checks that both places to decapsulate share. Nothing here changes a
//! packet.

use overlay_common::{
    Be16, DropReason,
    addr::MapIp,
    ecn,
    map::{Node, PeerKey, Uplink},
    packet::Packet,
    parse::{self, Inner, OuterUdp},
    path_mtu::PathMtuIp,
    vni::VniKey,
    wire::{Ipv4Header, Ipv6Header},
};

use crate::{carried::Carried, maps};

/// An IP version of the underlay.
pub(crate) trait Outer: PathMtuIp {
    /// Our own address, to which peers send.
    fn own(uplink: &Uplink) -> Self::Addr;
}

impl Outer for Ipv4Header {
    #[inline(always)]
    fn own(uplink: &Uplink) -> [u8; 4] {
        uplink.v4
    }
}

impl Outer for Ipv6Header {
    #[inline(always)]
    fn own(uplink: &Uplink) -> [u8; 16] {
        uplink.v6
    }
}

/// Who sent a tunnel packet.
#[derive(Clone, Copy)]
pub(crate) struct Sender {
    pub(crate) peer: u32,
    pub(crate) network: VniKey,
}

impl Sender {
    /// Finds the peer that sends with a VNI from an address. `None` for what another owner of the port may know.
    #[inline(always)]
    pub(crate) fn find(vni: VniKey, ip: MapIp, port: Be16, node: &Node) -> Result<Option<Self>, DropReason> {
        match maps::peer(PeerKey { vni, ip }) {
            Ok(peer) => Ok(Some(Self { peer: peer.id, network: peer.network })),
            Err(_) if vni != node.vni && maps::port_is_shared(port) => Ok(None),
            Err(reason) => Err(reason),
        }
    }

    /// Judges an inner packet: a peer speaks for its own subnets only. Returns the TOS byte that the inner header
    /// is to have.
    #[inline(always)]
    pub(crate) fn may_send(&self, inner: &Inner, outer_tos: u8) -> Result<u8, DropReason> {
        match inner {
            Inner::V4(inner) => self.may_send_ip(inner, outer_tos),
            Inner::V6(inner) => self.may_send_ip(inner, outer_tos),
        }
    }

    /// As [`Self::may_send`].
    #[inline(always)]
    pub(crate) fn may_send_ip<H: Carried>(&self, inner: &H, outer_tos: u8) -> Result<u8, DropReason> {
        let src = inner.src();
        if H::is_martian_source(src) || H::is_martian_destination(inner.dst()) {
            return Err(DropReason::InnerMartian);
        }
        H::route(self.network, src).filter(|route| route.peer == self.peer).ok_or(DropReason::InnerSource)?;
        ecn::inner_tos(outer_tos, inner.tos())
    }
}

/// A tunnel packet that may come in.
pub(crate) struct Accepted {
    pub(crate) sender: Sender,
    /// The inner header as it came.
    pub(crate) inner: Inner,
    /// The TOS byte that it is to have.
    pub(crate) tos: u8,
}

/// The UDP header of a packet to one of our tunnels.
#[inline(always)]
pub(crate) fn tunnel<P: Packet, O: Outer, const LINK: usize>(
    packet: &P,
    ip: O,
) -> Option<(OuterUdp<O, LINK>, &'static Node)> {
    let outer = parse::outer_udp(packet, ip)?;
    let node = maps::node()?;
    maps::is_vxlan_port(node, outer.port()).then_some((outer, node))
}

/// The VNI of a tunnel packet without fragments and IP options. `None` for what another owner of the port may know.
#[inline(always)]
pub(crate) fn vni<P: Packet, O: Outer, const LINK: usize>(
    packet: &P,
    outer: &OuterUdp<O, LINK>,
) -> Result<Option<VniKey>, DropReason> {
    match parse::vxlan(packet, outer) {
        Err(DropReason::VxlanFlags) if maps::port_is_shared(outer.port()) => Ok(None),
        vni => vni.map(Some),
    }
}

/// Judges a tunnel packet without fragments and IP options. `None` for what resolves an address, and for what another owner of the port may
/// know.
#[inline(always)]
pub(crate) fn plain<P: Packet, O: Outer, const LINK: usize>(
    packet: &P,
    outer: &OuterUdp<O, LINK>,
    node: &Node,
) -> Result<Option<Accepted>, DropReason> {
    let Some(vni) = vni(packet, outer)? else { return Ok(None) };
    let src = O::map_ip(outer.ip.src());
    let Some(sender) = Sender::find(vni, src, outer.port(), node)? else { return Ok(None) };
    let judged = parse::vxlan_inner(packet, outer, node.vtep_mac)
        .and_then(|inner| sender.may_send(&inner, outer.ip.tos()).map(|tos| Accepted { sender, inner, tos }));
    match judged {
        // `uplink_resolve` takes it.
        Err(reason) if parse::resolves_after_all(packet, OuterUdp::<O, LINK>::INNER_ETH, reason) => Ok(None),
        judged => judged.map(Some),
    }
}
