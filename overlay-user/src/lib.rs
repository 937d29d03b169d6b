//! overlayd's userspace: the daemon and the operator's tool.

pub mod datapath;
pub mod netlink;
pub mod store;
pub mod sysctl;
