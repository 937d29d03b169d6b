//! Reports as text.

use std::io::{self, Write};

use anyhow::Context;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::{
    report::{Drop, Endpoint, Peer, Route, Status},
    uplinks::{Uplink, describe},
};
use crate::exit;

/// Prints a report in the form asked for. A reader that has gone away (`| head`) is no error.
///
/// # Errors
/// Where standard output cannot be written.
pub fn print<T: Serialize>(json: bool, report: &T, table: impl FnOnce(&T) -> String) -> anyhow::Result<u8> {
    let text = if json { serde_json::to_string_pretty(report)? } else { table(report) };
    match writeln!(io::stdout(), "{}", text.trim_end()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(exit::OK),
    }
}

/// A table without lines: a header and columns. `right` are the columns of numbers.
pub(super) fn table(header: &[&str], right: &[usize], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    for column in right {
        if let Some(column) = table.column_mut(*column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// The status, one aspect a line.
pub fn status(status: &Status) -> String {
    let daemon = match status.pid {
        0 => "not running; the data path goes on as it was".to_owned(),
        pid => format!("running, process {pid}, up {}", duration(status.uptime_seconds)),
    };
    let age = match status.store_age_seconds {
        None => "never in step".to_owned(),
        Some(_) if status.pid != 0 && status.store_state == "ok" => "in step".to_owned(),
        Some(age) => format!("last in step {} ago", duration(age)),
    };
    let addresses: Vec<&str> =
        [Some(&status.public_ip), status.public_ipv6.as_ref().filter(|v6| **v6 != status.public_ip)]
            .into_iter()
            .flatten()
            .map(String::as_str)
            .collect();
    let names: Vec<&str> = status.uplinks.iter().map(|uplink| uplink.name.as_str()).collect();
    let mut lines = vec![
        ("State", status.state.to_owned()),
        ("Node", status.node.clone()),
        ("Daemon", daemon),
        ("Uplink", format!("{} {}", names.join(", "), addresses.join(", "))),
        (
            "Overlay",
            format!(
                "{} vni {} udp/{} mtu {} vtep {}",
                status.takes.join(", "),
                status.vni,
                status.port,
                status.mtu,
                status.vtep_mac
            ),
        ),
        ("Subnets", status.subnets.join(", ")),
        ("Store", format!("{} {}, {age}", status.store, status.store_state)),
        ("Peers", format!("{} with {} routes", status.peers, status.routes)),
        ("Endpoints", status.endpoints.to_string()),
        ("Drops", status.drops.to_string()),
    ];
    let decaps = status.uplinks.iter().map(|uplink| ("Decap", decap(uplink, names.len() > 1)));
    lines.splice(4..4, decaps);
    if !status.message.is_empty() {
        lines.insert(1, ("Trouble", status.message.clone()));
    }
    if status.repaired > 0 {
        let times = status.repaired;
        lines.push(("Repaired", format!("{times} times what somebody else had changed; the log says what")));
    }
    lines.extend(status.notes.iter().map(|note| ("Note", note.clone())));
    lines.iter().map(|(name, value)| format!("{name:<10} {value}\n")).collect()
}

/// Where an uplink's tunnel packets are decapsulated, and why there.
fn decap(uplink: &Uplink, one_of_several: bool) -> String {
    let decap = match uplink.decap {
        "trial" => "tc, until a packet has shown that its driver keeps what XDP says of it",
        decap => decap,
    };
    let which = if one_of_several { format!("{}: ", uplink.name) } else { String::new() };
    format!("{which}{decap}: {}", uplink.decap_reason)
}

/// The peers.
pub fn peers(peers: &[Peer]) -> String {
    let header = [
        "PEER",
        "SUBNETS",
        "ENCAP",
        "VNI",
        "PORT",
        "MTU",
        "VIA",
        "PACKETS TO",
        "BYTES TO",
        "PACKETS FROM",
        "BYTES FROM",
    ];
    let row = |peer: &Peer| {
        vec![
            peer.public_ip.clone(),
            peer.subnets.join(","),
            peer.encap.to_owned(),
            peer.vni.to_string(),
            peer.port.map_or_else(|| "-".to_owned(), |port| port.to_string()),
            peer.mtu.to_string(),
            describe(&peer.hops, &peer.public_ip),
            peer.packets_to.to_string(),
            peer.bytes_to.to_string(),
            peer.packets_from.to_string(),
            peer.bytes_from.to_string(),
        ]
    };
    table(&header, &[3, 4, 5, 7, 8, 9, 10], peers.iter().map(row))
}

/// The routes.
pub fn routes(routes: &[Route]) -> String {
    let row = |route: &Route| {
        vec![
            route.prefix.clone(),
            route.vni.to_string(),
            route.peer.clone(),
            route.encap.to_owned(),
            route.source.to_owned(),
        ]
    };
    table(&["PREFIX", "VNI", "PEER", "ENCAP", "SOURCE"], &[1], routes.iter().map(row))
}

/// The endpoints.
pub fn endpoints(endpoints: &[Endpoint]) -> String {
    let row = |endpoint: &Endpoint| {
        vec![
            endpoint.ip.clone(),
            endpoint.mac.clone(),
            endpoint.ifindex.to_string(),
            endpoint.vni.to_string(),
            endpoint.source.to_owned(),
            endpoint.idle_seconds.map_or_else(|| "-".to_owned(), duration),
        ]
    };
    table(&["IP", "MAC", "IFINDEX", "VNI", "SOURCE", "IDLE"], &[2, 3, 5], endpoints.iter().map(row))
}

/// The drop counters that have moved.
pub fn drops(drops: &[Drop]) -> String {
    let moved: Vec<&Drop> = drops.iter().filter(|drop| drop.packets != 0).collect();
    if moved.is_empty() {
        return "nothing dropped\n".to_owned();
    }
    let row = |drop: &&Drop| {
        vec![drop.reason.to_owned(), drop.code.to_string(), drop.packets.to_string(), drop.meaning.to_owned()]
    };
    table(&["REASON", "CODE", "PACKETS", "MEANING"], &[1, 2], moved.iter().map(row))
}

/// Seconds, for people.
pub(super) fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let texts = [0, 59, 60, 3_599, 3_600, 90_000].map(duration);
        assert_eq!(texts, ["0s", "59s", "1m0s", "59m59s", "1h0m", "1d1h"]);
    }

    #[test]
    fn tables_align_and_carry_their_header() {
        let routes = [Route {
            prefix: "172.27.0.0/16".into(),
            vni: 1,
            peer: "172.16.199.27".into(),
            encap: "vxlan",
            source: "etcd",
        }];
        let text = super::routes(&routes);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].starts_with("PREFIX") && lines[1].starts_with("172.27.0.0/16"), "{text}");
        assert_eq!(lines[0].find("PEER"), lines[1].find("172.16.199.27"), "{text}");
    }

    #[test]
    fn quiet_drop_counters_are_left_out() {
        let drop = |packets| Drop { reason: "no_route", code: 17, packets, meaning: "m" };
        assert_eq!(drops(&[drop(0)]), "nothing dropped\n");
        assert_eq!(drops(&[drop(0), drop(3)]).lines().count(), 2);
    }
}
