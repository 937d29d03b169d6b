//! iperf3, for throughput.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{
    Netns,
    process::{Background, Output, fresh_log},
    wait::eventually,
};

/// One run.
#[derive(Clone, Debug)]
pub struct Iperf {
    udp: Option<Udp>,
    reverse: bool,
    bidirectional: bool,
    seconds: u32,
    options: Vec<String>,
}

#[derive(Clone, Copy, Debug)]
struct Udp {
    bits_per_second: u64,
    payload: u32,
}

/// What arrived in one direction.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// As the receiver counted.
    pub bits_per_second: f64,
    /// UDP datagrams lost, in percent; 0 for TCP.
    pub lost_percent: f64,
}

/// A run's result.
#[derive(Clone, Debug)]
pub struct Measured {
    /// From the client to the server, or the reverse where it was asked for.
    pub flow: Flow,
    /// The other direction of a bidirectional run.
    pub back: Option<Flow>,
    /// All that iperf3 reported.
    pub json: Value,
}

/// TCP from the client to the server.
#[must_use]
pub fn tcp(seconds: u32) -> Iperf {
    Iperf { udp: None, reverse: false, bidirectional: false, seconds, options: Vec::new() }
}

/// UDP at a rate, with this many bytes of payload in a datagram.
#[must_use]
pub fn udp(seconds: u32, bits_per_second: u64, payload: u32) -> Iperf {
    Iperf { udp: Some(Udp { bits_per_second, payload }), ..tcp(seconds) }
}

impl Iperf {
    /// The server sends.
    #[must_use]
    pub fn reverse(mut self) -> Self {
        self.reverse = true;
        self
    }

    /// Both send.
    #[must_use]
    pub fn bidirectional(mut self) -> Self {
        self.bidirectional = true;
        self
    }

    /// More options of the client.
    #[must_use]
    pub fn options(mut self, options: &[&str]) -> Self {
        self.options.extend(options.iter().map(|&o| o.to_owned()));
        self
    }

    /// Runs it and reads its JSON.
    ///
    /// # Errors
    /// iperf3 failed or reported an error.
    pub fn run(&self, client: &Netns, server: &Netns, server_ip: impl Into<IpAddr>) -> Result<Measured> {
        let output = self.clone().options(&["--json"]).text(client, server, server_ip)?;
        let json: Value = serde_json::from_str(&output.stdout).context("iperf3 printed no JSON")?;
        if let Some(error) = json["error"].as_str() {
            bail!("iperf3: {error}");
        }
        let flow = self.flow(&json["end"], "").context("no result in iperf3's report")?;
        let back = if self.bidirectional { self.flow(&json["end"], "_bidir_reverse") } else { None };
        Ok(Measured { flow, back, json })
    }

    /// Runs it and returns its own words.
    ///
    /// # Errors
    /// iperf3 failed.
    pub fn text(&self, client: &Netns, server: &Netns, server_ip: impl Into<IpAddr>) -> Result<Output> {
        let _server = Server::start(server)?;
        client
            .cmd("iperf3")
            .args(["-c", &server_ip.into().to_string(), "-p", &PORT.to_string(), "--connect-timeout", "3000"])
            .args(self.arguments())
            .timeout(Duration::from_secs(u64::from(self.seconds) + 15))
            .check()
    }

    fn arguments(&self) -> Vec<String> {
        let mut args = vec!["-t".to_owned(), self.seconds.to_string()];
        if let Some(Udp { bits_per_second, payload }) = self.udp {
            args.extend(
                ["-u", "-b", &bits_per_second.to_string(), "-l", &payload.to_string()].map(str::to_owned),
            );
        }
        args.extend(self.reverse.then(|| "-R".to_owned()));
        args.extend(self.bidirectional.then(|| "--bidir".to_owned()));
        args.extend(self.options.iter().cloned());
        args
    }

    fn flow(&self, end: &Value, suffix: &str) -> Option<Flow> {
        let received = &end[format!("sum_received{suffix}")];
        // Only this sum has the receiver's losses in every version.
        let lost =
            if self.udp.is_some() { end[format!("sum{suffix}")]["lost_percent"].as_f64()? } else { 0.0 };
        Some(Flow { bits_per_second: received["bits_per_second"].as_f64()?, lost_percent: lost })
    }
}

/// The lines of iperf3's text that sum up, the last ones of a stream.
#[must_use]
pub fn summary(text: &str) -> Vec<&str> {
    text.lines().map(str::trim_end).filter(|l| l.ends_with("sender") || l.ends_with("receiver")).collect()
}

/// Whether a line of [`summary`] is the receiver's and tells of anything received.
#[must_use]
pub fn arrived(line: &str) -> bool {
    let none = line.contains("(100%)") || line.contains(" 0.00 Bytes");
    line.ends_with("receiver") && !none
}

/// The server's port.
pub(crate) const PORT: u16 = 5201;

/// An iperf3 server for one run.
struct Server {
    _process: Background,
    log: PathBuf,
}

impl Server {
    fn start(ns: &Netns) -> Result<Self> {
        let log = std::env::temp_dir().join(format!("{}.iperf3", ns.name().replace('/', "_")));
        fresh_log(&log)?;
        let cmd = ns.cmd("iperf3").args(["-s", "-1", "-p", &PORT.to_string(), "--forceflush"]);
        let mut process = cmd.spawn(&log)?;
        let said = || std::fs::read_to_string(&log).unwrap_or_default();
        let listening = eventually("iperf3 listens", Duration::from_secs(5), || said().contains("listening"));
        if listening.is_err() || !process.alive() {
            bail!("iperf3 does not listen in {}:\n{}", ns.name(), said());
        }
        Ok(Self { _process: process, log })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.log);
    }
}
