//! Which programs are on a tcx hook: one system call, however many ports there are to ask about. aya's query opens each
//! program, our own on every port included.

use std::{io, mem::size_of};

use nix::{
    errno::Errno,
    libc::{SYS_bpf, syscall},
};

use crate::netlink::Hook;

/// `BPF_PROG_QUERY` of `enum bpf_cmd`.
const PROG_QUERY: u32 = 16;
/// `BPF_TCX_INGRESS` and `BPF_TCX_EGRESS` of `enum bpf_attach_type` (kernel 6.6).
const TCX_INGRESS: u32 = 46;
const TCX_EGRESS: u32 = 47;
/// The kernel's `BPF_MPROG_MAX`: a hook has no more.
const MOST: usize = 64;

/// `union bpf_attr` as `BPF_PROG_QUERY` reads and writes it.
#[repr(C)]
#[derive(Default)]
struct Query {
    target_ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    count: u32,
    padding: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// The ids of the tcx programs on a hook, in the order in which they run. A kernel without tcx has none, nor has a
/// link that is gone.
pub(in crate::datapath) fn tcx_programs(ifindex: u32, hook: Hook) -> io::Result<Vec<u32>> {
    let mut ids = [0_u32; MOST];
    let mut query = Query {
        target_ifindex: ifindex,
        attach_type: if hook == Hook::Ingress { TCX_INGRESS } else { TCX_EGRESS },
        prog_ids: ids.as_mut_ptr().expose_provenance() as u64,
        count: MOST as u32,
        ..Query::default()
    };
    // SAFETY: `query` is a live, exclusively borrowed repr(C) struct of the size given, laid out as the kernel reads
    // `union bpf_attr` for this command. `prog_ids` is the address of an array that outlives the call, and the kernel
    // writes no more elements to it than `count` says it has; the other addresses are null, which it takes for none.
    let result = unsafe { syscall(SYS_bpf, PROG_QUERY, &raw mut query, size_of::<Query>()) };
    match Errno::result(result) {
        Ok(_) => Ok(ids.into_iter().take(query.count as usize).collect()),
        Err(Errno::EINVAL | Errno::ENODEV) => Ok(Vec::new()),
        Err(errno) => Err(errno.into()),
    }
}
