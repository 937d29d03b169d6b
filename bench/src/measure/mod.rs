//! What is measured, and one measurement of each: two processes, a window of time, and the machine's CPUs in it.

pub mod cpu;
mod generator;
mod metric;
mod spoken;
mod streams;

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Result, ensure};

pub use self::{generator::Generator, metric::Metric};
use crate::{
    load::{self, Driven, Served},
    systems::Side,
};

/// What one measurement found.
pub type Figures = BTreeMap<Metric, f64>;

/// What one measurement does. Metrics that come from one run come from the same packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Load {
    /// One TCP stream.
    Tcp1,
    /// Eight of them.
    Tcp8,
    /// Requests and responses over one connection.
    Rr,
    /// A connection for each.
    Crr,
    /// UDP datagrams of 64 bytes.
    Udp64,
}

impl Load {
    /// All.
    pub const ALL: [Self; 5] = [Self::Tcp1, Self::Tcp8, Self::Rr, Self::Crr, Self::Udp64];

    /// The rate that it is about, and by which noise is judged.
    #[must_use]
    pub fn rate(self) -> Metric {
        match self {
            Self::Tcp1 => Metric::Tcp1Gbps,
            Self::Tcp8 => Metric::Tcp8Gbps,
            Self::Rr => Metric::RrPerS,
            Self::Crr => Metric::CrrPerS,
            Self::Udp64 => Metric::Udp64Kpps,
        }
    }

    /// Measures it once.
    ///
    /// # Errors
    /// No packet arrives, or a process does not end in time.
    pub fn run(self, generator: &Generator, client: &Side, server: &Side, time: Duration) -> Result<Figures> {
        match self {
            Self::Tcp1 => streams::run(1, client, server, time).map(|streams| {
                [(Metric::Tcp1Gbps, streams.gbps), (Metric::CpuSPerGb, streams.cpu_s_per_gb())].into()
            }),
            Self::Tcp8 => {
                streams::run(8, client, server, time).map(|streams| [(Metric::Tcp8Gbps, streams.gbps)].into())
            }
            Self::Rr => generator.run(load::Kind::Rr, client, server, time).and_then(rr),
            Self::Crr => generator.run(load::Kind::Crr, client, server, time).and_then(crr),
            Self::Udp64 => generator.run(load::Kind::Udp, client, server, time).and_then(udp),
        }
    }
}

fn rr((driven, served): (Driven, Served)) -> Result<Figures> {
    agree(&driven, &served)?;
    let transactions = driven.counted as f64;
    Ok([
        (Metric::RrPerS, transactions / driven.seconds),
        (Metric::RrP50Us, driven.p50_us),
        (Metric::RrP99Us, driven.p99_us),
        (Metric::CpuUsPerRr, driven.busy_seconds * 1e6 / transactions),
    ]
    .into())
}

fn crr((driven, served): (Driven, Served)) -> Result<Figures> {
    agree(&driven, &served)?;
    Ok([(Metric::CrrPerS, driven.counted as f64 / driven.seconds)].into())
}

/// Both ends count, so a connection to somebody else would show.
fn agree(driven: &Driven, served: &Served) -> Result<()> {
    let (asked, answered) = (driven.total, served.total);
    ensure!(asked == answered, "the client counts {asked} transactions, the server {answered}");
    ensure!(driven.counted > 0, "no transaction came to an end in the measured time");
    Ok(())
}

fn udp((driven, served): (Driven, Served)) -> Result<Figures> {
    let (sent, received) = (driven.total, served.total);
    ensure!(received <= sent, "{received} datagrams arrive, but only {sent} were sent");
    ensure!(served.counted > 0, "of {sent} datagrams none arrives in the measured time");
    Ok([(Metric::Udp64Kpps, served.counted as f64 / served.seconds / 1000.0)].into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn driven(total: u64, counted: u64) -> Driven {
        Driven { total, counted, refused: 0, seconds: 2.0, busy_seconds: 3.0, p50_us: 50.0, p99_us: 90.0 }
    }

    fn served(total: u64, counted: u64) -> Served {
        Served { total, counted, seconds: 2.0 }
    }

    #[test]
    fn figures_are_of_the_window_alone() {
        let figures = rr((driven(33_000, 30_000), served(33_000, 0))).unwrap();
        assert_eq!(figures[&Metric::RrPerS], 15_000.0);
        assert_eq!(figures[&Metric::CpuUsPerRr], 100.0);
        assert_eq!((figures[&Metric::RrP50Us], figures[&Metric::RrP99Us]), (50.0, 90.0));
        let figures = udp((driven(500_000, 450_000), served(420_000, 400_000))).unwrap();
        assert_eq!(figures[&Metric::Udp64Kpps], 200.0);
    }

    #[test]
    fn ends_that_disagree_are_no_measurement() {
        let error = crr((driven(10, 9), served(11, 0))).unwrap_err().to_string();
        assert_eq!(error, "the client counts 10 transactions, the server 11");
        assert!(crr((driven(10, 0), served(10, 0))).is_err());
        assert!(udp((driven(10, 9), served(11, 9))).is_err());
        assert!(udp((driven(10, 9), served(1, 0))).is_err());
    }
}
