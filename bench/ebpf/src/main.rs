//! Programs of the benchmark alone; overlayd never loads them. Nothing, as what a program's cost is counted from, and
//! the route lookup without the rest.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod lookup;
#[cfg(target_arch = "bpf")]
#[path = "../../../overlay-ebpf/src/maps.rs"]
#[expect(dead_code, reason = "of the programs' maps only the routes are looked at here")]
mod maps;

#[cfg(target_arch = "bpf")]
mod entry {
    use aya_ebpf::{
        bindings::xdp_action::XDP_PASS,
        macros::{classifier, xdp},
        programs::{TcContext, XdpContext},
    };

    use crate::lookup;

    /// `TCX_NEXT`.
    const NEXT: i32 = -1;

    #[classifier]
    pub(crate) fn empty(_ctx: TcContext) -> i32 {
        NEXT
    }

    #[xdp(frags)]
    pub(crate) fn empty_xdp(_ctx: XdpContext) -> u32 {
        XDP_PASS
    }

    /// As many lookups as [`lookup::RUNS`] says, each for a destination that depends on the last one's answer.
    #[classifier]
    pub(crate) fn look_up_v4(_ctx: TcContext) -> i32 {
        lookup::v4(true)
    }

    /// The same without the lookup.
    #[classifier]
    pub(crate) fn no_look_up_v4(_ctx: TcContext) -> i32 {
        lookup::v4(false)
    }

    #[classifier]
    pub(crate) fn look_up_v6(_ctx: TcContext) -> i32 {
        lookup::v6(true)
    }

    #[classifier]
    pub(crate) fn no_look_up_v6(_ctx: TcContext) -> i32 {
        lookup::v6(false)
    }

    /// The map helpers are not, but what `maps.rs` declares beside them is for GPL programs.
    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

    #[panic_handler]
    fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
        // Never reached: the verifier refuses programs that could get here.
        loop {}
    }
}

/// On the host the crate is empty.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
