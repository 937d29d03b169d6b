//! What the service manager is told, as sd_notify(3) has it. Where there is none, nobody listens.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// The manager restarts who says nothing for too long.
#[derive(Debug)]
pub(super) struct Supervisor {
    /// How often it wants to hear that we live.
    interval: Option<Duration>,
    said: Instant,
    status: String,
}

impl Supervisor {
    pub(super) fn new() -> Self {
        // Half of what it allows, as sd_watchdog_enabled(3) recommends.
        let interval = sd_notify::watchdog_enabled().map(|limit| limit / 2);
        Self { interval, said: Instant::now(), status: String::new() }
    }

    /// Everything is in place.
    pub(super) fn ready(&self) {
        tell(&[NotifyState::Ready]);
    }

    /// We live, and this is how we are.
    pub(super) fn alive(&mut self, status: String) {
        if self.status != status {
            tell(&[NotifyState::Status(&status)]);
            self.status = status;
        }
        if self.interval.is_some_and(|interval| self.said.elapsed() >= interval) {
            self.said = Instant::now();
            tell(&[NotifyState::Watchdog]);
        }
    }

    /// This process becomes another one with the same number.
    pub(super) fn reloading() {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell(&[NotifyState::Reloading, now]),
            Err(error) => tracing::debug!("cannot read the clock for the service manager: {error}"),
        }
    }

    /// We are about to end.
    pub(super) fn stopping() {
        tell(&[NotifyState::Stopping]);
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!("the service manager does not hear us: {error}");
    }
}
