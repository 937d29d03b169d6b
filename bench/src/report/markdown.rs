//! docs/benchmarks.md.

use std::fmt::Write as _;

use super::{Machine, OnWire, Report, table};
use crate::{
    measure::Metric,
    rounds::{Failure, LIMIT},
    systems::Wire,
};

/// The page.
pub(super) fn page(report: &Report) -> String {
    let mut page = String::from(
        "# Benchmarks\n\n\
         Written by `cargo xtask bench`; not to be edited. How it measures, and what each metric is:\n\
         [benchmarking.md](benchmarking.md). Every figure is a median [smallest-largest] over the rounds of one run. Both hosts\n\
         are namespaces of one machine: ratios and order carry over to others, figures do not, and differences within\n\
         the ranges are none.\n\n",
    );
    page.push_str(&conditions(report));
    let metrics = report.metrics();
    for wire in &report.wires {
        page.push_str(&of_wire(wire, &metrics));
    }
    page.push_str("## Plots\n\n");
    for metric in metrics {
        let _ = writeln!(page, "![{}](benchmarks/{metric}.svg)\n", metric.title());
    }
    page.push_str(&systems(report));
    page.truncate(page.trim_end().len());
    page.push('\n');
    page
}

fn conditions(report: &Report) -> String {
    let Machine { cpu, memory, kernel, accounting, congestion_control, versions, commit, day } =
        &report.machine;
    let mut text = format!(
        "| | |\n|---|---|\n| machine | {cpu}, {memory} |\n| kernel | Linux {kernel} |\n| commit | {commit} |\n\
         | day | {day} |\n| a run | {} s, after a warm-up of 0.2 s where the load is our own |\n| CPU time | {accounting} |\n| TCP congestion control | {congestion_control} |\n",
        report.seconds
    );
    for version in versions {
        let _ = writeln!(text, "| version | {version} |");
    }
    text.push('\n');
    text
}

fn of_wire(wire: &OnWire, metrics: &[Metric]) -> String {
    let what = match wire.wire {
        Wire::Veth => "aggregates of up to 64 kB cross it, as between virtual machines of one host",
        Wire::Mtu => "no frame is larger than the MTU, as on a cable; the receiver merges (GRO)",
    };
    let mut text = format!("## {} wire\n\nA veth pair: {what}. {}\n\n", wire.wire, rounds(wire));
    text.push_str(&table::of_wire(wire, metrics));
    for reference in table::REFERENCES {
        let ratios = table::ratios_to(wire, reference, metrics);
        if !ratios.is_empty() {
            let _ = write!(text, "\n{ratios}");
        }
    }
    text.push('\n');
    text
}

/// How many rounds, and what became of the rest.
fn rounds(wire: &OnWire) -> String {
    let mut text = format!("{} rounds kept, {} discarded", wire.kept, wire.discarded.len());
    for discard in &wire.discarded {
        for why in &discard.why {
            let (first, last) = (table::number(why.first), table::number(why.last));
            let limit = LIMIT * 100.0;
            let _ = write!(
                text,
                "; round {}: the bare host's {} was {first} before the others and {last} after them, limit {limit:.0} %",
                discard.round, why.metric
            );
        }
    }
    text + "."
}

fn systems(report: &Report) -> String {
    let mut text = String::from("## Systems\n\n");
    let mut told: Vec<&str> = Vec::new();
    for (system, words) in report.wires.iter().flat_map(|wire| &wire.described) {
        if !told.contains(&system.as_str()) {
            told.push(system);
            let _ = writeln!(text, "- **{system}**: {words}");
        }
    }
    for Failure { system, why } in &report.missing {
        let _ = writeln!(text, "- **{system}** was not measured: {why}");
    }
    for wire in &report.wires {
        for Failure { system, why } in &wire.failed {
            let _ = writeln!(text, "- **{system}** failed on the {} wire: {why}", wire.wire);
        }
    }
    if told.contains(&table::USERSPACE) {
        text.push_str(
            "\nOpen vSwitch runs with its datapath in userspace here, which is not what people run on hosts: nothing is claimed\n\
             over it from these figures.\n",
        );
    }
    text
}
