//! The metrics, by the names they have in JSON.

use std::fmt;

/// One figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    /// Payload of one TCP stream, 10^9 bits a second.
    Tcp1Gbps,
    /// Payload of eight TCP streams together.
    Tcp8Gbps,
    /// Transactions over one connection.
    RrPerS,
    /// Transactions with a connection each.
    CrrPerS,
    /// Datagrams of 64 bytes that the receiving socket delivers, thousands a second.
    Udp64Kpps,
    /// What the CPUs work for 10^9 bytes of payload, in the run of `Tcp1Gbps`.
    CpuSPerGb,
    /// The median round trip of `RrPerS`.
    RrP50Us,
    /// The 99th percentile of its round trips.
    RrP99Us,
    /// What the CPUs work for one transaction of `RrPerS`.
    CpuUsPerRr,
}

impl Metric {
    /// All, in the order of the report.
    pub const ALL: [Self; 9] = [
        Self::Tcp1Gbps,
        Self::Tcp8Gbps,
        Self::RrPerS,
        Self::CrrPerS,
        Self::Udp64Kpps,
        Self::CpuSPerGb,
        Self::RrP50Us,
        Self::RrP99Us,
        Self::CpuUsPerRr,
    ];

    /// As in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp1Gbps => "tcp1_gbps",
            Self::Tcp8Gbps => "tcp8_gbps",
            Self::RrPerS => "rr_per_s",
            Self::CrrPerS => "crr_per_s",
            Self::Udp64Kpps => "udp64_kpps",
            Self::CpuSPerGb => "cpu_s_per_gb",
            Self::RrP50Us => "rr_p50_us",
            Self::RrP99Us => "rr_p99_us",
            Self::CpuUsPerRr => "cpu_us_per_rr",
        }
    }

    /// For people, with its unit.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Tcp1Gbps => "TCP, 1 stream: Gbit/s",
            Self::Tcp8Gbps => "TCP, 8 streams: Gbit/s",
            Self::RrPerS => "Request/response: transactions/s",
            Self::CrrPerS => "Connect/request/response: transactions/s",
            Self::Udp64Kpps => "UDP 64 B delivered: kpackets/s",
            Self::CpuSPerGb => "CPU for a GB of TCP: s",
            Self::RrP50Us => "Round trip, median: µs",
            Self::RrP99Us => "Round trip, 99th percentile: µs",
            Self::CpuUsPerRr => "CPU for a transaction: µs",
        }
    }

    /// Whether more is better; a cost or a time is better where it is less.
    #[must_use]
    pub fn more_is_better(self) -> bool {
        self <= Self::Udp64Kpps
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_to_be_high_and_costs_low() {
        let (rates, costs): (Vec<_>, Vec<_>) = Metric::ALL.into_iter().partition(|m| m.more_is_better());
        assert!(rates.iter().all(|m| m.title().contains("/s")), "{rates:?}");
        assert!(costs.iter().all(|m| !m.title().contains("/s")) && costs.len() == 4, "{costs:?}");
    }
}
