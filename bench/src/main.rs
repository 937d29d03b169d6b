//! The benchmark's binary, which `cargo xtask bench` builds and runs as root.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "overlay-bench", about = "Benchmarks of overlayd")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// What each program costs a packet
    Programs(overlay_bench::programs::Args),
}

fn main() -> ExitCode {
    let Command::Programs(args) = Cli::parse().command;
    match overlay_bench::programs::run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
