//! The programs' entry points, in the order in which a packet meets them on its way from a container on
//! one host to a container on another. Everything else decides; only these functions act.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
mod accept;
#[cfg(target_arch = "bpf")]
mod carried;
#[cfg(target_arch = "bpf")]
mod clock;
#[cfg(target_arch = "bpf")]
mod decap;
#[cfg(target_arch = "bpf")]
mod deliver;
#[cfg(target_arch = "bpf")]
mod device;
#[cfg(target_arch = "bpf")]
mod direct;
#[cfg(target_arch = "bpf")]
mod encap;
#[cfg(target_arch = "bpf")]
mod flows;
#[cfg(target_arch = "bpf")]
mod kinds;
#[cfg(target_arch = "bpf")]
mod learn;
#[cfg(target_arch = "bpf")]
mod local;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod mss;
#[cfg(target_arch = "bpf")]
mod neighbours;
#[cfg(target_arch = "bpf")]
mod packet;
#[cfg(target_arch = "bpf")]
mod path_mtu;
#[cfg(target_arch = "bpf")]
mod sample;
#[cfg(target_arch = "bpf")]
mod verdict;
#[cfg(target_arch = "bpf")]
mod xdp;
#[cfg(target_arch = "bpf")]
mod xdp_packet;

#[cfg(target_arch = "bpf")]
mod entry {
    use aya_ebpf::{
        macros::{classifier, xdp},
        programs::{TcContext, XdpContext},
    };

    use crate::{
        decap, direct, encap,
        kinds::{self, Way},
        verdict::{self, Program, Verdict},
        xdp,
    };

    /// tcx ingress of docker0 and of every bridge port: what containers send.
    #[classifier]
    #[inline(always)]
    pub(crate) fn workload_egress(ctx: TcContext) -> i32 {
        verdict::act(&ctx, Program::WorkloadEgress, encap::from_workload(&ctx))
    }

    /// tcx egress of docker0: what the host sends to peers, and what the fast path left to the kernel.
    #[classifier]
    #[inline(always)]
    pub(crate) fn bridge_egress(ctx: TcContext) -> i32 {
        verdict::act(&ctx, Program::BridgeEgress, encap::from_host(&ctx))
    }

    /// XDP of the uplink, where that is the place to decapsulate: what peers send. With fragments, or a veth's MTU
    /// could be no more than a page.
    #[xdp(frags)]
    pub(crate) fn uplink_decap(ctx: XdpContext) -> u32 {
        verdict::act_xdp(&ctx, Program::UplinkDecap, xdp::from_uplink(&ctx))
    }

    /// tcx ingress of the uplink: what peers send.
    #[classifier]
    #[inline(always)]
    pub(crate) fn uplink_ingress(ctx: TcContext) -> i32 {
        verdict::act(&ctx, Program::UplinkIngress, decap::from_uplink(&ctx))
    }

    /// tcx ingress of the uplink: what peers send in other ways than VXLAN.
    #[classifier]
    #[inline(always)]
    pub(crate) fn uplink_kinds(ctx: TcContext) -> i32 {
        // Two ends: where one is shared, LLVM copies what one of the two has not got, which the verifier refuses.
        match kinds::way(&ctx) {
            Way::Direct => verdict::act(&ctx, Program::UplinkKinds, direct::from_uplink(&ctx)),
            Way::Tunnel => verdict::act(&ctx, Program::UplinkKinds, kinds::from_uplink(&ctx)),
            Way::Other => verdict::act(&ctx, Program::UplinkKinds, Ok(Verdict::Pass)),
        }
    }

    /// tcx ingress of the uplink: addresses that peers resolve, in whichever tunnel.
    #[classifier]
    #[inline(always)]
    pub(crate) fn uplink_resolve(ctx: TcContext) -> i32 {
        verdict::act(&ctx, Program::UplinkResolve, kinds::resolution(&ctx))
    }

    /// tcx ingress of an uplink without an Ethernet header: what peers send.
    #[classifier]
    #[inline(always)]
    pub(crate) fn uplink_l3(ctx: TcContext) -> i32 {
        verdict::act(&ctx, Program::UplinkL3, decap::from_l3_uplink(&ctx))
    }

    /// tcx ingress of the tunnel devices: what the kernel reassembled and decapsulated.
    #[classifier]
    #[inline(always)]
    pub(crate) fn tunnel_ingress(ctx: TcContext) -> i32 {
        verdict::act(&ctx, Program::TunnelIngress, decap::from_device(&ctx))
    }

    /// The helpers these programs call are GPL-only.
    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

    #[panic_handler]
    fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
        // Never reached: the verifier refuses programs that could get here.
        loop {}
    }
}

/// On the host the crate is empty: this lets `cargo check --workspace` pass without the BPF target.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
