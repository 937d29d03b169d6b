//! The benchmark: overlayd beside what it replaces, on the same hosts and the same wire.

pub mod daemon;
pub mod systems;
