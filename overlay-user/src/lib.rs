//! overlayd's userspace: the daemon and the operator's tool.

pub mod api;
pub mod config;
pub mod ctl;
pub mod daemon;
pub mod datapath;
pub mod decap;
pub mod detach;
pub mod endpoints;
pub mod exit;
pub mod hops;
pub mod kernel;
pub mod lease;
pub mod local;
pub mod memory;
pub mod netfilter;
pub mod netlink;
pub mod path_mtu;
pub mod ports;
pub mod reconcile;
pub mod state;
pub mod status;
pub mod store;
pub mod sysctl;
pub mod tunnel_devices;
pub mod underlay;
