//! The namespace harness.

pub mod cgroup;
pub mod docker;
pub mod image;
