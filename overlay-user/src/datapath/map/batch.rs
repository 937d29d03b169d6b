//! Reading a whole map in few system calls: `BPF_MAP_LOOKUP_BATCH`, which hashes and arrays have since Linux 5.6 and
//! tries since 5.13. aya 0.14 has none of it, and reads a map with one or two system calls for each entry.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
    ptr,
};

use aya::{
    Pod,
    maps::{MapData, MapError},
    sys::SyscallError,
};
use nix::{errno::Errno, libc};

/// `BPF_MAP_LOOKUP_BATCH` of `enum bpf_cmd`.
const LOOKUP_BATCH: libc::c_int = 24;
/// Entries that are read at once. A hash needs room for its fullest bucket.
const AT_ONCE: u32 = 512;
/// Bytes of the place that the kernel notes between two calls: a key, or the number of a bucket.
const PLACE: usize = 64;

/// The part of `union bpf_attr` that the batch commands use.
#[repr(C)]
struct Attributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Shows all entries of a map. Returns false, without having shown any, where the kernel cannot read this map so.
pub(super) fn each<K: Pod, V: Pod>(map: &MapData, mut show: impl FnMut(K, V)) -> Result<bool, MapError> {
    assert!(size_of::<K>() <= PLACE, "a key must fit");
    let mut keys = vec![0u8; AT_ONCE as usize * size_of::<K>()];
    let mut values = vec![0u8; AT_ONCE as usize * size_of::<V>()];
    let (mut place, mut next) = ([0u8; PLACE], [0u8; PLACE]);
    let mut begun = false;
    loop {
        let mut attributes = Attributes {
            in_batch: if begun { place.as_ptr() as u64 } else { 0 },
            out_batch: next.as_mut_ptr() as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: AT_ONCE,
            map_fd: map.fd().as_fd().as_raw_fd().cast_unsigned(),
            elem_flags: 0,
            flags: 0,
        };
        let error = call(&mut attributes).err();
        let over = match error.as_ref().and_then(io::Error::raw_os_error).map(Errno::from_raw) {
            None => false,
            Some(Errno::ENOENT) => true,
            // Not for this type of map, or a bucket that is too full: one by one then.
            Some(_) if !begun => return Ok(false),
            Some(errno) => {
                let io_error = errno.into();
                return Err(MapError::SyscallError(SyscallError { call: "bpf_map_lookup_batch", io_error }));
            }
        };
        for number in 0..attributes.count as usize {
            let (key, value) = (&keys[number * size_of::<K>()..], &values[number * size_of::<V>()..]);
            assert!(key.len() >= size_of::<K>() && value.len() >= size_of::<V>(), "the kernel counts right");
            // SAFETY: there are as many bytes, of types that any bytes make a value of.
            let (key, value) = unsafe {
                (ptr::read_unaligned(key.as_ptr().cast()), ptr::read_unaligned(value.as_ptr().cast()))
            };
            show(key, value);
        }
        if over {
            return Ok(true);
        }
        place = next;
        begun = true;
    }
}

fn call(attributes: &mut Attributes) -> io::Result<()> {
    // SAFETY: the attributes are laid out as the command asks, and name buffers with room for what it writes: `count`
    // keys and values of the map's sizes, which were compared when it was opened, and a place.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, LOOKUP_BATCH, ptr::from_mut(attributes), size_of::<Attributes>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
