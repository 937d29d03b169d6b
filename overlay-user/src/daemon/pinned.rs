//! The pins while the daemon runs: somebody may remove them, or unmount their filesystem. The daemon holds what was
//! pinned too, so that nothing stops meanwhile, and pins it again.

use std::collections::BTreeSet;

use tracing::warn;

use super::{Aspect, Daemon};
use crate::exit;

impl Daemon {
    /// Pins again what is not pinned any more. Returns whether links have to be looked at.
    pub(super) fn mend_pins(&mut self) -> bool {
        let links = self.ports.unpinned(&self.pins);
        if links == 0 && self.programs.are_pinned(&self.pins) {
            self.mending = false;
            self.say(Aspect::Pins, BTreeSet::new());
            return false;
        }
        let root = self.pins.root().display().to_string();
        match self.pins.prepare().and_then(|()| self.programs.pin_again(&self.pins)) {
            Ok(()) => {
                let still = self.mending.then(|| {
                    format!("{links} links have no pin under {root}: the next start would not find them; it is tried again")
                });
                if !self.mending {
                    warn!("pins under {root} were gone: they are made again");
                }
                self.mending = true;
                self.say(Aspect::Pins, still.into_iter().collect());
                true
            }
            Err(error) => {
                let line = format!(
                    "pins under {root} are gone: containers talk as long as overlayd runs, and no longer; {}",
                    exit::one_line(&error.into())
                );
                self.say(Aspect::Pins, [line].into());
                false
            }
        }
    }
}
