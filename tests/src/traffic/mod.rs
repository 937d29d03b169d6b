//! Traffic between namespaces, all of it bounded in time.

mod datagram;
mod inject;
pub mod iperf;
mod packet_socket;
mod ping;
mod probe;
mod sniff;
mod tally;
pub mod tap;
mod transfer;

pub use datagram::{Datagram, DatagramSocket};
pub use inject::Injector;
pub use ping::{Ping, ping, ping_from, ping_with};
pub use probe::{Endpoint, Probe, Report};
pub use sniff::{Frame, Sniffer};
pub use tally::Tally;
pub use transfer::{pattern, transfer};
