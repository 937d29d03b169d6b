//! What is attached over tcx, asked of the kernel itself.

use std::{collections::BTreeMap, io, mem::size_of};

use anyhow::{Context, Result, bail};
use nix::{
    errno::Errno,
    libc::{SYS_bpf, syscall},
};

use crate::Netns;

/// `BPF_PROG_QUERY` of `enum bpf_cmd`.
const PROG_QUERY: u32 = 16;

/// `BPF_LINK_GET_NEXT_ID` of `enum bpf_cmd`.
const LINK_GET_NEXT_ID: u32 = 31;

/// `BPF_TCX_INGRESS` and `BPF_TCX_EGRESS` of `enum bpf_attach_type`, since 6.6.
const ATTACH_TYPES: [(u32, Direction); 2] = [(46, Direction::Ingress), (47, Direction::Egress)];

/// More than anyone attaches to one hook.
const MOST: usize = 64;

/// Which of a device's two hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// What the device receives.
    Ingress,
    /// What the device sends.
    Egress,
}

/// A program on a device's hook.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attachment {
    /// The device.
    pub ifname: String,
    /// The hook.
    pub direction: Direction,
    /// The program.
    pub program: u32,
    /// The BPF link that holds it; 0 where it was attached without.
    pub link: u32,
}

/// `union bpf_attr` as `BPF_PROG_QUERY` reads it.
#[repr(C)]
#[derive(Default)]
struct Query {
    target_ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    count: u32,
    _pad: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// `union bpf_attr` as `BPF_LINK_GET_NEXT_ID` reads it.
#[repr(C)]
#[derive(Default)]
struct NextId {
    start_id: u32,
    next_id: u32,
    open_flags: u32,
}

/// All programs on the given devices, which are those of the calling thread's namespace.
///
/// # Errors
/// No root, or a device's query failed.
pub fn attachments(devices: &BTreeMap<u32, String>) -> Result<Vec<Attachment>> {
    let mut all = Vec::new();
    for (ifindex, ifname) in devices {
        for (attach_type, direction) in ATTACH_TYPES {
            let found =
                query(*ifindex, attach_type).with_context(|| format!("tcx {direction:?} of {ifname}"))?;
            all.extend(found.into_iter().map(|(program, link)| Attachment {
                ifname: ifname.clone(),
                direction,
                program,
                link,
            }));
        }
    }
    Ok(all)
}

/// All programs on all devices of a namespace.
///
/// # Errors
/// The namespace cannot be entered, or a query failed.
pub fn attachments_in(ns: &Netns) -> Result<Vec<Attachment>> {
    ns.run(|| attachments(&devices()?))?
}

/// The devices of the calling thread's namespace: index and name.
///
/// # Errors
/// The kernel gave no list.
pub fn devices() -> Result<BTreeMap<u32, String>> {
    let list = nix::net::if_::if_nameindex().context("if_nameindex")?;
    Ok(list.iter().map(|i| (i.index(), i.name().to_string_lossy().into_owned())).collect())
}

/// Whether a BPF link of this id exists, wherever its device is.
///
/// # Errors
/// No root.
pub fn link_exists(id: u32) -> Result<bool> {
    let mut attr = NextId { start_id: id.saturating_sub(1), ..NextId::default() };
    match bpf(LINK_GET_NEXT_ID, &mut attr) {
        Ok(()) => Ok(attr.next_id == id),
        Err(Errno::ENOENT) => Ok(false),
        Err(e) => bail!("BPF_LINK_GET_NEXT_ID: {e}"),
    }
}

/// Program and link ids on one hook, in the order they run.
fn query(ifindex: u32, attach_type: u32) -> Result<Vec<(u32, u32)>> {
    let (mut programs, mut links) = ([0_u32; MOST], [0_u32; MOST]);
    let mut attr = Query {
        target_ifindex: ifindex,
        attach_type,
        prog_ids: programs.as_mut_ptr().addr() as u64,
        link_ids: links.as_mut_ptr().addr() as u64,
        count: u32::try_from(MOST)?,
        ..Query::default()
    };
    match bpf(PROG_QUERY, &mut attr) {
        Ok(()) => {}
        // ENODEV: it went away meanwhile. EINVAL: a kernel before 6.6, which has no tcx.
        Err(Errno::ENODEV | Errno::EINVAL) => return Ok(Vec::new()),
        Err(e) => bail!("BPF_PROG_QUERY: {e}"),
    }
    let count = attr.count as usize;
    Ok(programs.into_iter().zip(links).take(count).collect())
}

fn bpf<T>(command: u32, attr: &mut T) -> Result<(), Errno> {
    // SAFETY: `attr` is a live, exclusively borrowed repr(C) struct of the size given, laid out as the kernel
    // reads `union bpf_attr` for this command. The addresses in it are of arrays that outlive the call, and the
    // kernel writes no more elements than the count in it.
    let result = unsafe { syscall(SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if result < 0 {
        Err(Errno::from_raw(io::Error::last_os_error().raw_os_error().unwrap_or(0)))
    } else {
        Ok(())
    }
}
