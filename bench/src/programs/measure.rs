//! Rounds: a batch of runs of everything, again and again, so that whatever else the machine does falls on all alike.

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::{
    objects::{Objects, Which},
    path::{How, Path},
    sample::Spread,
    tap::Tap,
};

/// Runs in a batch: enough that reading the kernel's count does not matter, few enough that most batches see no
/// interrupt.
const BATCH: u64 = 32;

/// What a path costs.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Cost {
    /// The program's name.
    pub(super) program: &'static str,
    /// The path's name.
    pub(super) path: &'static str,
    /// Nanoseconds more than the empty program.
    pub(super) ns: Spread,
    /// Nanoseconds of the empty program.
    pub(super) empty_ns: f64,
    /// The same of the baseline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) baseline_ns: Option<Spread>,
    /// Present to baseline, round by round.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ratio: Option<Spread>,
    /// Rounds that count: in the others somebody else ran one of the programs.
    pub(super) rounds: usize,
}

/// What a round measured of a path: nanoseconds of the empty program, and how many more of the others.
struct Sample {
    empty: f64,
    present: f64,
    baseline: Option<f64>,
}

/// What is measured, and by which ways.
pub(super) struct Measurement<'a> {
    pub(super) objects: &'a mut Objects,
    pub(super) taps: Vec<Tap>,
    pub(super) paths: &'a [Path],
}

impl Measurement<'_> {
    /// Lets every path be taken once, and sees whether it is the path that is meant.
    fn check(&mut self) -> Result<()> {
        for which in self.objects.which() {
            for path in self.paths {
                let place = || format!("{}, {} ({which:?})", path.program, path.name);
                match &path.how {
                    How::TestRun { input, verdict, growth } => {
                        let (is, grown) =
                            self.objects.program(which, path.program)?.once(input).with_context(place)?;
                        ensure!(
                            (is, grown) == (*verdict, *growth),
                            "{}: verdict {is} and {grown} bytes more, instead of {verdict} and {growth}",
                            place(),
                        );
                    }
                    How::Tap(packet) => {
                        let tap = tap(&self.taps, which, path.program)?;
                        tap.check(self.objects, &packet(Tap::port(which))).with_context(place)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// A batch of the empty program and one of an object's: nanoseconds of the first, and how many more of the second.
    fn batch(&mut self, which: Which, path: &Path) -> Result<Option<(f64, f64)>> {
        let (empty, program) = match &path.how {
            How::TestRun { input, .. } => {
                let empty = self.objects.empty(path.program)?.batch(input, BATCH)?;
                (empty, self.objects.program(which, path.program)?.batch(input, BATCH)?)
            }
            How::Tap(packet) => {
                let batch = tap(&self.taps, which, path.program)?.batch(
                    self.objects,
                    &packet(Tap::port(which)),
                    BATCH,
                )?;
                batch.map(|batch| (batch.empty, batch.program)).unzip()
            }
        };
        Ok(empty.zip(program).map(|(empty, program)| (empty, program - empty)))
    }

    fn sample(&mut self, path: &Path, swapped: bool) -> Result<Option<Sample>> {
        let mut order = self.objects.which();
        if swapped {
            order.reverse();
        }
        let mut sample = Sample { empty: f64::NAN, present: f64::NAN, baseline: None };
        for which in order {
            let Some((empty, more)) = self.batch(which, path)? else { return Ok(None) };
            match which {
                Which::Present => (sample.empty, sample.present) = (empty, more),
                Which::Baseline => sample.baseline = Some(more),
            }
        }
        Ok(Some(sample))
    }

    /// Measures all paths in so many rounds; the samples come on top of those that are there, path by path.
    pub(super) fn run(mut self, rounds: usize, samples: &mut Samples) -> Result<()> {
        self.check()?;
        let paths = self.paths;
        for round in 0..rounds {
            for n in 0..paths.len() {
                let n = (n + round) % paths.len();
                samples.0[n].extend(self.sample(&paths[n], round % 2 == 1)?);
            }
        }
        Ok(())
    }
}

/// What was measured so far, path by path.
pub(super) struct Samples(Vec<Vec<Sample>>);

impl Samples {
    pub(super) fn none(paths: &[Path]) -> Self {
        Self(paths.iter().map(|_| Vec::new()).collect())
    }

    /// What the paths cost.
    pub(super) fn costs(&self, paths: &[Path]) -> Result<Vec<Cost>> {
        paths.iter().zip(&self.0).map(|(path, samples)| cost(path, samples)).collect()
    }
}

fn tap<'a>(taps: &'a [Tap], which: Which, program: &str) -> Result<&'a Tap> {
    let found = taps.iter().find(|tap| tap.leads_to(which, program));
    found.with_context(|| format!("there is no tap for {program}"))
}

fn cost(path: &Path, samples: &[Sample]) -> Result<Cost> {
    let more = |of: fn(&Sample) -> Option<f64>| Spread::of(samples.iter().filter_map(of));
    let ratio = |sample: &Sample| Some(sample.present / sample.baseline?);
    let none = || format!("{}, {}: no round was undisturbed", path.program, path.name);
    Ok(Cost {
        program: path.program,
        path: path.name,
        ns: more(|sample| Some(sample.present)).with_context(none)?,
        empty_ns: Spread::of(samples.iter().map(|sample| sample.empty)).with_context(none)?.median,
        baseline_ns: more(|sample| sample.baseline),
        ratio: Spread::of(samples.iter().filter_map(ratio)),
        rounds: samples.len(),
    })
}
