//! Waiting with a deadline, the only way this crate waits.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

const POLL: Duration = Duration::from_millis(10);

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
    let start = Instant::now();
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
