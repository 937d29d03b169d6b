//! A map as bytes, whatever build made it: what another layout left behind is read so.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
    ptr,
};

use aya::{
    maps::{MapData, MapError, MapType},
    sys::SyscallError,
};
use nix::{errno::Errno, libc};

use crate::datapath::{DatapathError, pin::Pins};

/// `BPF_MAP_LOOKUP_ELEM`, `BPF_MAP_UPDATE_ELEM` and `BPF_MAP_GET_NEXT_KEY` of `enum bpf_cmd`.
const LOOKUP: libc::c_int = 1;
const UPDATE: libc::c_int = 2;
const NEXT_KEY: libc::c_int = 4;
/// `BPF_ANY` and `BPF_NOEXIST`.
const ANY: u64 = 0;
const NO_EXIST: u64 = 1;
/// The kernel keeps each CPU's value at a multiple of this.
const CPU_STRIDE: usize = 8;

/// The part of `union bpf_attr` that the element commands use.
#[repr(C)]
struct Attributes {
    map_fd: u32,
    padding: u32,
    key: u64,
    /// The value, or the next key.
    value: u64,
    flags: u64,
}

/// A pinned map, of any sizes.
pub struct RawMap {
    data: MapData,
    name: &'static str,
    shape: Shape,
}

/// What has to agree for entries to be carried from one map into another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    /// Bytes of a key.
    key: usize,
    /// Bytes of one CPU's value.
    value: usize,
    /// Values of an entry: one, or as many as there may be CPUs.
    cpus: usize,
    /// Entries are there from the beginning, as zeroes, under the numbers from 0 on.
    is_array: bool,
}

impl Shape {
    /// Bytes between the values of two CPUs.
    const fn stride(self) -> usize {
        if self.cpus == 1 { self.value } else { self.value.next_multiple_of(CPU_STRIDE) }
    }

    /// An entry of this shape in another one: what both know of a value, and zeroes for the rest. Layouts differ in what
    /// stands at a value's end and nowhere else, so that this is all there is to say. `None` where the keys differ.
    fn carry(self, value: &[u8], to: Self) -> Option<Vec<u8>> {
        if (self.key, self.cpus, self.is_array) != (to.key, to.cpus, to.is_array) {
            return None;
        }
        let mut carried = vec![0; to.stride() * to.cpus];
        let both = self.value.min(to.value);
        for (from, into) in value.chunks_exact(self.stride()).zip(carried.chunks_exact_mut(to.stride())) {
            into[..both].copy_from_slice(&from[..both]);
        }
        Some(carried)
    }
}

impl RawMap {
    /// Opens a pinned map.
    ///
    /// # Errors
    /// [`DatapathError::Map`].
    pub fn open(pins: &Pins, name: &'static str) -> Result<Self, DatapathError> {
        let error = |source| DatapathError::Map { action: "open", map: name, source };
        let data = MapData::from_pin(pins.map(name)).map_err(error)?;
        let info = data.info().map_err(error)?;
        let kind = info.map_type().map_err(error)?;
        let cpus = match kind {
            MapType::PerCpuArray | MapType::PerCpuHash | MapType::LruPerCpuHash => {
                aya::util::nr_cpus().map_err(|(_, source)| error(MapError::IoError(source)))?
            }
            _ => 1,
        };
        let shape = Shape {
            key: info.key_size() as usize,
            value: info.value_size() as usize,
            cpus,
            is_array: matches!(kind, MapType::Array | MapType::PerCpuArray),
        };
        Ok(Self { data, name, shape })
    }

    /// The value under a key; `None` where there is none.
    ///
    /// # Errors
    /// [`DatapathError::Map`].
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, DatapathError> {
        assert_eq!(key.len(), self.shape.key, "a key has the map's size");
        let mut value = vec![0; self.shape.stride() * self.shape.cpus];
        match self.call(LOOKUP, key.as_ptr(), value.as_mut_ptr(), ANY) {
            Ok(()) => Ok(Some(value)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(self.error("read", "bpf_map_lookup_elem", errno)),
        }
    }

    /// All keys. One that goes while they are read may send the kernel back to the first: some come twice then.
    ///
    /// # Errors
    /// [`DatapathError::Map`].
    pub fn keys(&self) -> Result<Vec<Vec<u8>>, DatapathError> {
        let most = self.data.info().map_or(0, |info| info.max_entries()) as usize;
        let mut keys: Vec<Vec<u8>> = Vec::new();
        // Somebody who keeps taking entries away must not keep us here.
        while keys.len() <= 2 * most {
            let mut next = vec![0; self.shape.key];
            let before = keys.last().map_or(ptr::null(), |key| key.as_ptr());
            match self.call(NEXT_KEY, before, next.as_mut_ptr(), ANY) {
                Ok(()) => keys.push(next),
                Err(Errno::ENOENT) => break,
                Err(errno) => return Err(self.error("read", "bpf_map_get_next_key", errno)),
            }
        }
        Ok(keys)
    }

    /// Enters what another layout's map holds and this one does not. Returns how many entries.
    ///
    /// # Errors
    /// [`DatapathError::Layout`] where the keys are others, [`DatapathError::Map`] where an entry cannot be read or written.
    pub fn take_from(&self, other: &Self) -> Result<usize, DatapathError> {
        let mut taken = 0;
        for key in other.keys()? {
            let Some(value) = other.get(&key)? else { continue };
            let Some(value) = other.shape.carry(&value, self.shape) else {
                return Err(DatapathError::Layout { map: self.name });
            };
            taken += usize::from(self.enter(&key, &value)?);
        }
        Ok(taken)
    }

    /// Enters a value where there is none. Returns whether it was entered.
    fn enter(&self, key: &[u8], value: &[u8]) -> Result<bool, DatapathError> {
        let is_zero = |value: &[u8]| value.iter().all(|byte| *byte == 0);
        if self.shape.is_array && (is_zero(value) || !self.get(key)?.is_some_and(|there| is_zero(&there))) {
            return Ok(false);
        }
        let flags = if self.shape.is_array { ANY } else { NO_EXIST };
        match self.call(UPDATE, key.as_ptr(), value.as_ptr().cast_mut(), flags) {
            Ok(()) => Ok(true),
            Err(Errno::EEXIST) => Ok(false),
            Err(errno) => Err(self.error("write", "bpf_map_update_elem", errno)),
        }
    }

    /// `key` and `value` are of the map's sizes; only the commands that read write into `value`.
    fn call(&self, command: libc::c_int, key: *const u8, value: *mut u8, flags: u64) -> Result<(), Errno> {
        let mut attributes = Attributes {
            map_fd: self.data.fd().as_fd().as_raw_fd().cast_unsigned(),
            padding: 0,
            key: key as u64,
            value: value as u64,
            flags,
        };
        // SAFETY: the attributes are laid out as the commands ask, and name a key and a value, or a second key, of the
        // sizes that the kernel told of this map.
        let result = unsafe {
            libc::syscall(libc::SYS_bpf, command, ptr::from_mut(&mut attributes), size_of::<Attributes>())
        };
        Errno::result(result).map(drop)
    }

    fn error(&self, action: &'static str, call: &'static str, errno: Errno) -> DatapathError {
        let source = MapError::SyscallError(SyscallError { call, io_error: io::Error::from(errno) });
        DatapathError::Map { action, map: self.name, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { key: 4, value: 12, cpus: 1, is_array: false };

    #[test]
    fn a_value_that_has_grown_ends_in_zeroes_and_one_that_has_shrunk_is_cut() {
        let value: Vec<u8> = (1..=12).collect();
        let grown = SHAPE.carry(&value, Shape { value: 16, ..SHAPE }).unwrap();
        assert_eq!(grown, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0, 0, 0, 0]);
        assert_eq!(SHAPE.carry(&value, Shape { value: 4, ..SHAPE }).unwrap(), [1, 2, 3, 4]);
        assert_eq!(SHAPE.carry(&value, SHAPE).unwrap(), value);
    }

    #[test]
    fn each_cpus_value_stays_its_own() {
        let (two, grown) = (Shape { cpus: 2, ..SHAPE }, Shape { cpus: 2, value: 20, ..SHAPE });
        // 12 bytes stand in 16, and 20 in 24.
        let value: Vec<u8> = (0..32).collect();
        let carried = two.carry(&value, grown).unwrap();
        assert_eq!(carried.len(), 48);
        assert_eq!((&carried[..12], &carried[12..24]), (&value[..12], &[0; 12][..]));
        assert_eq!((&carried[24..36], &carried[36..]), (&value[16..28], &[0; 12][..]));
    }

    #[test]
    fn other_keys_are_not_guessed_at() {
        for other in
            [Shape { key: 8, ..SHAPE }, Shape { cpus: 2, ..SHAPE }, Shape { is_array: true, ..SHAPE }]
        {
            assert_eq!(SHAPE.carry(&[0; 12], other), None, "{other:?}");
        }
    }
}
