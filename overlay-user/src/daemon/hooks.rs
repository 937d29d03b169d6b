//! Keeps an eye on who else is on our hooks. The kernel does not tell when a program comes or goes there: it is looked
//! after links have changed and at each resync, at most once a second.

use tracing::warn;

use super::{Daemon, notes::Source};
use crate::{
    datapath::others::{Lookout, tell},
    exit,
};

/// What is known of the others.
#[derive(Debug, Default)]
pub(super) struct Watch {
    lookout: Lookout,
    stale: bool,
    /// Why the last look failed, if it did.
    trouble: Option<String>,
}

impl Watch {
    /// Somebody may have come or gone.
    pub(super) fn links_changed(&mut self) {
        self.stale = true;
    }
}

impl Daemon {
    /// Looks where somebody may have come or gone. Where the kernel does not tell, what was found before stays said.
    pub(super) async fn watch_hooks(&mut self) {
        if !self.hooks.stale {
            return;
        }
        match self.hooks.lookout.look(&self.local, &self.programs, &self.netlink).await {
            Ok(strangers) => {
                (self.hooks.stale, self.hooks.trouble) = (false, None);
                self.note(Source::Hooks, tell(&strangers));
            }
            Err(error) => {
                let trouble = exit::one_line(&error);
                if self.hooks.trouble.as_ref() != Some(&trouble) {
                    warn!("cannot tell who else is on the hooks: {trouble}");
                }
                self.hooks.trouble = Some(trouble);
            }
        }
    }
}
