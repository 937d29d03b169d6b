//! TCP streams, by iperf3.

use std::{process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use harness::Netns;
use serde_json::Value;

use super::{cpu::Idle, spoken::Spoken};
use crate::systems::Side;

/// Every system has namespaces of its own, so one port does for all.
const PORT: &str = "5201";

/// To start, to connect, and to end.
const PATIENCE: Duration = Duration::from_secs(8);

/// What some streams carried together.
#[derive(Debug, PartialEq)]
pub(super) struct Streams {
    pub(super) gbps: f64,
    bytes: f64,
    busy_seconds: f64,
}

impl Streams {
    pub(super) fn cpu_s_per_gb(&self) -> f64 {
        self.busy_seconds * 1e9 / self.bytes
    }
}

/// Runs iperf3 for this time, in full seconds. The CPUs' work is that of its whole run: what it takes to start and to
/// connect is some milliseconds, the same for every system.
pub(super) fn run(streams: u32, client: &Side, server: &Side, time: Duration) -> Result<Streams> {
    let address = server.address.to_string();
    let mut listen = pinned(server);
    listen.args(["-s", "-1", "-B", &address, "-p", PORT, "--forceflush"]);
    let mut listening = Spoken::start(format!("iperf3 of {}", server.name), &mut listen)?;
    listening.line(PATIENCE, |line| line.contains("listening"))?;
    let seconds = time.as_secs_f64().ceil().max(1.0);
    let run = Netns::borrow(&client.netns)
        .cmd("taskset")
        .args(["-c", &client.cpu.to_string(), "iperf3", "-c", &address, "-p", PORT, "--json"])
        .args(["-t", &seconds.to_string(), "-P", &streams.to_string(), "--connect-timeout", "3000"])
        .timeout(Duration::from_secs_f64(seconds) + PATIENCE);
    let idle = Idle::now()?;
    let output = run.check()?;
    let busy_seconds = idle.busy_since()?;
    read(&output.stdout, busy_seconds)
}

fn pinned(side: &Side) -> Command {
    let mut command = Command::new("nsenter");
    let mut netns = std::ffi::OsString::from("--net=");
    netns.push(&side.netns);
    command.arg(netns).args(["--", "taskset", "-c", &side.cpu.to_string(), "iperf3"]);
    command
}

/// As the receiver counted.
fn read(json: &str, busy_seconds: f64) -> Result<Streams> {
    let json: Value = serde_json::from_str(json).context("iperf3 printed no JSON")?;
    let received = &json["end"]["sum_received"];
    let number = |name: &str| received[name].as_f64().with_context(|| format!("iperf3 reports no {name}"));
    let (bits, bytes) = (number("bits_per_second")?, number("bytes")?);
    ensure!(bytes > 0.0, "iperf3 moved nothing");
    Ok(Streams { gbps: bits / 1e9, bytes, busy_seconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_receivers_sum_counts() {
        let json = r#"{"end": {"sum_sent": {"bytes": 9e9, "bits_per_second": 9e9},
                       "sum_received": {"bytes": 2e9, "bits_per_second": 8e9}}}"#;
        let streams = read(json, 3.0).unwrap();
        assert_eq!((streams.gbps, streams.cpu_s_per_gb()), (8.0, 1.5));
    }

    #[test]
    fn a_report_without_a_result_is_an_error() {
        assert!(read("iperf3: error", 1.0).is_err());
        assert!(read(r#"{"end": {}}"#, 1.0).is_err());
        let none = r#"{"end": {"sum_received": {"bytes": 0, "bits_per_second": 0}}}"#;
        assert_eq!(read(none, 1.0).unwrap_err().to_string(), "iperf3 moved nothing");
    }
}
