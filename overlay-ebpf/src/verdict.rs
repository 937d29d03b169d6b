//! From decisions to actions: what becomes of a packet, and the count of what was dropped.

use aya_ebpf::{
    bindings::{BPF_F_INGRESS, bpf_redir_neigh, bpf_redir_neigh__bindgen_ty_1, xdp_action},
    helpers,
    programs::{TcContext, XdpContext},
};
use overlay_common::{DropReason, addr::MapIp};

use crate::{maps, packet::Skb, sample, xdp_packet::XdpPacket};

/// `TCX_NEXT`: the next program, then the stack, as if we had not been here. clsact knows it as
/// `TC_ACT_UNSPEC`.
const NEXT: i32 = -1;
/// `TCX_DROP`.
const DROP: i32 = 2;
/// `AF_INET`.
const AF_INET: u32 = 2;
/// `AF_INET6`.
const AF_INET6: u32 = 10;

/// A neighbour's address, as [`MapIp::words`]: the compiler would take bytes apart.
pub(crate) type NextHop = [u32; 4];

/// What becomes of a packet.
#[must_use]
#[derive(Clone, Copy)]
pub(crate) enum Verdict {
    /// Not ours, or better handled by the kernel.
    Pass,
    /// Out of `ifindex` to the neighbour with this address, whose MAC the kernel knows or asks for.
    ToNeighbour { ifindex: u32, next_hop: NextHop },
    /// Straight into the namespace at the other end of a veth.
    ToPeer { ifindex: u32 },
    /// Out of a bridge port or a tunnel device.
    ToPort { ifindex: u32 },
    /// Nowhere: it was for this host, and is done with.
    Taken,
    /// Up into this host's stack, as if it had come in on the bridge.
    ToHost { bridge: u32 },
}

/// The programs, by their position in [`overlay_common::map::program::ALL`].
#[derive(Clone, Copy)]
#[repr(u32)]
pub(crate) enum Program {
    WorkloadEgress = 0,
    BridgeEgress = 1,
    UplinkIngress = 2,
    TunnelIngress = 3,
    UplinkDecap = 4,
    UplinkL3 = 5,
    UplinkKinds = 6,
    UplinkResolve = 7,
}

/// Carries a decision out; the program's return value.
#[inline(always)]
pub(crate) fn act(ctx: &TcContext, program: Program, decision: Result<Verdict, DropReason>) -> i32 {
    match decision {
        Ok(Verdict::Pass) => NEXT,
        Ok(Verdict::Taken) => DROP,
        Ok(Verdict::ToNeighbour { ifindex, next_hop }) => to_neighbour(ifindex, next_hop),
        // SAFETY: the helper takes plain numbers.
        Ok(Verdict::ToPeer { ifindex }) => unsafe { helpers::bpf_redirect_peer(ifindex, 0) as i32 },
        // SAFETY: the helper takes plain numbers.
        Ok(Verdict::ToPort { ifindex }) => unsafe { helpers::bpf_redirect(ifindex, 0) as i32 },
        Ok(Verdict::ToHost { bridge }) => {
            // SAFETY: the helper takes plain numbers.
            unsafe { helpers::bpf_redirect(bridge, u64::from(BPF_F_INGRESS)) as i32 }
        }
        Err(reason) => {
            maps::count_drop(reason);
            sample::take(&Skb::new(ctx), program, reason);
            DROP
        }
    }
}

#[inline(always)]
fn to_neighbour(ifindex: u32, next_hop: NextHop) -> i32 {
    let mut params = bpf_redir_neigh {
        nh_family: AF_INET6,
        __bindgen_anon_1: bpf_redir_neigh__bindgen_ty_1 { ipv6_nh: next_hop },
    };
    if MapIp::is_v4_words(next_hop) {
        params.nh_family = AF_INET;
        params.__bindgen_anon_1.ipv4_nh = next_hop[3];
    }
    // SAFETY: `params` is initialised whole and outlives the call.
    let action = unsafe {
        helpers::bpf_redirect_neigh(ifindex, &raw mut params, size_of::<bpf_redir_neigh>() as i32, 0)
    };
    action as i32
}

/// Carries a decision of the XDP hook out; the program's return value.
#[inline(always)]
pub(crate) fn act_xdp(ctx: &XdpContext, program: Program, decision: Result<(), DropReason>) -> u32 {
    match decision {
        Ok(()) => xdp_action::XDP_PASS,
        Err(reason) => {
            maps::count_drop(reason);
            sample::take(&XdpPacket::new(ctx), program, reason);
            xdp_action::XDP_DROP
        }
    }
}
