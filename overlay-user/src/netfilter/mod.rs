//! What the host's netfilter would do to the packets that the programs carry past it.
//!
//! `read` asks the kernel and the tools, `iptables` and `nft` make one model (`rules`) of what they print,
//! `walk` follows a class of packets through it, and `findings` asks the two questions that matter: may packets
//! go from one port of a bridge to another without it, and which of the user's rules do packets between hosts not
//! see. Only IPv4 counts: the programs carry nothing else.

mod findings;
mod iptables;
mod kernel;
mod nft;
mod read;
mod rules;
mod walk;

pub use self::{
    findings::{Bridge, Findings, Surroundings, look},
    kernel::{Kernel, Sign},
    read::{Reading, read},
};
