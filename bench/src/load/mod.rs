//! The load generator: one end of a measurement, in a process of its own, in its side's network namespace and on
//! its CPU. Blocking sockets with the kernel's defaults, messages of 64 bytes, nothing batched.

mod connection;
mod datagrams;
mod latency;
mod place;
mod transactions;
mod window;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use anyhow::Result;
use serde::{Deserialize, Serialize};

pub use self::window::WARM_UP;

/// Bytes of payload in every message.
pub const MESSAGE: usize = 64;

/// How long either end waits for the other before it gives up.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the ends do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Request and response over one TCP connection, one at a time.
    Rr,
    /// A TCP connection for each request and response.
    Crr,
    /// UDP as fast as one socket sends, one way.
    Udp,
}

impl Kind {
    /// As on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rr => "rr",
            Self::Crr => "crr",
            Self::Udp => "udp",
        }
    }
}

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The network namespace to run in
    #[arg(long, value_name = "PATH")]
    netns: PathBuf,
    /// The CPU to stay on
    #[arg(long, value_name = "N")]
    cpu: usize,
    /// What to do
    #[arg(long)]
    kind: Kind,
    /// The measured time, after the warm-up
    #[arg(long, value_name = "MS")]
    milliseconds: u32,
    #[command(subcommand)]
    end: End,
}

/// Which end this is.
#[derive(Debug, clap::Subcommand)]
enum End {
    /// Listens, and prints the port and at last what it counted
    Serve {
        /// The address to listen on
        address: IpAddr,
    },
    /// Connects and sends, and prints what it counted
    Drive {
        /// The address and port of the other end
        to: SocketAddr,
    },
}

/// The first line of the end that listens.
#[derive(Debug, Serialize, Deserialize)]
pub struct Listening {
    /// Where the other end is to connect.
    pub port: u16,
}

/// The last line of the end that listens.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Served {
    /// Transactions answered or datagrams received, with those of the warm-up and after the window.
    pub total: u64,
    /// Datagrams received in the window; 0 for transactions, which the other end times.
    pub counted: u64,
    /// How long the window was.
    pub seconds: f64,
}

/// The last line of the end that connects.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Driven {
    /// Transactions completed or datagrams sent, with those of the warm-up.
    pub total: u64,
    /// Those in the window.
    pub counted: u64,
    /// Datagrams that the kernel refused to send.
    pub refused: u64,
    /// How long the window was.
    pub seconds: f64,
    /// What the whole machine's CPUs worked in the window, in seconds.
    pub busy_seconds: f64,
    /// Round trips in the window; 0 where none is timed.
    pub p50_us: f64,
    /// As `p50_us`.
    pub p99_us: f64,
}

/// Runs one end.
///
/// # Errors
/// The namespace cannot be entered, or the other end does not answer.
pub fn run(args: &Args) -> Result<()> {
    place::enter(&args.netns, args.cpu)?;
    let time = Duration::from_millis(args.milliseconds.into());
    match (&args.end, args.kind) {
        (End::Serve { address }, Kind::Rr) => say(&transactions::serve_one_connection(*address, listening)?),
        (End::Serve { address }, Kind::Crr) => say(&transactions::serve_connections(*address, listening)?),
        (End::Serve { address }, Kind::Udp) => say(&datagrams::receive(*address, time, listening)?),
        (End::Drive { to }, Kind::Rr) => say(&transactions::over_one_connection(*to, time)?),
        (End::Drive { to }, Kind::Crr) => say(&transactions::over_connections(*to, time)?),
        (End::Drive { to }, Kind::Udp) => say(&datagrams::send(*to, time)?),
    }
}

fn listening(port: u16) -> Result<()> {
    say(&Listening { port })
}

/// One line of JSON; stdout flushes at its end.
fn say(what: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(what)?);
    Ok(())
}
