//! The benchmark: overlayd beside what it replaces, on the same hosts and the same wire.

pub mod programs;
pub mod systems;
