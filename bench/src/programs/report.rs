//! The figures as a table and as JSON.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context, Result};
use serde::Serialize;

use super::{cpu::Place, lookup::Lookup, measure::Cost, sample::Spread};

/// Everything measured, and on what.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    /// The kernel's release.
    pub(super) kernel: String,
    /// The processor's name.
    pub(super) processor: String,
    /// The CPU that it ran on.
    pub(super) cpu: usize,
    /// Whether it ran there before everything else (`SCHED_FIFO`).
    pub(super) realtime: bool,
    /// By path.
    pub(super) programs: Vec<Cost>,
    /// The route lookup alone.
    pub(super) lookups: Vec<Lookup>,
}

fn first_line(file: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line[key.len()..].trim_start_matches([' ', '\t', ':']).trim().to_owned())
}

fn spread(Spread { median, p5, p95 }: Spread) -> String {
    format!("{median:6.1}  [{p5:.0}–{p95:.0}]")
}

impl Report {
    pub(super) fn new((cpu, realtime): Place, programs: Vec<Cost>, lookups: Vec<Lookup>) -> Self {
        let kernel = first_line("/proc/sys/kernel/osrelease", "").unwrap_or_else(|| "unknown".to_owned());
        let processor = first_line("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".to_owned());
        Self { kernel, processor, cpu, realtime, programs, lookups }
    }

    /// For people.
    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        let class = if self.realtime { "SCHED_FIFO" } else { "no realtime class" };
        let Self { kernel, processor, cpu, .. } = self;
        let _ = writeln!(text, "Linux {kernel}, {processor}, CPU {cpu}, {class}");
        let _ = writeln!(text, "ns a packet more than an empty program: median [5 %–95 % of batches]");
        for cost in &self.programs {
            let name = format!("{}: {}", cost.program, cost.path);
            let _ = write!(text, "{name:56} {:20}", spread(cost.ns));
            if let (Some(baseline), Some(ratio)) = (cost.baseline_ns, cost.ratio) {
                let Spread { median, p5, p95 } = ratio;
                let _ =
                    write!(text, " baseline {:20} ratio {median:.3} [{p5:.2}–{p95:.2}]", spread(baseline));
            }
            let _ = writeln!(text, " (empty {:.1}, {} batches)", cost.empty_ns, cost.rounds);
        }
        self.add_lookups(&mut text);
        text
    }

    fn add_lookups(&self, text: &mut String) {
        for Lookup { of, routes, destinations, ns, put_ns } in &self.lookups {
            let _ = writeln!(
                text,
                "route lookup: {routes:7} routes ({of}), {destinations:7} destinations {:22} (a route is entered in \
                 {:.1} us)",
                spread(*ns),
                put_ns / 1000.0
            );
        }
    }

    /// What the kernel counts for a program that does nothing.
    pub(super) fn empty(&self) -> Spread {
        let none = Spread { median: 0.0, p5: 0.0, p95: 0.0 };
        Spread::of(self.programs.iter().map(|cost| cost.empty_ns)).unwrap_or(none)
    }

    /// For programs.
    pub(super) fn write(&self, file: &Path) -> Result<()> {
        let json = serde_json::to_string_pretty(self).context("cannot encode the figures")?;
        fs::write(file, json + "\n").with_context(|| format!("cannot write {}", file.display()))
    }
}
