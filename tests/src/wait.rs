//! Waiting with a deadline, the only way this crate waits.

use std::{
    env,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

const POLL: Duration = Duration::from_millis(10);

/// The variable that says how many times as long as usual to wait, on machines that are that much slower: emulated ones.
const PATIENCE_VARIABLE: &str = "OVERLAYD_TEST_PATIENCE";

/// A deadline as it is meant on this machine.
#[must_use]
pub fn patient(deadline: Duration) -> Duration {
    let times = env::var(PATIENCE_VARIABLE).ok().and_then(|times| times.parse().ok());
    deadline * times.unwrap_or(1).max(1)
}

/// Polls `done` until it says so, or fails with `what` after `deadline`.
///
/// # Errors
/// The deadline passed.
pub fn eventually(what: &str, deadline: Duration, mut done: impl FnMut() -> bool) -> Result<()> {
    eventually_some(what, deadline, || Ok(done().then_some(())))
}

/// Polls `poll` until it yields a value. An error of `poll` does not end the waiting, but is told when the
/// deadline passes.
///
/// # Errors
/// The deadline passed.
pub fn eventually_some<T>(
    what: &str,
    deadline: Duration,
    mut poll: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let (start, deadline) = (Instant::now(), patient(deadline));
    loop {
        let last = poll();
        if let Ok(Some(value)) = last {
            return Ok(value);
        }
        if start.elapsed() >= deadline {
            match last {
                Err(e) => bail!("not within {deadline:?}: {what}: {e:#}"),
                Ok(_) => bail!("not within {deadline:?}: {what}"),
            }
        }
        sleep(POLL);
    }
}
