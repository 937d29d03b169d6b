//! The tunnel device, the kernel's own VXLAN: what `bpf_skb_adjust_room` refuses goes through it.

use overlay_common::{
    DropReason,
    map::Tunnel,
    template::{self, OUTER_TTL},
};

use crate::{maps, packet::Skb, verdict::Verdict};

/// Has the tunnel device encapsulate a packet. It cuts aggregates up before, so that nested tunnels and
/// aggregates whose outer length no header could hold get through.
///
/// # Errors
/// [`DropReason::EncapFailed`] where there is no such device for the tunnel's port, or the packet cannot be
/// written.
#[inline(always)]
pub(crate) fn encap(skb: &Skb<'_>, tunnel: &Tunnel, tos: u8) -> Result<Verdict, DropReason> {
    let device = maps::tunnel_device(tunnel.port).filter(|device| device.ifindex != 0);
    let ifindex = device.ok_or(DropReason::EncapFailed)?.ifindex;
    let eth = template::inner_eth(&tunnel.template, tunnel.template_len as usize, tunnel.flags);
    skb.store(0, &eth.ok_or(DropReason::EncapFailed)?).map_err(|_| DropReason::EncapFailed)?;
    skb.set_tunnel_key(tunnel, tos, OUTER_TTL).map_err(|_| DropReason::EncapFailed)?;
    Ok(Verdict::ToPort { ifindex })
}
