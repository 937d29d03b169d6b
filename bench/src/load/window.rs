//! The time that counts, after a warm-up that does not.

use std::time::{Duration, Instant};

/// Not counted: caches, neighbours, and the scheduler's idea of the processes settle in it.
pub const WARM_UP: Duration = Duration::from_millis(200);

/// From when to when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) begin: Instant,
    pub(super) end: Instant,
}

impl Window {
    pub(super) fn after_warm_up(time: Duration) -> Self {
        let begin = Instant::now() + WARM_UP;
        Self { begin, end: begin + time }
    }
}
