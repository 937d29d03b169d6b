//! `cargo xtask bench programs`: what each program costs a packet, in nanoseconds, against a program that does nothing.

mod cpu;
mod handle;
mod lookup;
mod markdown;
mod measure;
mod objects;
mod path;
mod report;
mod sample;
mod tap;
mod tun;

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, ensure};
use aya::sys::{Stats, enable_stats};
use overlay_bed::bed::in_bed;

use self::{
    lookup::Lookup,
    measure::{Measurement, Samples},
    objects::Objects,
    report::Report,
    tap::Tap,
};

/// Arguments.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Measure only the paths whose program or name contains this (several: any of them); `route lookup` is one
    #[arg(long, value_name = "NAME")]
    program: Vec<String>,
    /// Measure another build's eBPF object too, interleaved, and tell the ratio
    #[arg(long, value_name = "OBJECT")]
    baseline: Option<PathBuf>,
    /// Load everything anew so many times: where the kernel puts a program and its maps is worth a few per cent
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    loads: u16,
    /// Rounds for each of them, of 32 runs of every path
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Write the figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write docs/benchmarks-programs.md; only with everything measured
    #[arg(long, conflicts_with_all = ["program", "baseline"])]
    docs: bool,
}

/// What `--docs` writes.
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/benchmarks-programs.md");

/// Measures, and prints what it found.
///
/// # Errors
/// The kernel refuses a program or a run, or a packet does not take the path that is to be measured.
pub fn run(args: &Args) -> Result<()> {
    let mut paths = path::all();
    let wanted =
        |text: &str| args.program.is_empty() || args.program.iter().any(|name| text.contains(name.as_str()));
    paths.retain(|path| wanted(path.program) || wanted(path.name));
    ensure!(
        !paths.is_empty() || wanted("route lookup"),
        "no program and no path is named {}",
        args.program.join(", ")
    );
    let _stats = enable_stats(Stats::RunTime).context("cannot switch the kernel's run-time statistics on")?;
    let mut samples = Samples::none(&paths);
    let mut place = (0, false);
    for _ in 0..if paths.is_empty() { 0 } else { args.loads } {
        place = in_bed(
            |pins| Objects::load(pins, args.baseline.as_deref()),
            |objects| {
                let place = cpu::take()?;
                let taps = if path::need_taps(&paths) { Tap::all(objects)? } else { Vec::new() };
                Measurement { objects, taps, paths: &paths }.run(args.rounds.into(), &mut samples)?;
                Ok(place)
            },
        )?;
    }
    let mut found = Vec::new();
    if wanted("route lookup") {
        (place, found) = lookups()?;
    }
    let report = Report::new(place, samples.costs(&paths)?, found);
    print!("{}", report.table());
    if let Some(file) = &args.json {
        report.write(file)?;
    }
    if args.docs {
        fs::write(PAGE, markdown::page(&report)).with_context(|| format!("cannot write {PAGE}"))?;
    }
    Ok(())
}

/// The route lookup alone, of this build.
fn lookups() -> Result<(cpu::Place, Vec<Lookup>)> {
    in_bed(
        |pins| Objects::load(pins, None),
        |objects| {
            let place = cpu::take()?;
            Ok((place, lookup::measure(objects)?))
        },
    )
}
