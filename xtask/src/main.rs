//! The project's own commands: `cargo xtask <command>`. One file per command.

mod bench;
mod build_ebpf;
mod check;
mod command;
mod demo;
mod elf;
mod fuzz;
mod lab;
mod next;
mod setup;
mod tally;
mod test;
mod vm;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "overlayd's own commands")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what is missing to build, run and test, and nothing else
    Setup(setup::Args),
    /// Build the eBPF object that overlayd embeds
    BuildEbpf(build_ebpf::Args),
    /// Hosts with containers and overlayd, as network namespaces on one wire
    Lab(lab::Args),
    /// Bring a lab up, show containers on two hosts talking, and clean up
    Demo(demo::Args),
    /// Run the tests
    Test(test::Args),
    /// Feed mutated packets to the loaded programs, or bytes to the parsers
    Fuzz(fuzz::Args),
    /// Compare overlayd with what it replaces, on the same hosts and the same wire
    Bench(bench::Args),
    /// Run a command, or the tests that depend on it, under other Linux kernels
    Vm(vm::Args),
    /// Formatting, lints and documentation, warnings denied
    Check(check::Args),
}

fn main() -> std::process::ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Setup(args) => setup::run(&args),
        Command::BuildEbpf(args) => build_ebpf::run(&args),
        Command::Lab(args) => lab::run(args),
        Command::Demo(args) => demo::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Vm(args) => vm::run(&args),
        Command::Check(args) => check::run(&args),
    }
}
