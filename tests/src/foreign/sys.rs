//! `bpf(2)`, as far as a foreign program needs it. Layouts are those of `union bpf_attr` in <linux/bpf.h>.

use std::{
    ffi::CString,
    io,
    mem::size_of,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use anyhow::{Context, Result, bail};
use nix::libc::{SYS_bpf, syscall};

use super::{Kind, Order};
use crate::tcx::Direction;

const MAP_CREATE: u32 = 0;
const MAP_LOOKUP_ELEM: u32 = 1;
const PROG_LOAD: u32 = 5;
const OBJ_PIN: u32 = 6;
const OBJ_GET_INFO_BY_FD: u32 = 15;
const LINK_CREATE: u32 = 28;

const MAP_TYPE_ARRAY: u32 = 2;
const PROG_TYPE_SCHED_CLS: u32 = 3;
const PROG_TYPE_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;
const ATTACH_TCX_INGRESS: u32 = 46;
const ATTACH_TCX_EGRESS: u32 = 47;
/// `BPF_F_BEFORE` and `BPF_F_AFTER` with no program named: before or after all.
const BEFORE: u32 = 1 << 3;
const AFTER: u32 = 1 << 4;
const XDP_DRIVER_MODE: u32 = 1 << 2;

/// The verifier's words.
const LOG_BYTES: usize = 1 << 16;

#[repr(C)]
#[derive(Default)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

#[repr(C)]
#[derive(Default)]
struct MapElement {
    map: i32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    instructions: u32,
    code: u64,
    licence: u64,
    log_level: u32,
    log_bytes: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    attach_type: u32,
}

#[repr(C)]
#[derive(Default)]
struct Pin {
    path: u64,
    object: i32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct GetInfo {
    object: i32,
    bytes: u32,
    info: u64,
}

#[repr(C)]
#[derive(Default)]
struct LinkCreate {
    program: i32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
    relative: u32,
    padding: u32,
    revision: u64,
}

/// An array of 64-bit numbers.
pub(super) fn create_array(entries: u32) -> Result<OwnedFd> {
    let mut attr = MapCreate { map_type: MAP_TYPE_ARRAY, key_size: 4, value_size: 8, max_entries: entries };
    descriptor(bpf(MAP_CREATE, &mut attr)?)
}

pub(super) fn count(map: &OwnedFd, index: u32) -> Result<u64> {
    let mut value = 0_u64;
    let mut attr = MapElement {
        map: map.as_raw_fd(),
        key: address(&raw const index),
        value: address(&raw mut value),
        ..MapElement::default()
    };
    bpf(MAP_LOOKUP_ELEM, &mut attr).with_context(|| format!("counter {index}"))?;
    Ok(value)
}

pub(super) fn load(kind: Kind, name: &str, code: &[u8]) -> Result<OwnedFd> {
    let mut log = vec![0_u8; LOG_BYTES];
    let mut attr = Load {
        kind: if kind == Kind::Xdp { PROG_TYPE_XDP } else { PROG_TYPE_SCHED_CLS },
        instructions: u32::try_from(code.len() / 8)?,
        code: address(code.as_ptr()),
        licence: address(c"GPL".as_ptr()),
        log_level: 1,
        log_bytes: u32::try_from(LOG_BYTES)?,
        log: address(log.as_mut_ptr()),
        ..Load::default()
    };
    // The last byte is the terminating zero.
    for (byte, char) in attr.name[..15].iter_mut().zip(name.bytes()) {
        *byte = char;
    }
    match bpf(PROG_LOAD, &mut attr) {
        Ok(fd) => descriptor(fd),
        Err(error) => {
            let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
            bail!("{error}: {}", String::from_utf8_lossy(&log[..end]))
        }
    }
}

pub(super) fn pin(object: &OwnedFd, path: &Path) -> Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = Pin { path: address(path.as_ptr()), object: object.as_raw_fd(), flags: 0 };
    bpf(OBJ_PIN, &mut attr)?;
    Ok(())
}

/// `struct bpf_prog_info` begins with type and id.
pub(super) fn program_id(program: &OwnedFd) -> Result<u32> {
    Ok(info(program)?[1])
}

/// `struct bpf_link_info` too.
pub(super) fn link_id(link: &OwnedFd) -> Result<u32> {
    Ok(info(link)?[1])
}

fn info(object: &OwnedFd) -> Result<[u32; 2]> {
    let mut info = [0_u32; 2];
    let mut attr = GetInfo {
        object: object.as_raw_fd(),
        bytes: u32::try_from(size_of_val(&info))?,
        info: address(info.as_mut_ptr()),
    };
    bpf(OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(info)
}

pub(super) fn attach_tcx(
    program: &OwnedFd,
    ifindex: u32,
    direction: Direction,
    order: Order,
) -> Result<OwnedFd> {
    let mut attr = LinkCreate {
        program: program.as_raw_fd(),
        ifindex,
        attach_type: match direction {
            Direction::Ingress => ATTACH_TCX_INGRESS,
            Direction::Egress => ATTACH_TCX_EGRESS,
        },
        flags: if order == Order::First { BEFORE } else { AFTER },
        ..LinkCreate::default()
    };
    descriptor(bpf(LINK_CREATE, &mut attr)?)
}

pub(super) fn attach_xdp(program: &OwnedFd, ifindex: u32) -> Result<OwnedFd> {
    let mut attr = LinkCreate {
        program: program.as_raw_fd(),
        ifindex,
        attach_type: ATTACH_XDP,
        flags: XDP_DRIVER_MODE,
        ..LinkCreate::default()
    };
    descriptor(bpf(LINK_CREATE, &mut attr)?)
}

fn address<T>(pointer: *const T) -> u64 {
    pointer.addr() as u64
}

fn descriptor(number: i64) -> Result<OwnedFd> {
    let fd = RawFd::try_from(number)?;
    // SAFETY: the kernel has just given this descriptor out, to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn bpf<T>(command: u32, attr: &mut T) -> io::Result<i64> {
    // SAFETY: `attr` is a live, exclusively borrowed repr(C) struct of the size given, laid out as the kernel
    // reads `union bpf_attr` for this command. The addresses in it are of memory that the callers keep alive over
    // the call, as large as the counts beside them say.
    let result = unsafe { syscall(SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
