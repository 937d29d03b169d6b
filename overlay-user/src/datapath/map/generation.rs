//! The generation of the tables, which tells the programs that what they remember of them may be wrong.

use std::{
    num::NonZeroUsize,
    os::fd::AsFd,
    ptr::NonNull,
    sync::atomic::{AtomicU32, Ordering},
};

use aya::maps::{MapData, MapError};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use overlay_common::map::{Generation, name};

use crate::datapath::{DatapathError, pin::Pins};

/// Bytes that are mapped: the kernel gives whole pages, of any size.
const LENGTH: NonZeroUsize = NonZeroUsize::new(size_of::<Generation>()).expect("a generation has bytes");

/// The only entry of `GENERATION`, in our memory: counting it up costs no system call.
pub(super) struct Counter {
    word: NonNull<AtomicU32>,
}

// SAFETY: the word is shared memory that is only ever touched atomically.
unsafe impl Send for Counter {}
// SAFETY: as above.
unsafe impl Sync for Counter {}

impl Counter {
    /// # Errors
    /// [`DatapathError::Map`].
    pub(super) fn open(pins: &Pins) -> Result<Self, DatapathError> {
        let error = |source| DatapathError::Map { action: "open", map: name::GENERATION, source };
        let map = MapData::from_pin(pins.map(name::GENERATION)).map_err(error)?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping, wherever the kernel puts it.
        let address = unsafe { mmap(None, LENGTH, protection, MapFlags::MAP_SHARED, map.fd().as_fd(), 0) };
        let address = address.map_err(|errno| error(MapError::IoError(errno.into())))?;
        Ok(Self { word: address.cast() })
    }

    /// Says that a table has changed. To be said after the change, or a program could remember what was there before.
    /// (A CPU that reads ahead may do so even then; once a second is said anyway that all may have changed.)
    pub(super) fn advance(&self) {
        // SAFETY: the mapping lives as long as `self`, and the kernel gives the word as zero or what we made it.
        unsafe { self.word.as_ref() }.fetch_add(1, Ordering::SeqCst);
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length, and nothing refers to it any more.
        let _ = unsafe { munmap(self.word.cast(), LENGTH.get()) };
    }
}
