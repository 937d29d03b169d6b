//! What crosses the border between the eBPF programs and userspace, and nothing else: identifiers, the
//! layout of every BPF map, the drop reasons, the wire formats and the header templates.
//!
//! `no_std` and free of `unsafe`, so that host tests, fuzzing and the programs run the same code.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod addr;
pub mod be;
pub mod checksum;
pub mod drop_reason;
pub mod ecn;
pub mod encap;
pub mod event;
pub mod flow;
pub mod handover;
pub mod map;
pub mod mark;
pub mod mss;
pub mod packet;
pub mod parse;
pub mod path_mtu;
pub mod template;
pub mod tunnel;
pub mod vni;
pub mod wire;

pub use addr::Mac;
pub use be::{Be16, Be32};
pub use drop_reason::DropReason;
pub use encap::{Encap, Kinds};
pub use vni::Vni;
