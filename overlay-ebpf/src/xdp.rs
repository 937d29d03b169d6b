//! Decapsulation in XDP, before the driver's GRO, which then merges the inner TCP segments. Checks what
//! `uplink_ingress` would, strips what it would take, and leaves the rest to it: metadata in front of the packet tell
//! it which is which. Not even a refusal needs an skb then.

use aya_ebpf::programs::XdpContext;
use overlay_common::{
    DropReason,
    handover::Record,
    map::{Decap, DecapState, MAX_PROBES, Node},
    packet::Packet,
    parse::{self, L3, OuterUdp, VXLAN_V4_OVERHEAD},
    wire::{EthHeader, eth::ETHERTYPE_IPV4},
};

use crate::{
    accept::{self, Accepted},
    maps,
    xdp_packet::XdpPacket,
};

/// A packet that came in on the uplink. `Ok` passes it on, stripped or as it came.
#[inline(always)]
pub(crate) fn from_uplink(ctx: &XdpContext) -> Result<(), DropReason> {
    let packet = XdpPacket::new(ctx);
    let Some(decap) = maps::decap_mut(packet.uplink()) else { return Ok(()) };
    // SAFETY: the entry stays allocated; a torn read is at worst one packet that `uplink_ingress` decapsulates, or
    // does not believe.
    match DecapState::from_number(unsafe { (*decap).state }) {
        DecapState::Trial => probe(&packet, decap),
        DecapState::Xdp => strip(&packet, decap)?,
        DecapState::Tc | DecapState::Draining => {}
    }
    Ok(())
}

/// Sends a probe along with a packet. Counts may lose one where two CPUs write at once: they are compared
/// with zero and with a limit, no more.
#[inline(always)]
fn probe(packet: &XdpPacket<'_>, decap: *mut Decap) {
    // SAFETY: as in `from_uplink`.
    let (probes, token) = unsafe { ((*decap).probes, (*decap).token) };
    if probes >= MAX_PROBES || packet.has_metadata() {
        return;
    }
    if packet.make_metadata(Record::LEN).is_err() {
        // SAFETY: as in `from_uplink`.
        unsafe { (*decap).refused = (*decap).refused.wrapping_add(1) };
    } else if packet.write_metadata(&Record::probe(token)).is_ok() {
        // SAFETY: as in `from_uplink`.
        unsafe { (*decap).probes = probes + 1 };
    }
}

/// Strips a tunnel packet. Every check comes first, and so does the step that a driver may refuse.
#[inline(always)]
fn strip(packet: &XdpPacket<'_>, decap: *mut Decap) -> Result<(), DropReason> {
    // SAFETY: as in `from_uplink`.
    let (token, mac) = unsafe { ((*decap).token, (*decap).mac) };
    let Some((eth, outer, node)) = tunnel_packet(packet) else { return Ok(()) };
    if eth.dst != mac || !outer.is_plain() {
        return Ok(());
    }
    let Some(Accepted { sender, mut inner, tos }) = accept::plain(packet, &outer, node)? else {
        return Ok(());
    };
    // Somebody else's metadata, or no room for ours: `uplink_ingress` decapsulates it.
    if packet.has_metadata() || packet.make_metadata(Record::LEN).is_err() {
        return Ok(());
    }
    // What stands in the metadata by now may be an older record: from here on there is no way back.
    let failed = |_| DropReason::DecapFailed;
    packet.cut_front(VXLAN_V4_OVERHEAD as usize).map_err(failed)?;
    // The address is the uplink's, or the frame would count as another host's (PACKET_OTHERHOST).
    let eth = EthHeader { dst: mac, src: eth.src, ethertype: ETHERTYPE_IPV4 };
    packet.write(0, &eth).map_err(failed)?;
    if tos != inner.tos {
        accept::remark(&mut inner, tos);
        packet.write(L3, &inner).map_err(failed)?;
    }
    packet.write_metadata(&Record::new(token, sender.peer, sender.network)).map_err(failed)
}

/// The outer headers and this host, where the packet is addressed to one of our tunnels.
#[inline(always)]
fn tunnel_packet(packet: &XdpPacket<'_>) -> Option<(EthHeader, OuterUdp, &'static Node)> {
    let uplink = maps::uplink(packet.uplink())?;
    let ip = parse::outer_ipv4(packet).filter(|ip| ip.dst == uplink.addr)?;
    let (outer, node) = accept::tunnel(packet, ip)?;
    Some((packet.read(0)?, outer, node))
}
