//! What a run found, for programs and for people.

mod bars;
mod json;
pub mod machine;
mod markdown;
mod table;

use std::path::Path;

use anyhow::{Context, Result};

pub use self::{
    json::{Element, elements},
    machine::Machine,
};
use crate::{
    measure::Metric,
    rounds::{Discard, Failure, Samples},
    systems::Wire,
};

/// A run.
#[derive(Debug, Default)]
pub struct Report {
    /// One for each wire.
    pub wires: Vec<OnWire>,
    /// What it ran on.
    pub machine: Machine,
    /// Seconds that each load was measured.
    pub seconds: u32,
    /// Systems that cannot be had here, and why.
    pub missing: Vec<Failure>,
}

/// One wire's part.
#[derive(Debug)]
pub struct OnWire {
    /// Which wire.
    pub wire: Wire,
    /// In the systems' order, the bare host first.
    pub samples: Vec<Samples>,
    /// Rounds kept.
    pub kept: usize,
    /// Rounds discarded.
    pub discarded: Vec<Discard>,
    /// Systems that failed, and why.
    pub failed: Vec<Failure>,
    /// Each system, and its settings in its own words.
    pub described: Vec<(String, String)>,
}

/// A median and its spread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The middle one, or the mean of both.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// Of so many.
    pub runs: usize,
}

impl Spread {
    /// Of these; `None` of none.
    #[must_use]
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (runs, half) = (values.len(), values.len() / 2);
        let (min, max) = (*values.first()?, *values.last()?);
        let median = if runs % 2 == 1 { values[half] } else { (values[half - 1] + values[half]) / 2.0 };
        Some(Self { median, min, max, runs })
    }
}

impl OnWire {
    /// The systems, in their order.
    fn systems(&self) -> impl Iterator<Item = &str> {
        self.samples.iter().map(|samples| &samples.system[..])
    }

    /// One system's metric; `None` where it was not measured.
    fn spread(&self, system: &str, metric: Metric) -> Option<Spread> {
        Spread::of(self.samples.iter().find(|samples| samples.system == system)?.of(metric))
    }

    /// One system's median over another one's.
    fn ratio(&self, system: &str, other: &str, metric: Metric) -> Option<f64> {
        Some(self.spread(system, metric)?.median / self.spread(other, metric)?.median)
    }
}

impl Report {
    /// The metrics that were measured, in the order of the report.
    fn metrics(&self) -> Vec<Metric> {
        let measured = |metric: &Metric| self.wires.iter().any(|wire| wire.spread("bare", *metric).is_some());
        Metric::ALL.into_iter().filter(measured).collect()
    }

    /// Writes the array of [`elements`].
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_json(&self, file: &Path) -> Result<()> {
        write(file, &(serde_json::to_string_pretty(&elements(self))? + "\n"))
    }

    /// Writes `benchmarks.md` and a plot for each metric into this directory.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn write_docs(&self, docs: &Path) -> Result<()> {
        let plots = docs.join("benchmarks");
        std::fs::create_dir_all(&plots).with_context(|| format!("cannot create {}", plots.display()))?;
        own(&plots)?;
        for metric in self.metrics() {
            write(&plots.join(format!("{metric}.svg")), &bars::plot(self, metric))?;
        }
        write(&docs.join("benchmarks.md"), &markdown::page(self))
    }

    /// For the terminal; a table is the end of it.
    #[must_use]
    pub fn summary(&self) -> String {
        if self.metrics().is_empty() {
            return "no round was kept: there are no figures\n".to_owned();
        }
        let ratios = table::ratios(self).map_or_else(String::new, |ratios| ratios + "\n");
        ratios + &table::all(self)
    }
}

fn write(file: &Path, text: &str) -> Result<()> {
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    own(file)
}

/// Gives it to the owner of its directory: the benchmark runs as root, in a user's tree.
fn own(file: &Path) -> Result<()> {
    use std::os::unix::fs::{MetadataExt as _, chown};
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let parent = parent.metadata()?;
    chown(file, Some(parent.uid()), Some(parent.gid()))
        .with_context(|| format!("cannot give {} to its directory's owner", file.display()))
}

#[cfg(test)]
mod tests;
