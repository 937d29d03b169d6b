//! What `cargo xtask bench` builds in release and runs as root.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use overlay_bench::{compare, daemon, load};

/// overlayd beside what it replaces, on the same hosts and the same wire
#[derive(Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench", args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    compare: compare::Args,
}

#[derive(Subcommand)]
enum Command {
    /// What a daemon with very many peers costs
    Daemon(daemon::Args),
    /// One end of the load generator
    #[command(hide = true)]
    Load(load::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match &cli.command {
        None => compare::run(&cli.compare),
        Some(Command::Daemon(args)) => daemon::run(args),
        Some(Command::Load(args)) => load::run(args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
