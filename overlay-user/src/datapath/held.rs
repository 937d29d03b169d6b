//! A link that is held besides its pin, so that a pin that somebody removes can be made again.

use std::path::Path;

use aya::programs::links::{FdLink, PinnedLink};

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
