//! The rounds of one wire.

use std::time::Instant;

use anyhow::{Context, Result};

use super::{Discard, Failure, Outcome, Samples, compare, noise::middle, order::shuffled};
use crate::measure::{Figures, Load};

/// What to do, and how often.
#[derive(Clone, Debug)]
pub struct Plan {
    /// In each round.
    pub loads: Vec<Load>,
    /// Rounds to keep.
    pub keep: usize,
    /// Rounds that may be run again because they were discarded.
    pub again: usize,
    /// No round starts after this.
    pub until: Option<Instant>,
}

/// What the rounds are run on. The first system is the bare host.
pub trait Bed {
    /// The systems' names.
    fn systems(&self) -> Vec<String>;

    /// Measures one load on one system.
    ///
    /// # Errors
    /// It gave no figures.
    fn measure(&mut self, system: usize, load: Load) -> Result<Figures>;

    /// Whether to go on, asked before each measurement.
    ///
    /// # Errors
    /// It is to stop.
    fn go_on(&self) -> Result<()>;

    /// Hears that a round has ended, with what speaks against it.
    fn ended(&mut self, round: usize, discarded: Option<&Discard>);
}

/// Runs rounds until enough are kept, or the plan allows no more.
///
/// # Errors
/// The bare host gave no figures, or it was to stop.
pub fn run(plan: &Plan, bed: &mut impl Bed) -> Result<Outcome> {
    let systems = bed.systems();
    let mut running = Running { plan, bed, failed: vec![None; systems.len()] };
    let (mut kept, mut discarded) = (Vec::new(), Vec::new());
    for round in 1..=plan.keep + plan.again {
        if kept.len() == plan.keep || plan.until.is_some_and(|until| Instant::now() > until) {
            break;
        }
        let (figures, why) = running.round(round)?;
        if why.is_empty() {
            kept.push(figures);
            running.bed.ended(round, None);
        } else {
            discarded.push(Discard { round, why });
            running.bed.ended(round, discarded.last());
        }
    }
    let failed = running.failed;
    let alive = systems.iter().enumerate().filter(|(system, _)| failed[*system].is_none());
    let samples = alive.map(|(index, system)| Samples {
        system: system.clone(),
        rounds: kept.iter().map(|round| round[index].clone()).collect(),
    });
    let samples = samples.collect();
    let failed = systems.into_iter().zip(failed);
    let failed = failed.filter_map(|(system, why)| Some(Failure { system, why: why? })).collect();
    Ok(Outcome { samples, kept: kept.len(), discarded, failed })
}

/// The systems that still take part, and those that do not any more, with the reason.
struct Running<'a, B> {
    plan: &'a Plan,
    bed: &'a mut B,
    failed: Vec<Option<String>>,
}

impl<B: Bed> Running<'_, B> {
    /// The figures of each system, and what the bare host has against them: then the round ends there.
    fn round(&mut self, round: usize) -> Result<(Vec<Figures>, Vec<super::Disagreement>)> {
        let mut figures = vec![Figures::new(); self.failed.len()];
        for (nth, load) in self.plan.loads.iter().enumerate() {
            let first = self.bare(*load)?;
            for system in shuffled(figures.len() - 1, round, nth).into_iter().map(|other| other + 1) {
                if self.failed[system].is_some() {
                    continue;
                }
                match self.measure(system, *load) {
                    Ok(found) => figures[system].extend(found),
                    Err(error) => {
                        self.bed.go_on()?;
                        self.failed[system] = Some(format!("{:?}: {error:#}", *load));
                    }
                }
            }
            let last = self.bare(*load)?;
            let why = compare(&first, &last);
            figures[0].extend(middle(&first, &last));
            if !why.is_empty() {
                return Ok((figures, why));
            }
        }
        Ok((figures, Vec::new()))
    }

    fn bare(&mut self, load: Load) -> Result<Figures> {
        self.measure(0, load).context("the bare host")
    }

    /// Tries twice: a connection that fails once is no reason to lose half an hour.
    fn measure(&mut self, system: usize, load: Load) -> Result<Figures> {
        self.bed.go_on()?;
        self.bed.measure(system, load).or_else(|_| {
            self.bed.go_on()?;
            self.bed.measure(system, load)
        })
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{bail, ensure};
    use proptest::prelude::*;

    use super::*;
    use crate::{measure::Metric, rounds::LIMIT};

    /// A machine whose bare host gives these rates, one after the other, and whose other systems give 1, 2 …
    struct Machine {
        bare: Vec<f64>,
        asked: Vec<(usize, Load)>,
        /// How many measurements of system 2 fail.
        failing: usize,
        stop_after: usize,
        ended: Vec<bool>,
    }

    impl Machine {
        fn new(bare: &[f64]) -> Self {
            let bare = bare.iter().rev().copied().collect();
            Self { bare, asked: Vec::new(), failing: 0, stop_after: usize::MAX, ended: Vec::new() }
        }
    }

    impl Bed for Machine {
        fn systems(&self) -> Vec<String> {
            ["bare", "one", "two"].map(str::to_owned).into()
        }

        fn measure(&mut self, system: usize, load: Load) -> Result<Figures> {
            self.asked.push((system, load));
            if system == 2 && self.failing > 0 {
                self.failing -= 1;
                bail!("no route to host");
            }
            let value = if system == 0 { self.bare.pop().unwrap_or(100.0) } else { system as f64 };
            Ok([(load.rate(), value)].into())
        }

        fn go_on(&self) -> Result<()> {
            ensure!(self.asked.len() < self.stop_after, "interrupted");
            Ok(())
        }

        fn ended(&mut self, _round: usize, discarded: Option<&Discard>) {
            self.ended.push(discarded.is_none());
        }
    }

    fn plan(loads: &[Load], keep: usize, again: usize) -> Plan {
        Plan { loads: loads.into(), keep, again, until: None }
    }

    #[test]
    fn a_noisy_round_is_discarded_for_every_system_and_run_again() {
        let mut machine = Machine::new(&[100.0, 95.0, 100.0, 70.0, 100.0, 99.0]);
        let outcome = run(&plan(&[Load::Rr], 2, 1), &mut machine).unwrap();
        assert_eq!((outcome.kept, machine.ended), (2, vec![true, false, true]));
        let [discard] = &outcome.discarded[..] else { panic!("{outcome:?}") };
        assert_eq!((discard.round, discard.why[0].first, discard.why[0].last), (2, 100.0, 70.0));
        let of = |index: usize| outcome.samples[index].of(Metric::RrPerS);
        assert_eq!((of(0), of(1), of(2)), (vec![97.5, 99.5], vec![1.0, 1.0], vec![2.0, 2.0]));
    }

    #[test]
    fn each_load_begins_and_ends_with_the_bare_host_and_everybody_else_has_it_once_in_between() {
        let mut machine = Machine::new(&[]);
        run(&plan(&[Load::Rr, Load::Udp64], 1, 0), &mut machine).unwrap();
        for (asked, load) in machine.asked.chunks_exact(4).zip([Load::Rr, Load::Udp64]) {
            assert_eq!((asked[0], asked[3]), ((0, load), (0, load)));
            let mut between = asked[1..3].to_vec();
            between.sort_unstable();
            assert_eq!(between, [(1, load), (2, load)]);
        }
        assert_eq!(machine.asked.len(), 8);
    }

    #[test]
    fn a_round_that_is_lost_ends() {
        let mut machine = Machine::new(&[100.0, 50.0]);
        let outcome = run(&plan(&[Load::Rr, Load::Udp64], 1, 1), &mut machine).unwrap();
        assert_eq!((outcome.kept, outcome.discarded.len(), machine.asked.len()), (1, 1, 4 + 8));
    }

    #[test]
    fn there_is_an_end_to_a_machine_that_is_never_still() {
        let mut machine = Machine::new(&[100.0, 50.0].repeat(20));
        let outcome = run(&plan(&[Load::Tcp1], 3, 4), &mut machine).unwrap();
        assert_eq!((outcome.kept, outcome.discarded.len()), (0, 7));
        let past = Plan { until: Some(Instant::now()), ..plan(&[Load::Tcp1], 3, 4) };
        assert_eq!(run(&past, &mut machine).unwrap().kept, 0);
    }

    #[test]
    fn a_system_that_fails_twice_is_out_and_one_that_fails_once_is_not() {
        let mut machine = Machine { failing: 1, ..Machine::new(&[]) };
        assert_eq!(run(&plan(&[Load::Rr], 2, 0), &mut machine).unwrap().failed, []);
        machine.failing = 2;
        let outcome = run(&plan(&[Load::Rr], 2, 0), &mut machine).unwrap();
        let why = "Rr: no route to host".to_owned();
        assert_eq!(outcome.failed, [Failure { system: "two".to_owned(), why }]);
        let systems: Vec<_> = outcome.samples.iter().map(|samples| &samples.system[..]).collect();
        assert_eq!((systems, outcome.samples[1].rounds.len()), (vec!["bare", "one"], 2));
    }

    #[test]
    fn ctrl_c_ends_it_and_blames_nobody() {
        let mut machine = Machine { stop_after: 3, ..Machine::new(&[]) };
        let error = run(&plan(&[Load::Rr], 2, 0), &mut machine).unwrap_err();
        assert_eq!(format!("{error:#}"), "the bare host: interrupted");
    }

    proptest! {
        #[test]
        fn exactly_the_rounds_that_the_rule_keeps_count(bare in prop::collection::vec(1.0..100.0_f64, 2..40)) {
            let pairs = bare.chunks_exact(2).map(|pair| (pair[0], pair[1]));
            let still = pairs.filter(|(first, last)| (first - last).abs() <= LIMIT * first.max(*last)).count();
            let rounds = bare.len() / 2;
            let mut machine = Machine::new(&bare[..rounds * 2]);
            let outcome = run(&plan(&[Load::Tcp1], rounds, 0), &mut machine).unwrap();
            prop_assert_eq!((outcome.kept, outcome.discarded.len()), (still, rounds - still));
            prop_assert!(outcome.samples.iter().all(|samples| samples.rounds.len() == still));
        }
    }
}
