//! A link that is held besides its pin, so that a pin that somebody removes can be made again.

use std::{path::Path, sync::OnceLock};

use aya::programs::links::{FdLink, PinnedLink};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// How many links may be held, with two descriptors each: half of what the process may have open at most. The soft
/// limit is often 1024 for the sake of programs that use select(2), which this one does not: it is raised.
pub fn most() -> usize {
    static MOST: OnceLock<usize> = OnceLock::new();
    *MOST.get_or_init(|| {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
        let limit = setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_or(soft, |()| hard);
        usize::try_from(limit / 4).unwrap_or(usize::MAX)
    })
}

/// Two references to a link: pinning consumes one, whether it succeeds or not, and the link must not end with it.
/// A second link of the same program on the same interface, made before the first one goes, the kernel refuses.
#[derive(Debug)]
pub struct HeldLink {
    link: FdLink,
    spare: FdLink,
}

impl HeldLink {
    /// Of the link that is pinned there.
    pub fn of(pin: &Path) -> Option<Self> {
        let open = || PinnedLink::from_pin(pin).ok().map(FdLink::from);
        Some(Self { link: open()?, spare: open()? })
    }

    /// Pins it where it is pinned no more. `None`, with the link gone, where that failed: it is to be attached anew.
    pub fn pinned(self, path: &Path) -> Option<Self> {
        if !path.exists() {
            self.spare.pin(path).ok()?;
        }
        let held = Self::of(path);
        drop(self.link);
        held
    }
}
