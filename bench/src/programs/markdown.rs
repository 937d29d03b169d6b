//! docs/benchmarks-programs.md.

use std::fmt::Write as _;

use super::{lookup::Lookup, report::Report, sample::Spread};
use crate::report::machine::Machine;

/// The whole page.
pub(super) fn page(report: &Report) -> String {
    let machine = Machine::this();
    let mut page = format!(
        "# What the programs cost a packet\n\nWritten by `cargo xtask bench programs --docs`; how it measures is told in \
         [benchmarking.md](benchmarking.md).\n\nLinux {}, {}, commit {}, {}{}.\n\n",
        machine.kernel,
        machine.cpu,
        machine.commit,
        machine.day,
        if report.realtime { "" } else { "; without SCHED_FIFO" },
    );
    let Spread { median: empty, .. } = report.empty();
    let _ = write!(
        page,
        "Nanoseconds more than a program that does nothing, which is counted with {empty:.0}: median and, in brackets, \
         what 5 % and 95 % of the batches are below.\n\n| program | path | ns |\n|---|---|--:|\n"
    );
    for cost in &report.programs {
        let _ = writeln!(page, "| `{}` | {} | {} |", cost.program, cost.path, cell(cost.ns));
    }
    page.push_str("\n## The route lookup alone\n\n");
    page.push_str(
        "| routes | how many | destinations | ns | a route is entered in |\n|---|--:|--:|--:|--:|\n",
    );
    for Lookup { of, routes, destinations, ns, put_ns } in &report.lookups {
        let (cell, put) = (cell(*ns), put_ns / 1000.0);
        let _ = writeln!(page, "| {of} | {routes} | {destinations} | {cell} | {put:.1} µs |");
    }
    page
}

fn cell(Spread { median, p5, p95 }: Spread) -> String {
    format!("{median:.0} [{p5:.0}–{p95:.0}]")
}
