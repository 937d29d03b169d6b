//! `overlayctl`: what the pinned maps say, and who leases what in etcd, as tables for people and as JSON for programs.
//! Works with the daemon dead.

pub mod decode;
pub mod follow;
pub mod leases;
pub mod report;
pub mod sample;
pub mod show;
pub mod uplinks;

use std::path::PathBuf;

use anyhow::ensure;
use clap::{
    Parser, Subcommand, ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser},
};
use nix::unistd::geteuid;
use overlay_common::DropReason;

use crate::{
    config::default,
    datapath::{map::Maps, pin::Pins},
    exit::{self, Failure},
};

/// The operator's tool for overlayd: reads the pinned maps, so it works with the daemon dead
#[derive(Debug, Parser)]
#[command(name = "overlayctl", version, after_help = EXIT_CODES)]
pub struct Cli {
    /// The daemon's pin directory
    #[arg(long, global = true, env = "OVERLAYD_PIN_DIR", value_name = "DIR", default_value = default::PIN_DIR)]
    pin_dir: PathBuf,
    /// The form of the output
    #[arg(short, long, global = true, value_name = "FORM", default_value = "table")]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 ok, 1 error, 2 usage, 3 degraded, 4 not running";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    Table,
    /// For programs
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// This host: its VTEP, its uplink, its store, the daemon
    Status,
    /// The hosts whose packets are believed, and the traffic with each
    Peers,
    /// The peers' subnets, and how each is reached
    Routes,
    /// The local addresses, and the interfaces behind which they live
    Endpoints,
    /// Packets dropped, by reason; with --follow each as it is dropped
    Drops {
        /// Print dropped packets as they come, a sample of each reason, until it is ended
        #[arg(long)]
        follow: bool,
        /// Tell of this reason only
        #[arg(long, value_name = "NAME", value_parser = reasons())]
        reason: Option<DropReason>,
    },
    /// The subnets' keys in etcd, of all hosts: who holds which, and which are reserved
    Leases(Box<leases::Leases>),
}

/// Runs a command and prints its report. Returns the exit code.
///
/// # Errors
/// One line; with exit code 4 where no overlayd has pinned anything.
pub fn run(cli: &Cli) -> anyhow::Result<u8> {
    let json = cli.output == Output::Json;
    match &cli.command {
        // Nothing needs to be pinned here.
        Command::Leases(leases) => leases::run(leases, json),
        Command::Status => {
            let status = report::status(&open(cli)?.1)?;
            show::print(json, &status, show::status)?;
            Ok(status.exit_code())
        }
        Command::Peers => show::print(json, &report::peers(&open(cli)?.1)?, |peers| show::peers(peers)),
        Command::Routes => show::print(json, &report::routes(&open(cli)?.1)?, |routes| show::routes(routes)),
        Command::Endpoints => {
            show::print(json, &report::endpoints(&open(cli)?.1)?, |list| show::endpoints(list))
        }
        Command::Drops { follow: true, reason } => {
            let (pins, maps) = open(cli)?;
            follow::run(&pins, maps, follow::Wanted { json, reason: *reason })
        }
        Command::Drops { follow: false, reason } => {
            show::print(json, &report::drops(&open(cli)?.1, *reason)?, |drops| show::drops(drops))
        }
    }
}

/// Opens the pinned maps.
fn open(cli: &Cli) -> anyhow::Result<(Pins, Maps)> {
    let pins = Pins::new(&cli.pin_dir);
    if !pins.is_here() && pins.exist() {
        let message = format!(
            "the data path under {} is of another build of overlayd: use the overlayctl that came with it",
            cli.pin_dir.display()
        );
        return Err(Failure::new(exit::NOT_RUNNING, message).into());
    }
    if !pins.is_here() {
        // Where the directory is root's alone, nobody else can tell.
        ensure!(geteuid().is_root(), "pinned maps are root's: run it with sudo");
        let message = format!(
            "no overlayd runs here: nothing is pinned under {}; start it, or name its --pin-dir",
            cli.pin_dir.display()
        );
        return Err(Failure::new(exit::NOT_RUNNING, message).into());
    }
    let maps = Maps::open(&pins).map_err(|error| {
        let error = anyhow::Error::from(error);
        if geteuid().is_root() { error } else { error.context("pinned maps are root's: run it with sudo") }
    })?;
    Ok((pins, maps))
}

/// The names of the drop reasons; clap lists them where it gets another.
fn reasons() -> impl TypedValueParser<Value = DropReason> {
    let by_name = |name: &str| DropReason::ALL.iter().copied().find(|reason| reason.name() == name);
    PossibleValuesParser::new(DropReason::ALL.iter().map(|reason| reason.name()))
        .try_map(move |name| by_name(&name).ok_or("not a drop reason"))
}
