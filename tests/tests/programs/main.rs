//! The eBPF programs, one packet at a time: tables of packets in, verdicts, packets out and counters, run
//! by the kernel itself (`BPF_PROG_TEST_RUN`). A test run tells a redirect's verdict, not its target: where
//! packets arrive is for the tests with real hosts to show.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails, in its helpers too")]

mod bridge_egress;
mod budget;
mod case;
mod direct;
mod flows;
mod fuzz;
mod handover;
mod ipv6;
mod kinds;
mod learning;
mod local;
mod mtu;
mod neighbours;
mod object;
mod slow_path;
mod truncation;
mod uplink_decap;
mod uplink_ingress;
mod workload_egress;

use overlay_bed::{bed, kinds_on_wire, packet, skb, world, xdp};
