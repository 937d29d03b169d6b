//! The systems of one wire, all up at once, so that rounds can go from one to the next.

use std::time::Duration;

use anyhow::{Context as _, Result};
use harness::interrupt;

use crate::{
    measure::{Figures, Generator, Load},
    rounds::{Bed, Discard, Failure, LIMIT, Outcome},
    systems::{self, System, Wire},
};

/// Those that came up; dropping it removes them.
pub(super) struct Systems {
    wire: Wire,
    generator: Generator,
    up: Vec<Box<dyn System>>,
    time: Duration,
    /// Those that did not.
    pub(super) failed: Vec<Failure>,
}

impl Systems {
    /// Brings them up. Only the bare host must.
    pub(super) fn up(names: &[&str], wire: Wire, seconds: u16) -> Result<Self> {
        let time = Duration::from_secs(seconds.into());
        let generator = Generator::this()?;
        let mut systems = Self { wire, generator, up: Vec::new(), time, failed: Vec::new() };
        for (nth, name) in names.iter().enumerate() {
            interrupt::check()?;
            eprintln!("==> {wire} wire: {name}");
            match systems::up(name, wire) {
                Ok(system) => systems.up.push(system),
                Err(error) if nth == 0 => return Err(error).context("the bare host did not come up"),
                Err(error) => systems.fails(name, "does not come up", &error),
            }
        }
        Ok(systems)
    }

    fn fails(&mut self, name: &str, how: &str, error: &anyhow::Error) {
        eprintln!("==> {} wire: {name} {how}: {error:#}", self.wire);
        self.failed.push(Failure { system: name.to_owned(), why: format!("{how}: {error:#}") });
    }

    /// Each system in its own words.
    pub(super) fn describe(&self) -> Vec<(String, String)> {
        self.up.iter().map(|system| (system.name().to_owned(), system.describe())).collect()
    }

    /// Figures of a path that was lost on the way are none.
    pub(super) fn check_again(&mut self, outcome: &mut Outcome) {
        let checks: Vec<_> =
            self.up.iter().map(|system| (system.name().to_owned(), system.check())).collect();
        for (name, check) in checks {
            let Err(error) = check else { continue };
            if outcome.samples.iter().any(|samples| samples.system == name) {
                outcome.samples.retain(|samples| samples.system != name);
                self.fails(&name, "has lost its path", &error);
            }
        }
    }
}

impl Bed for Systems {
    fn systems(&self) -> Vec<String> {
        self.up.iter().map(|system| system.name().to_owned()).collect()
    }

    fn measure(&mut self, system: usize, load: Load) -> Result<Figures> {
        let system = &self.up[system];
        let figures = load.run(&self.generator, system.client(), system.server(), self.time);
        match &figures {
            Ok(figures) => {
                let shown: Vec<_> =
                    figures.iter().map(|(metric, value)| format!("{metric} {value:.3}")).collect();
                eprintln!("    {} {}: {}", self.wire, system.name(), shown.join(", "));
            }
            Err(error) => eprintln!("    {} {}: {load:?} failed: {error:#}", self.wire, system.name()),
        }
        figures
    }

    fn go_on(&self) -> Result<()> {
        interrupt::check()
    }

    fn ended(&mut self, round: usize, discarded: Option<&Discard>) {
        let Some(Discard { why, .. }) = discarded else {
            return eprintln!("==> {} wire: round {round} is kept", self.wire);
        };
        for why in why {
            let (metric, first, last, limit) = (why.metric, why.first, why.last, LIMIT * 100.0);
            eprintln!(
                "==> {} wire: round {round} is discarded: the bare host's {metric} went from {first:.2} to {last:.2}, the limit is {limit:.0} %",
                self.wire
            );
        }
    }
}
