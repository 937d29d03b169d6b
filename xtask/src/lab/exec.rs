//! `cargo xtask lab exec`.

use std::{os::unix::process::CommandExt, process::Command};

use anyhow::{Context, Result};

use super::state::{self, State};

/// Arguments.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The lab's name
    #[arg(long, default_value = state::DEFAULT_NAME)]
    name: String,
    /// A host, `h1`, or a container, `h1/c1`
    host: String,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Becomes the command, so that its terminal, its signals and its exit code are its own.
pub(super) fn run(args: &Args) -> Result<()> {
    let lab = State::load(&args.name)?;
    let netns = lab.netns(&args.host)?;
    // The mount namespace stays: the pins on bpffs are seen from there.
    let mut nsenter = Command::new("nsenter");
    nsenter.arg(format!("--net={}", netns.display())).arg("--").args(&args.command);
    Err(nsenter.exec()).context("cannot start nsenter")
}
