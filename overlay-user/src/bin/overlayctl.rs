//! The operator's tool.

use std::process::ExitCode;

use clap::Parser;
use overlay_user::{ctl, exit};

fn main() -> ExitCode {
    exit::report("overlayctl", ctl::run(&ctl::Cli::parse()))
}
