//! Life around overlayd: uplinks that go down, change and come back, neighbours with new MAC addresses, a docker0 that
//! is made again, ports by the hundred, pins that somebody removes. Under a numbered flow of 1000 packets a second,
//! only what was sent while the path was gone may be lost.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails, in its helpers too")]

mod address;
mod bed;
mod bpffs;
mod bridge;
mod docker;
mod gateway;
mod neighbour;
mod ports;
mod two_uplinks;
mod uplink;
