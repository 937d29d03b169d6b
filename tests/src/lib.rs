//! The namespace harness: hosts with containers on one wire, etcd, overlayd, and traffic between them.
//!
//! A test starts with [`topology::two_hosts`] and reads like the behaviour it proves. Everything that is
//! created goes when its value is dropped, also while a test panics.

pub mod account;
pub mod binaries;
pub mod bpffs;
pub mod capture;
pub mod cgroup;
pub mod container;
pub mod counters;
pub mod docker;
pub mod dump;
pub mod etcd;
pub mod etcd_cluster;
pub mod footprint;
pub mod foreign;
pub mod frame;
pub mod hooks;
pub mod host;
pub mod image;
pub mod interrupt;
pub mod kernel_vtep;
pub mod maps;
pub mod netns;
pub mod overlayd;
pub mod ovs;
pub mod process;
pub mod scope;
pub mod snapshot;
pub mod tables;
pub mod tcx;
pub mod topology;
pub mod traffic;
pub mod versions;
pub mod wait;
pub mod wire;

pub use netns::Netns;
pub use scope::Scope;
pub use topology::{Topology, two_hosts};
pub use versions::Versions;
pub use wait::eventually;
