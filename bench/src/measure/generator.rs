//! Both ends of the load generator: starts the one that listens, then the other, and reads what each counted.

use std::{env, ffi::OsStr, net::SocketAddr, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;

use super::spoken::Spoken;
use crate::{
    load::{Driven, Kind, Listening, Served, WARM_UP},
    systems::Side,
};

/// To start, to enter a namespace, to connect, and to end.
const PATIENCE: Duration = Duration::from_secs(8);

/// The program that has [`crate::load`] as its subcommand `load`.
#[derive(Clone, Debug)]
pub struct Generator {
    program: PathBuf,
}

impl Generator {
    /// This program itself.
    ///
    /// # Errors
    /// It is not to be found.
    pub fn this() -> Result<Self> {
        Ok(Self::at(env::current_exe().context("cannot find this program")?))
    }

    /// The program at this path.
    pub fn at(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into() }
    }

    /// Runs a load from one side to the other.
    ///
    /// # Errors
    /// One of the ends failed, or did not end in time.
    pub fn run(&self, kind: Kind, client: &Side, server: &Side, time: Duration) -> Result<(Driven, Served)> {
        let patience = WARM_UP + time + PATIENCE;
        let mut serving = self.start(kind, server, time, "serve", server.address.to_string())?;
        let Listening { port } = read(&mut serving, PATIENCE)?;
        let to = SocketAddr::new(server.address, port);
        let mut driving = self.start(kind, client, time, "drive", to.to_string())?;
        let driven = read(&mut driving, patience)?;
        Ok((driven, read(&mut serving, PATIENCE)?))
    }

    fn start(&self, kind: Kind, side: &Side, time: Duration, end: &str, what: String) -> Result<Spoken> {
        let (cpu, milliseconds) = (side.cpu.to_string(), time.as_millis().to_string());
        let place = [OsStr::new("--netns"), side.netns.as_os_str(), OsStr::new("--cpu"), OsStr::new(&cpu)];
        let mut command = Command::new(&self.program);
        command.arg("load").args(place).args(["--milliseconds", &milliseconds]);
        command.args(["--kind", kind.name(), end, &what]);
        Spoken::start(format!("{} {end} of {}", kind.name(), side.name), &mut command)
    }
}

fn read<T: DeserializeOwned>(from: &mut Spoken, within: Duration) -> Result<T> {
    let line = from.line(within, |_| true)?;
    serde_json::from_str(&line).with_context(|| format!("unexpected words of a load generator: {line}"))
}
