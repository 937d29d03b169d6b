//! Runs the tools that print the rules, as far as there are rules to print.

use std::{io, process::Stdio, time::Duration};

use tokio::process::Command;

use super::{
    iptables,
    kernel::{BaseChain, Kernel},
    nft,
    rules::Table,
};

/// A tool that takes longer has hung: on the xtables lock, say.
const PATIENCE: Duration = Duration::from_secs(5);
/// Where the tools are, for a service without them in its PATH.
const DIRECTORIES: [&str; 4] = ["", "/usr/sbin/", "/sbin/", "/usr/local/sbin/"];

/// linux/netfilter.h: NFPROTO_*.
const INET: u8 = 1;
const IPV4: u8 = 2;
const NETDEV: u8 = 5;
const BRIDGE: u8 = 7;

/// All rules, as far as they can be read.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    pub(super) tables: Vec<Table>,
    /// Whether what a bridge forwards meets the rules for IPv4.
    pub(super) bridge_calls_iptables: bool,
    /// What could not be read: why, and what to do.
    pub(super) unknown: Vec<String>,
}

/// Reads everything. The tools run in the caller's network namespace.
pub async fn read() -> Reading {
    let mut reading = Reading::default();
    let chains = match Kernel::open().and_then(|kernel| Ok((kernel.sign(), kernel.base_chains()?))) {
        Ok((sign, chains)) => {
            reading.bridge_calls_iptables = sign.bridge_calls_iptables;
            if sign.legacy {
                reading.legacy().await;
            }
            if sign.ebtables {
                reading.ebtables().await;
            }
            chains
        }
        Err(error) => {
            reading.unknown.push(format!("the kernel does not list its chains: {error}"));
            return reading;
        }
    };
    let chains: Vec<BaseChain> =
        chains.into_iter().filter(|chain| [INET, IPV4, NETDEV, BRIDGE].contains(&chain.family)).collect();
    let told = match chains.iter().any(|chain| chain.family == IPV4) {
        true => reading.by_iptables().await,
        false => Vec::new(),
    };
    reading.by_nft(&chains, &told).await;
    reading
}

impl Reading {
    /// What `iptables-save` or `nft -j list ruleset` has printed: the latter is JSON. For rules that are not this
    /// host's, so nothing is known of its settings.
    pub fn printed(text: &str) -> Self {
        let mut reading = Self { bridge_calls_iptables: true, ..Self::default() };
        match text.starts_with('{').then(|| nft::parse(text)) {
            None => reading.tables = iptables::parse(text),
            Some(Ok(tables)) => reading.tables = tables,
            Some(Err(error)) => reading.unknown.push(format!("the nftables rules: {error}")),
        }
        reading
    }

    /// The tables of ip_tables.
    async fn legacy(&mut self) {
        match first(&["iptables-legacy-save", "iptables-save"], |text| !iptables::is_nft(text)).await {
            Ok(text) => self.tables.extend(iptables::parse(&text)),
            Err(reason) => self.unknown.push(format!("the legacy iptables rules: {reason}")),
        }
    }

    /// The older ebtables, of which no more than whether it does anything is asked.
    async fn ebtables(&mut self) {
        let reason =
            match first(&["ebtables-legacy-save", "ebtables-save"], |text| !text.contains("nf_tables")).await
            {
                Ok(text) if is_idle(&text) => return,
                Ok(_) => "it has rules, which are not looked at; nftables' family bridge is".to_owned(),
                Err(reason) => reason,
            };
        self.unknown.push(format!("ebtables-legacy: {reason}"));
    }

    /// The tables that iptables manages in nftables. What it does not understand, and all where it is not there, is
    /// left to nft. Returns tables and chains.
    async fn by_iptables(&mut self) -> Vec<(String, String)> {
        let text = first(&["iptables-nft-save", "iptables-save"], iptables::is_nft).await.unwrap_or_default();
        let tables = iptables::parse(&text);
        let names = |table: &Table| {
            table.chains.iter().map(|chain| (table.name.clone(), chain.name.clone())).collect::<Vec<_>>()
        };
        let told = tables.iter().flat_map(names).collect();
        self.tables.extend(tables);
        told
    }

    /// The chains that iptables has not told of.
    async fn by_nft(&mut self, chains: &[BaseChain], told: &[(String, String)]) {
        let is_told = |table: &str, chain: &str| told.iter().any(|(t, c)| t == table && c == chain);
        let missing = chains.iter().find(|chain| chain.family != IPV4 || !is_told(&chain.table, &chain.name));
        let Some(missing) = missing else { return };
        let text = run("nft", &["-j", "list", "ruleset"]).await.map_err(|error| explain("nft", &error));
        match text.and_then(|text| nft::parse(&text).map_err(|error| format!("nft -j: {error}"))) {
            Ok(mut tables) => {
                for table in &mut tables {
                    if table.title.starts_with("nft ip ") {
                        table.chains.retain(|chain| !is_told(&table.name, &chain.name));
                    }
                }
                tables.retain(|table| !table.chains.is_empty());
                self.tables.extend(tables);
            }
            Err(reason) => self
                .unknown
                .push(format!("nftables chain {} in table {}: {reason}", missing.name, missing.table)),
        }
    }
}

/// Whether an `ebtables-save` shows no rule, and no policy but ACCEPT.
fn is_idle(text: &str) -> bool {
    let acts = |line: &str| match line.strip_prefix(':') {
        Some(chain) => !chain.ends_with(" ACCEPT"),
        None => line.starts_with('-'),
    };
    !text.lines().map(str::trim_end).any(acts)
}

/// What the first of these tools prints that `fits`, or why none did.
async fn first(tools: &[&str], fits: impl Fn(&str) -> bool) -> Result<String, String> {
    let mut reason = String::new();
    for tool in tools {
        match run(tool, &[]).await {
            Ok(text) if fits(&text) => return Ok(text),
            Ok(_) => {}
            Err(error) if reason.is_empty() => reason = explain(tool, &error),
            Err(_) => {}
        }
    }
    Err(if reason.is_empty() { format!("{} shows none", tools.join(" and ")) } else { reason })
}

fn explain(tool: &str, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => format!("{tool} is not there: install it"),
        _ => format!("{tool}: {error}"),
    }
}

async fn run(tool: &str, args: &[&str]) -> io::Result<String> {
    for directory in DIRECTORIES {
        match output(&format!("{directory}{tool}"), args, PATIENCE).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => return result,
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

async fn output(program: &str, args: &[&str], patience: Duration) -> io::Result<String> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(patience, command.output())
        .await
        .map_err(|_| io::Error::other(format!("did not answer within {} s", patience.as_secs())))??;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let line = said.lines().next().unwrap_or_default();
        return Err(io::Error::other(format!("{}: {line}", output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_tool_that_is_missing_or_fails_is_named() {
        let missing = first(&["no-such-iptables-save"], |_| true).await.unwrap_err();
        assert_eq!(missing, "no-such-iptables-save is not there: install it");
        let failed = output("false", &[], PATIENCE).await.unwrap_err().to_string();
        assert!(failed.starts_with("exit status: 1"), "{failed}");
        assert_eq!(output("echo", &["a"], PATIENCE).await.unwrap(), "a\n");
        assert_eq!(first(&["true"], |text| !text.is_empty()).await.unwrap_err(), "true shows none");
    }

    #[test]
    fn ebtables_without_rules_is_idle() {
        let idle = "# Generated by ebtables-save\n*filter\n:INPUT ACCEPT\n:FORWARD ACCEPT\n";
        assert!(is_idle(idle) && is_idle(""));
        assert!(!is_idle(&format!("{idle}-A FORWARD -p ARP -j DROP\n")));
        assert!(!is_idle(&idle.replace("FORWARD ACCEPT", "FORWARD DROP")));
    }

    #[tokio::test]
    async fn a_tool_that_hangs_is_given_up() {
        let hung = output("sleep", &["1000"], Duration::ZERO).await.unwrap_err().to_string();
        assert_eq!(hung, "did not answer within 0 s");
    }
}
