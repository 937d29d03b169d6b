//! The comparison: every system on every wire, round by round.

mod bed;
mod settings;

use std::{path::PathBuf, time::Instant};

use anyhow::{Context as _, Result, bail};
use harness::interrupt;

use self::{bed::Systems, settings::Settings};
use crate::{
    report::{Machine, OnWire, Report},
    rounds,
    systems::Wire,
};

/// Where the page and the plots belong.
const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs");

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Fewer systems, metrics, rounds and seconds: less than six minutes
    #[arg(long)]
    quick: bool,
    /// Write the figures to this file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write docs/benchmarks.md and its plots, which a full run does anyway
    #[arg(long)]
    docs: bool,
    /// These wires alone: veth, mtu
    #[arg(long, value_name = "WIRE,…", value_delimiter = ',', value_parser = settings::wire)]
    wire: Vec<Wire>,
    /// These systems alone, and the bare host
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', value_parser = settings::system)]
    system: Vec<String>,
    /// Rounds to keep
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: Option<u16>,
    /// Seconds of each measurement
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u16).range(1..=60))]
    seconds: Option<u16>,
}

/// Runs it, prints a table, and writes what was asked for.
///
/// # Errors
/// The bare host cannot be measured; a system failed; or too few rounds were kept, which is told after the table.
pub fn run(args: &Args) -> Result<()> {
    let settings = Settings::of(args);
    interrupt::watch()?;
    if let Some(file) = &args.json {
        // Half an hour later would be late to learn that it cannot be written.
        std::fs::write(file, "[]\n").with_context(|| format!("cannot write {}", file.display()))?;
    }
    warn_of_load();
    let mut report =
        Report { machine: Machine::this(), seconds: settings.seconds.into(), ..Report::default() };
    let names = settings.possible(&mut report.missing)?;
    let begin = Instant::now();
    for (nth, wire) in settings.wires.iter().enumerate() {
        let until = settings.until(begin, nth);
        report.wires.push(on_wire(&settings, &names, *wire, until)?);
    }
    println!("{}", report.summary());
    if let Some(file) = &args.json {
        report.write_json(file)?;
    }
    let troubles = troubles(&report, &settings);
    if (args.docs || settings.full) && troubles.is_empty() {
        report.write_docs(DOCS.as_ref())?;
    }
    if troubles.is_empty() { Ok(()) } else { bail!(troubles.join("; ")) }
}

fn on_wire(settings: &Settings, names: &[&str], wire: Wire, until: Option<Instant>) -> Result<OnWire> {
    let mut systems = Systems::up(names, wire, settings.seconds)?;
    let plan = rounds::Plan { until, ..settings.plan.clone() };
    let mut outcome = rounds::run(&plan, &mut systems)?;
    systems.check_again(&mut outcome);
    let described = systems.describe();
    let mut failed = systems.failed;
    failed.extend(outcome.failed);
    Ok(OnWire {
        wire,
        samples: outcome.samples,
        kept: outcome.kept,
        discarded: outcome.discarded,
        failed,
        described,
    })
}

/// Whatever makes the run less than it was to be.
fn troubles(report: &Report, settings: &Settings) -> Vec<String> {
    let mut troubles = Vec::new();
    for OnWire { wire, kept, discarded, failed, .. } in &report.wires {
        let (wanted, discarded) = (settings.plan.keep, discarded.len());
        if *kept < wanted {
            troubles.push(format!(
                "on the {wire} wire {kept} of {wanted} rounds were kept and {discarded} discarded: let the machine be quiet, and run it again"
            ));
        }
        troubles.extend(
            failed
                .iter()
                .map(|failure| format!("{} failed on the {wire} wire: {}", failure.system, failure.why)),
        );
    }
    troubles
}

/// Others' work is noise that every round may have alike, which no rule sees.
fn warn_of_load() {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let minute: Option<f64> = load.split(' ').next().and_then(|load| load.parse().ok());
    if let Some(busy) = minute.filter(|load| *load > 0.5) {
        eprintln!(
            "warning: something else runs here (load average {busy}): the figures will be worse than they are"
        );
    }
}
