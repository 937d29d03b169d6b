//! Tables, in Markdown that reads as well on a terminal.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use super::{OnWire, Report, Spread};
use crate::measure::Metric;

/// Runs with its datapath in userspace: nothing is claimed over it.
pub(super) const USERSPACE: &str = "ovs-gre";

/// What ratios are told to.
pub(super) const REFERENCES: [&str; 3] = ["bare", "host-gw", "kernel-vxlan"];

/// A system's name in tables and plots: whoever reads no further must not take this one for what people run on hosts.
pub(super) fn label(system: &str) -> &str {
    if system == USERSPACE { "ovs-gre (userspace)" } else { system }
}

/// Every figure of the run: median [min-max].
pub(super) fn all(report: &Report) -> String {
    let metrics = report.metrics();
    let measured = report.wires.iter().filter(|wire| wire.kept > 0);
    let rows = measured.flat_map(|wire| {
        let begin = wire.wire.to_string();
        figures(wire, &metrics).into_iter().map(move |row| prefixed(&begin, row))
    });
    grid(&prefixed("wire", header("system", &metrics)), rows)
}

/// One wire's figures.
pub(super) fn of_wire(wire: &OnWire, metrics: &[Metric]) -> String {
    grid(&header("system", metrics), figures(wire, metrics))
}

/// How overlayd's medians stand to the others', on each wire; `None` where one side of that is missing.
pub(super) fn ratios(report: &Report) -> Option<String> {
    let metrics = report.metrics();
    let mut rows = Vec::new();
    for wire in report.wires.iter().filter(|wire| wire.kept > 0) {
        for system in wire.systems().filter(|system| system.starts_with("overlayd")) {
            for other in wire.systems().filter(|other| !other.starts_with("overlayd") && *other != USERSPACE)
            {
                let begin = [wire.wire.to_string(), system.to_owned(), other.to_owned()];
                rows.push(begin.into_iter().chain(to(wire, system, other, &metrics)).collect());
            }
        }
    }
    let begin = ["wire", "ratio of", "to"].map(str::to_owned);
    let header: Vec<String> = begin.into_iter().chain(metrics.iter().map(ToString::to_string)).collect();
    (!rows.is_empty()).then(|| grid(&header, rows))
}

/// How every system's medians stand to one's; empty where that one was not measured.
pub(super) fn ratios_to(wire: &OnWire, other: &str, metrics: &[Metric]) -> String {
    if !wire.systems().any(|system| system == other) {
        return String::new();
    }
    let rows = wire
        .systems()
        .filter(|system| *system != other)
        .map(|system| [system.to_owned()].into_iter().chain(to(wire, system, other, metrics)).collect());
    grid(&header(&format!("ratio to {other}"), metrics), rows)
}

fn to(wire: &OnWire, system: &str, other: &str, metrics: &[Metric]) -> impl Iterator<Item = String> {
    let ratio = |metric: &Metric| wire.ratio(system, other, *metric);
    metrics.iter().map(move |metric| ratio(metric).map_or_else(String::new, |ratio| format!("{ratio:.2}")))
}

fn figures(wire: &OnWire, metrics: &[Metric]) -> Vec<Vec<String>> {
    let cell = |system: &str, metric: &Metric| wire.spread(system, *metric).map_or_else(String::new, shown);
    let row = |system: &str| {
        [label(system).to_owned()]
            .into_iter()
            .chain(metrics.iter().map(|metric| cell(system, metric)))
            .collect()
    };
    wire.systems().map(row).collect()
}

fn shown(spread: Spread) -> String {
    let Spread { median, min, max, .. } = spread;
    format!("{} [{}-{}]", number(median), number(min), number(max))
}

/// Three digits, and no fewer before the point than there are.
pub(super) fn number(value: f64) -> String {
    let digits = match value.abs() {
        large if large >= 99.95 => 0,
        large if large >= 9.995 => 1,
        large if large >= 0.9995 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

fn header(first: &str, metrics: &[Metric]) -> Vec<String> {
    prefixed(first, metrics.iter().map(ToString::to_string).collect())
}

fn prefixed(first: &str, row: Vec<String>) -> Vec<String> {
    [first.to_owned()].into_iter().chain(row).collect()
}

/// Text left, figures right.
fn grid(header: &[String], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header);
    table.add_rows(rows);
    let metrics =
        header.iter().filter(|name| Metric::ALL.iter().any(|metric| metric.name() == *name)).count();
    for column in table.column_iter_mut().skip(header.len() - metrics) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("{table}\n")
}
