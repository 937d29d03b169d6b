//! `cargo xtask bench daemon`, until the bench's own entry calls it.

use std::process::ExitCode;

use clap::Parser;
use overlay_bench::daemon;

/// What a daemon with very many peers costs
#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    daemon: daemon::Args,
}

fn main() -> ExitCode {
    match daemon::run(&Cli::parse().daemon) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
