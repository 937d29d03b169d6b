//! IPv6 inside, outside, and both, in every program. What goes for IPv4 goes for IPv6 too, but for what the version
//! has of its own: no header checksum, extension headers, neighbour discovery, addresses of other kinds.

mod decap;
mod encap;
mod neighbours;
mod path_mtu;
mod spoof;

pub(crate) use overlay_bed::ipv6::{packet, world};
