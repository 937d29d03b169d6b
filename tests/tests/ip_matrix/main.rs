//! Both versions of IP, inside and outside: every combination carries traffic of every kind, refuses what is forged,
//! and gets along with peers that we did not write.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails, in its helpers too")]

mod bed;
mod discovery;
mod docker;
mod expected;
mod fast_path;
mod gro;
mod kernel_peer;
mod neighbour_claims;
mod path_mtu;
mod reach;
mod samples;
mod sizes;
mod socket;
mod spoof_containers;
mod spoof_evasions;
mod spoof_wire;
mod wire;
