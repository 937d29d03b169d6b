//! `cargo xtask bench daemon`: what a daemon with very many peers costs. A real etcd in one namespace, the real release
//! binary in another.
//!
//! | figure | from | to |
//! |---|---|---|
//! | cold start | etcd's answer to the daemon's first read (the network's configuration), by the daemon's own clock | the last route seen in the maps from outside |
//! | event to map | the answer to the put or delete, as etcd's client gets it | the entry, as a loop of `bpf(2)` look-ups sees it |
//! | memory | `VmRSS`, `VmHWM` of `/proc/PID/status` | |
//! | CPU at rest | user and system time of `/proc/PID/stat` | |

mod changes;
mod client;
mod figures;
mod maps;
mod peers;
mod process;
mod report;
mod round;
mod start;

use std::path::PathBuf;

use anyhow::{Context, Result};
use harness::interrupt;

use self::{figures::Figures, peers::Table, report::Report};

/// Arguments.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// How many peers
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(16..=12_000))]
    peers: u32,
    /// How many rounds of each table
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds at rest, and seconds of changes, in each round
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(2..))]
    seconds: u32,
    /// One round, 10 seconds each
    #[arg(long, conflicts_with_all = ["rounds", "seconds"])]
    quick: bool,
    /// Only peers with IPv4 alone, or only those with both versions
    #[arg(long, value_enum)]
    only: Option<Table>,
    /// Write the figures to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a page for docs/ to this file
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

/// What a round is to be.
#[derive(Clone, Copy, Debug)]
struct Plan {
    peers: u32,
    seconds: u32,
}

/// Runs all rounds, the tables in turn, and tells what came out.
///
/// # Errors
/// Something did not come up, or what is in the maps is wrong.
pub fn run(args: &Args) -> Result<()> {
    let (rounds, seconds) = if args.quick { (1, 10) } else { (args.rounds, args.seconds) };
    let plan = Plan { peers: args.peers, seconds };
    let tables: Vec<Table> =
        Table::ALL.into_iter().filter(|table| args.only.is_none_or(|only| only == *table)).collect();
    let mut figures: Vec<(Table, Figures)> =
        tables.iter().map(|table| (*table, Figures::default())).collect();
    interrupt::watch()?;
    for number in 1..=rounds {
        for (table, figures) in &mut figures {
            interrupt::check()?;
            eprintln!("round {number} of {rounds}: {} peers, {}", plan.peers, table.words());
            let round =
                round::run(plan, *table).with_context(|| format!("round {number}, {}", table.words()))?;
            figures.add(&round);
            eprintln!("{}", figures.last());
        }
    }
    let report = Report::new(plan, figures);
    println!("{}", report.text());
    if let Some(file) = &args.json {
        report.write_json(file)?;
    }
    if let Some(file) = &args.markdown {
        report.write_markdown(file)?;
    }
    Ok(())
}
