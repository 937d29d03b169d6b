//! What IPv6 adds.

pub mod packet;
pub mod world;
