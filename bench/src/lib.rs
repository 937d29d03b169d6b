//! The benchmark: overlayd beside what it replaces, on the same hosts and the same wire.

pub mod compare;
pub mod daemon;
pub mod load;
pub mod measure;
pub mod report;
pub mod rounds;
pub mod systems;
