//! What becomes of the fields of a packet's headers, seen through real sockets: between two hosts with overlayd, and
//! between one of ours and a host with the kernel's own vxlan device.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails, in its helpers too")]

mod bed;
mod broadcast;
mod checksums;
mod ecn;
mod fragments;
mod options;
mod ports;
mod segments;
mod ttl;
