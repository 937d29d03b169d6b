//! What the kernel counts: packets on devices, and packets that netfilter saw.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::Netns;

/// Packets of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packets {
    /// Received.
    pub rx: u64,
    /// Sent.
    pub tx: u64,
}

/// What a device has received and sent.
///
/// # Errors
/// There is no such device.
pub fn packets(ns: &Netns, device: &str) -> Result<Packets> {
    let said = ns.exec(&["ip", "-s", "-j", "link", "show", "dev", device])?;
    let json: Value = serde_json::from_str(&said.stdout).context("ip printed no JSON")?;
    let count = |way: &str| {
        let packets = json[0]["stats64"][way]["packets"].as_u64();
        packets.with_context(|| format!("{device} has no {way} counter"))
    };
    Ok(Packets { rx: count("rx")?, tx: count("tx")? })
}

/// The chains that a packet meets which the kernel forwards, receives or sends.
const CHAINS: [(&str, &str); 8] = [
    ("raw", "PREROUTING"),
    ("mangle", "PREROUTING"),
    ("filter", "INPUT"),
    ("filter", "FORWARD"),
    ("filter", "OUTPUT"),
    ("mangle", "FORWARD"),
    ("mangle", "POSTROUTING"),
    ("nat", "POSTROUTING"),
];

/// Rules that count what matches and decide nothing, in every chain a packet could meet.
#[derive(Debug)]
pub struct Netfilter<'a> {
    ns: &'a Netns,
    program: &'static str,
}

impl<'a> Netfilter<'a> {
    /// Begins to count what matches of IPv4, for example `-p udp`.
    ///
    /// # Errors
    /// iptables refused.
    pub fn count(ns: &'a Netns, matching: &str) -> Result<Self> {
        Self::count_by("iptables", ns, matching)
    }

    /// Begins to count what matches of IPv6.
    ///
    /// # Errors
    /// ip6tables refused.
    pub fn count_v6(ns: &'a Netns, matching: &str) -> Result<Self> {
        Self::count_by("ip6tables", ns, matching)
    }

    fn count_by(program: &'static str, ns: &'a Netns, matching: &str) -> Result<Self> {
        for (table, chain) in CHAINS {
            let args = ["-w", "-t", table, "-I", chain].into_iter().chain(matching.split_whitespace());
            ns.cmd(program).args(args).check()?;
        }
        Ok(Self { ns, program })
    }

    /// Packets counted so far, by `table/CHAIN`; chains that saw none are left out.
    ///
    /// # Errors
    /// iptables failed.
    pub fn seen(&self) -> Result<Vec<(String, u64)>> {
        let mut seen = Vec::new();
        for (table, chain) in CHAINS {
            let list = self.ns.exec(&[self.program, "-w", "-t", table, "-nvxL", chain, "1"])?;
            let packets = list.stdout.split_whitespace().next().and_then(|word| word.parse().ok());
            let packets: u64 = packets.with_context(|| format!("no counter in {table}/{chain}"))?;
            if packets > 0 {
                seen.push((format!("{table}/{chain}"), packets));
            }
        }
        Ok(seen)
    }
}
