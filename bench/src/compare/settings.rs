//! What a run does, from its arguments.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::Args;
use crate::{
    measure::Load,
    rounds::{Failure, Plan},
    systems::{self, Wire},
};

/// The noise rule's measure; without it there is no run.
const BARE: &str = "bare";

/// Of a full run.
const ROUNDS: u16 = 5;
const SECONDS: u16 = 2;

/// Of a quick one: what a change of the data path is to be seen by.
const QUICK_SYSTEMS: [&str; 7] = [
    BARE,
    "host-gw",
    "kernel-vxlan",
    "docker-overlay",
    "overlayd-auto",
    "overlayd-tc-vxlan",
    "overlayd-xdp-vxlan",
];
const QUICK_LOADS: [Load; 3] = [Load::Tcp1, Load::Rr, Load::Udp64];
const QUICK_ROUNDS: u16 = 3;
const QUICK_SECONDS: u16 = 1;
/// Rounds that start later would end after six minutes.
const QUICK_TIME: Duration = Duration::from_secs(310);

/// What to do.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) wires: Vec<Wire>,
    systems: Vec<String>,
    pub(super) plan: Plan,
    pub(super) seconds: u16,
    /// Nothing was left out.
    pub(super) full: bool,
    time: Option<Duration>,
}

impl Settings {
    pub(super) fn of(args: &Args) -> Self {
        let default = if args.quick { &QUICK_SYSTEMS[..] } else { systems::all() };
        let wanted =
            |name: &str| args.system.is_empty() || name == BARE || args.system.iter().any(|s| s == name);
        let from = if args.system.is_empty() { default } else { systems::all() };
        let keep = args.rounds.unwrap_or(if args.quick { QUICK_ROUNDS } else { ROUNDS });
        let loads = if args.quick { QUICK_LOADS.to_vec() } else { Load::ALL.to_vec() };
        let wires = Wire::ALL.into_iter().filter(|wire| args.wire.is_empty() || args.wire.contains(wire));
        Self {
            wires: wires.collect(),
            systems: from.iter().filter(|name| wanted(name)).map(|name| (*name).to_owned()).collect(),
            // Twice as many again: a machine that spoils two rounds of three gives no figures.
            plan: Plan { loads, keep: keep.into(), again: 2 * usize::from(keep), until: None },
            seconds: args.seconds.unwrap_or(if args.quick { QUICK_SECONDS } else { SECONDS }),
            full: !args.quick && args.wire.is_empty() && args.system.is_empty(),
            time: (args.quick && args.rounds.is_none() && args.seconds.is_none()).then_some(QUICK_TIME),
        }
    }

    /// When the rounds of a wire have to end: those still to come share what time is left.
    pub(super) fn until(&self, begin: Instant, nth: usize) -> Option<Instant> {
        let now = Instant::now();
        let left = (begin + self.time?).saturating_duration_since(now);
        Some(now + left / u32::try_from(self.wires.len() - nth).unwrap_or(1))
    }

    /// The systems that this machine can have; the others are told, and noted.
    pub(super) fn possible(&self, missing: &mut Vec<Failure>) -> Result<Vec<&str>> {
        let mut possible = Vec::new();
        for name in &self.systems {
            match systems::missing(name)? {
                None => possible.push(name.as_str()),
                Some(why) if name == BARE => bail!("the bare host cannot be measured: {why}"),
                Some(why) => {
                    eprintln!("==> {name} is left out: {why}");
                    missing.push(Failure { system: name.clone(), why });
                }
            }
        }
        Ok(possible)
    }
}

/// Parses a wire's name.
pub(super) fn wire(name: &str) -> Result<Wire, String> {
    let known = Wire::ALL.into_iter().find(|wire| wire.to_string() == name);
    known.ok_or_else(|| {
        format!("there is no such wire: it is one of {}", Wire::ALL.map(|w| w.to_string()).join(", "))
    })
}

/// Parses a system's name.
pub(super) fn system(name: &str) -> Result<String, String> {
    let known = systems::all().contains(&name).then(|| name.to_owned());
    known.ok_or_else(|| format!("there is no such system: it is one of {}", systems::all().join(", ")))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn settings(line: &str) -> Settings {
        Settings::of(&Cli::try_parse_from(line.split(' ')).unwrap().args)
    }

    #[test]
    fn a_full_run_leaves_nothing_out() {
        let settings = settings("bench");
        assert!(settings.full && settings.plan.keep == 5 && settings.time.is_none());
        assert_eq!((&settings.wires[..], &settings.plan.loads[..]), (&Wire::ALL[..], &Load::ALL[..]));
        assert_eq!(settings.systems, systems::all());
    }

    #[test]
    fn a_quick_run_is_bounded_and_every_system_in_it_exists() {
        let settings = settings("bench --quick");
        assert_eq!((settings.full, settings.plan.keep, settings.time), (false, 3, Some(QUICK_TIME)));
        assert!(QUICK_SYSTEMS.iter().all(|name| systems::all().contains(name)));
        let (begin, now) = (Instant::now(), Instant::now());
        let [first, second] = [0, 1].map(|nth| settings.until(begin, nth).unwrap() - now);
        assert!(
            first <= QUICK_TIME / 2 + Duration::from_secs(1) && second > QUICK_TIME / 2,
            "{first:?} {second:?}"
        );
    }

    #[test]
    fn the_bare_host_is_always_in_it() {
        let settings = settings("bench --system overlayd-auto,host-gw --wire mtu --rounds 2 --seconds 3");
        assert_eq!(settings.systems, ["bare", "host-gw", "overlayd-auto"]);
        assert_eq!((settings.wires, settings.plan.keep, settings.seconds), (vec![Wire::Mtu], 2, 3));
        assert!(!settings.full);
    }

    #[test]
    fn names_that_do_not_exist_are_refused_with_those_that_do() {
        let refused = |line: &str| Cli::try_parse_from(line.split(' ')).err().unwrap().to_string();
        assert!(refused("bench --system overlayd").contains("it is one of bare, host-gw"));
        assert!(refused("bench --wire fiber").contains("it is one of veth, mtu"));
        assert!(refused("bench --rounds 0").contains("1..=100"));
    }
}
