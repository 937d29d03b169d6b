//! What came out, for people and for programs.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::report::Machine;

use super::{
    Plan,
    figures::{Figures, Metric, Spread},
    peers::Table,
};

/// All figures, and where they were taken.
pub(super) struct Report {
    plan: Plan,
    tables: Vec<(Table, Figures)>,
    machine: Machine,
}

impl Report {
    pub(super) fn new(plan: Plan, tables: Vec<(Table, Figures)>) -> Self {
        Self { plan, tables, machine: Machine::this() }
    }

    pub(super) fn text(&self) -> String {
        let mut text = self.conditions();
        for (table, figures) in &self.tables {
            let _ = write!(text, "\n\n{} peers, {}\n", self.plan.peers, table.words());
            for (metric, spread) in figures.spreads() {
                let _ = write!(text, "\n{:<58} {}", metric.words, told(metric, spread));
            }
            for (name, spread) in figures.phases() {
                let Spread { median, min, max, .. } = spread;
                let _ = write!(text, "\n  start, {name:<48} {median:.1} ms [{min:.1}-{max:.1}]");
            }
        }
        text
    }

    fn conditions(&self) -> String {
        let Machine { cpu, memory, kernel, commit, day, .. } = &self.machine;
        format!(
            "{cpu}, {memory}, Linux {kernel}, commit {commit}, {day}. Rounds of {} s at rest and {} s with 100 changes a \
             second; median [min-max].",
            self.plan.seconds, self.plan.seconds
        )
    }

    /// A page of docs/.
    fn markdown(&self) -> String {
        let mut text = String::from(
            "# A daemon with very many peers\n\nWritten by `cargo xtask bench daemon --markdown`; not to be edited. \
             What each figure is, `bench/src/daemon/mod.rs` says.\n\n",
        );
        let _ = writeln!(text, "{}", self.conditions());
        for (table, figures) in &self.tables {
            let _ = write!(
                text,
                "\n## {} peers, {}\n\n| | figure | target |\n|---|---|---|\n",
                self.plan.peers,
                table.words()
            );
            for (metric, spread) in figures.spreads() {
                let target = metric.target.map(|most| format!("<= {most}")).unwrap_or_default();
                let _ = writeln!(text, "| {} | {} | {target} |", metric.words, figure(metric, spread));
            }
            let phase = |(name, spread): (&str, Spread)| format!("{name} {:.0}", spread.median);
            let phases: Vec<String> = figures.phases().map(phase).collect();
            let _ = writeln!(text, "\nThe phases of a start, ms: {}.", phases.join(", "));
        }
        text
    }

    fn json(&self) -> Value {
        let entries = self.tables.iter().flat_map(|(table, figures)| {
            let metrics = figures.spreads().map(|(metric, spread)| (metric.name.to_owned(), spread));
            let phases = figures
                .phases()
                .map(|(name, spread)| (format!("start_{}_ms", name.replace(' ', "_")), spread));
            metrics.chain(phases).map(move |(metric, Spread { median, min, max, runs })| {
                json!({
                    "table": table.name(), "peers": self.plan.peers, "metric": metric,
                    "median": median, "min": min, "max": max, "runs": runs,
                })
            })
        });
        entries.collect()
    }

    pub(super) fn write_json(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.json())?;
        fs::write(file, text + "\n").with_context(|| format!("cannot write {}", file.display()))
    }

    pub(super) fn write_markdown(&self, file: &Path) -> Result<()> {
        fs::write(file, self.markdown()).with_context(|| format!("cannot write {}", file.display()))
    }
}

fn figure(metric: &Metric, Spread { median, min, max, .. }: Spread) -> String {
    format!("{median:.1} {} [{min:.1}-{max:.1}]", metric.unit)
}

/// With the target, and whether it is met.
fn told(metric: &Metric, spread: Spread) -> String {
    let verdict = metric.target.map(|most| {
        let met = if spread.median <= most { "met" } else { "MISSED" };
        format!("  (target {most}: {met})")
    });
    figure(metric, spread) + &verdict.unwrap_or_default()
}
