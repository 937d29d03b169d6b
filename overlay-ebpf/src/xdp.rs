//! Decapsulation in XDP, before the driver's GRO, which then merges the inner TCP segments. Checks what
//! `uplink_ingress` would, strips what it would take, and leaves the rest to it: metadata in front of the packet tell
//! it which is which. Not even a refusal needs an skb then.

use aya_ebpf::programs::XdpContext;
use overlay_common::{
    DropReason,
    handover::Record,
    map::{Decap, DecapState, MAX_PROBES, Node, Uplink},
    packet::Packet,
    parse::{self, Inner, L3, OuterUdp, vxlan_overhead},
    wire::{
        EthHeader, IpHeader, Ipv4Header, Ipv6Header,
        eth::{ETHERTYPE_IPV4, ETHERTYPE_IPV6},
    },
};

use crate::{
    accept::{self, Outer},
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
    let Some(eth) = packet.read::<EthHeader>(0).filter(|eth| eth.dst == mac) else { return Ok(()) };
    let Some(uplink) = maps::uplink(packet.uplink()) else { return Ok(()) };
    match eth.ethertype {
        ETHERTYPE_IPV4 => strip_from::<Ipv4Header>(packet, uplink, token, eth),
        ETHERTYPE_IPV6 => strip_from::<Ipv6Header>(packet, uplink, token, eth),
        _ => Ok(()),
    }
}

#[inline(always)]
fn strip_from<O: Outer>(
    packet: &XdpPacket<'_>,
    uplink: &Uplink,
    token: [u32; 2],
    eth: EthHeader,
) -> Result<(), DropReason> {
    let Some((outer, node)) = tunnel_packet::<O>(packet, uplink).filter(|(outer, _)| outer.is_plain()) else {
        return Ok(());
    };
    let Some(accepted) = accept::plain(packet, &outer, node)? else { return Ok(()) };
    // Somebody else's metadata, or no room for ours: `uplink_ingress` decapsulates it.
    if packet.has_metadata() || packet.make_metadata(Record::LEN).is_err() {
        return Ok(());
    }
    // What stands in the metadata by now may be an older record: from here on there is no way back.
    let failed = |_| DropReason::DecapFailed;
    packet.cut_front(vxlan_overhead::<O>()).map_err(failed)?;
    let sender = accepted.sender;
    match accepted.inner {
        Inner::V4(inner) => rewrite(packet, eth, inner, accepted.tos),
        Inner::V6(inner) => rewrite(packet, eth, inner, accepted.tos),
    }
    .map_err(failed)?;
    packet.write_metadata(&Record::new(token, sender.peer, sender.network)).map_err(failed)
}

/// Gives what is left a link-layer header again. The addresses are those of the outer one: without the uplink's the
/// frame would count as another host's (PACKET_OTHERHOST).
#[inline(always)]
fn rewrite<H: IpHeader>(packet: &XdpPacket<'_>, eth: EthHeader, mut inner: H, tos: u8) -> Result<(), i64> {
    packet.write(0, &EthHeader { ethertype: H::ETHERTYPE, ..eth })?;
    if tos != inner.tos() {
        inner.set_tos(tos);
        packet.write(L3, &inner)?;
    }
    Ok(())
}

/// The outer headers and this host, where the packet is addressed to one of our tunnels.
#[inline(always)]
fn tunnel_packet<O: Outer>(
    packet: &XdpPacket<'_>,
    uplink: &Uplink,
) -> Option<(OuterUdp<O, L3>, &'static Node)> {
    let ip = parse::outer_ip::<_, O, L3>(packet).filter(|ip| ip.dst() == O::own(uplink))?;
    accept::tunnel(packet, ip)
}
