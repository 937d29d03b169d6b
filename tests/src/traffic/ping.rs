//! ping, and what it counted.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context, Result};

use crate::Netns;

/// What ping counted, and said.
#[derive(Clone, Debug)]
pub struct Ping {
    /// Requests sent.
    pub sent: u32,
    /// Replies received.
    pub received: u32,
    /// Replies received more than once.
    pub duplicates: u32,
    /// Its own words.
    pub text: String,
}

impl Ping {
    /// Requests without a reply.
    #[must_use]
    pub fn lost(&self) -> u32 {
        self.sent.saturating_sub(self.received)
    }

    /// Whether every request had its one reply.
    #[must_use]
    pub fn clean(&self) -> bool {
        self.sent > 0 && self.lost() == 0 && self.duplicates == 0
    }
}

/// Pings `count` times, five times a second.
///
/// # Errors
/// ping could not run; lost packets are no error.
pub fn ping(ns: &Netns, to: impl Into<IpAddr>, count: u32) -> Result<Ping> {
    ping_with(ns, to, count, &[])
}

/// Pings from a source address.
///
/// # Errors
/// ping could not run, or there is no such address.
pub fn ping_from(ns: &Netns, from: impl Into<IpAddr>, to: impl Into<IpAddr>, count: u32) -> Result<Ping> {
    ping_with(ns, to, count, &["-I", &from.into().to_string()])
}

/// Pings with more options, such as `-M do -s 1472`.
///
/// # Errors
/// ping could not run.
pub fn ping_with(ns: &Netns, to: impl Into<IpAddr>, count: u32, options: &[&str]) -> Result<Ping> {
    let (count_text, to) = (count.to_string(), to.into().to_string());
    // -W 2: how long the last reply is waited for.
    let args = ["-n", "-c", &count_text, "-i", "0.2", "-W", "2"];
    let timeout = Duration::from_secs(10 + u64::from(count));
    let cmd = ns.cmd("ping").env("LC_ALL", "C").args(args).args(options).arg(&to).timeout(timeout);
    let output = cmd.run()?;
    parse(&output.stdout).with_context(|| format!("`{}`{}", cmd.line(), output.text()))
}

/// Reads `3 packets transmitted, 3 received, +1 duplicates, 0% packet loss, time 406ms`.
fn parse(text: &str) -> Result<Ping> {
    let line = text.lines().find(|l| l.contains("packets transmitted")).context("ping gave no summary")?;
    let count = |what: &str| {
        let part = line.split(", ").find(|part| part.contains(what))?;
        part.split_whitespace().next()?.trim_start_matches('+').parse().ok()
    };
    Ok(Ping {
        sent: count("transmitted").context("no number of packets transmitted")?,
        received: count("received").context("no number of packets received")?,
        duplicates: count("duplicates").unwrap_or(0),
        text: text.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn reads_a_summary_with_duplicates_and_errors() {
        let line = "4 packets transmitted, 2 received, +1 duplicates, +3 errors, 50% packet loss, time 5ms";
        let ping = parse(line).unwrap();
        assert_eq!((ping.sent, ping.received, ping.duplicates, ping.lost()), (4, 2, 1, 2));
        assert!(!ping.clean());
        assert!(parse("ping: connect: Network is unreachable").is_err());
    }
}
