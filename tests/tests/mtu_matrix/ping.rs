//! ping between two containers, with DF and without.

use std::time::Duration;

use harness::process::Output;

use crate::{
    bed::Lane,
    expected::{Df, Outcome},
    machine,
};

/// IPv4 header and ICMP header.
const HEADERS: u32 = 28;

/// Pings with a packet of this size, and says what became of it where that is not what was expected.
pub(crate) fn fire(lane: &Lane<'_>, df: Df, size: u32, outcome: Outcome) -> Result<(), String> {
    lane.forget();
    match outcome {
        Outcome::Arrives => machine::excused(|| answered(lane, df, size)),
        Outcome::Refused { mtu } => says(&ping(lane, df, size), &own(mtu)),
        Outcome::Told { mtu } => {
            let told = format!("From {} icmp_seq=1 Frag needed and DF set (mtu = {mtu})", lane.gateway);
            machine::excused(|| says(&ping(lane, df, size), &told))?;
            // Now the sender knows.
            says(&ping(lane, df, size), &own(mtu))?;
            machine::excused(|| answered(lane, df, mtu))
        }
    }
}

/// What the sender's own kernel says.
fn own(mtu: u32) -> String {
    format!("message too long, mtu={mtu}")
}

fn answered(lane: &Lane<'_>, df: Df, size: u32) -> Result<(), String> {
    let output = ping(lane, df, size);
    if output.code == Some(0) { Ok(()) } else { Err(format!("{size} bytes: no answer{}", output.text())) }
}

fn says(output: &Output, what: &str) -> Result<(), String> {
    if output.code != Some(0) && output.text().contains(what) {
        return Ok(());
    }
    Err(format!("ping does not say `{what}`:{}", output.text()))
}

fn ping(lane: &Lane<'_>, df: Df, size: u32) -> Output {
    let mode = match df {
        Df::Always => "do",
        Df::Default => "want",
        Df::Never => "dont",
    };
    let (size, to) = ((size - HEADERS).to_string(), lane.to.ip.to_string());
    let args = ["-n", "-c", "1", "-W", "2", "-M", mode, "-s", &size, &to];
    let cmd = lane.from.ns.cmd("ping").env("LC_ALL", "C").args(args);
    cmd.timeout(Duration::from_secs(20)).run().unwrap()
}
