//! What the daemon's log says of its start.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

/// A start: when it was over, and how long its phases took, in their order.
#[derive(Clone, Debug)]
pub(super) struct Start {
    /// When etcd's first answer was there.
    pub(super) answered: SystemTime,
    /// Milliseconds.
    pub(super) total: f64,
    /// Milliseconds each.
    pub(super) phases: Vec<(String, f64)>,
}

impl Start {
    /// Reads `TIME INFO started in 523.1 ms: network 3.2, subnets 41.5, …`.
    pub(super) fn of(log: &str) -> Result<Self> {
        let words = "started in ";
        let line = log.lines().find(|line| line.contains(words)).context("the log tells of no start")?;
        let parse = || {
            let time = time(line.split_whitespace().next()?)?;
            let (total, phases) = line.split_once(words)?.1.split_once(" ms: ")?;
            let phase = |text: &str| {
                let (name, took) = text.rsplit_once(' ')?;
                Some((name.to_owned(), took.parse().ok()?))
            };
            let phases = phases.split(", ").map(phase).collect::<Option<Vec<(String, f64)>>>()?;
            let total: f64 = total.parse().ok()?;
            let answer = phases.iter().position(|(name, _)| name == "network")?;
            let before: f64 = phases[..=answer].iter().map(|(_, took)| took).sum();
            let answered = time.checked_sub(Duration::from_secs_f64((total - before).max(0.0) / 1e3))?;
            Some(Self { answered, total, phases })
        };
        parse().with_context(|| format!("`{line}` is no word about a start"))
    }
}

/// `2026-11-21T20:03:18.123456Z`.
fn time(text: &str) -> Option<SystemTime> {
    let (date, clock) = text.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.splitn(3, '-').map(str::parse::<i64>);
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    let mut clock = clock.splitn(3, ':').map(str::parse::<f64>);
    let (hour, minute, second) = (clock.next()?.ok()?, clock.next()?.ok()?, clock.next()?.ok()?);
    // Days of a calendar whose years begin in March: the day that leap years have more is the last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    let seconds = days as f64 * 86_400.0 + hour * 3600.0 + minute * 60.0;
    // The fraction by itself, or it would lose its last digits.
    SystemTime::UNIX_EPOCH
        .checked_add(Duration::try_from_secs_f64(seconds).ok()?)?
        .checked_add(Duration::try_from_secs_f64(second).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        let seconds = |text| time(text).and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
        assert_eq!(seconds("1970-01-01T00:00:00.000000Z"), Some(Duration::ZERO));
        assert_eq!(seconds("2026-11-21T20:03:18.250000Z"), Some(Duration::from_millis(1_795_291_398_250)));
        assert_eq!(seconds("2000-02-29T00:00:01Z"), Some(Duration::from_secs(951_782_401)));
        assert_eq!(seconds("yesterday"), None);
    }

    #[test]
    fn a_start_is_read() {
        let log = "2026-11-21T20:03:17.0Z  INFO ready peers=3\n\
            2026-11-21T20:03:18.250000Z  INFO started in 100.0 ms: host 10.0, network 5.0, kernel routes 85.0\n";
        let start = Start::of(log).unwrap_or_else(|error| panic!("{error:#}"));
        let since = start.answered.duration_since(SystemTime::UNIX_EPOCH);
        assert_eq!(since.map(|since| since.as_millis()).ok(), Some(1_795_291_398_165));
        assert_eq!(start.phases[2], ("kernel routes".to_owned(), 85.0));
        assert!(Start::of("nothing").is_err());
    }
}
