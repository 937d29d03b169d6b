//! One packet at a time through the loaded programs (`BPF_PROG_TEST_RUN`): a network namespace with devices, maps that
//! know a small world, packets of it, and runs. The tests of the programs and their benchmark lie on it.
#![expect(missing_docs, reason = "fields of packets are named as the RFCs name them")]
#![expect(
    clippy::unwrap_used,
    reason = "what a test asks for panics where it fails; `Bed::load` and `in_bed` do not"
)]

pub mod bed;
pub mod ipv6;
pub mod kinds_on_wire;
pub mod packet;
pub mod skb;
pub mod world;
pub mod xdp;
