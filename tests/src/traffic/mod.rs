//! Traffic between namespaces, all of it bounded in time.

pub mod iperf;
mod ping;
mod probe;
mod tally;

pub use ping::{Ping, ping, ping_from, ping_with};
pub use probe::{Endpoint, Probe, Report};
pub use tally::Tally;
