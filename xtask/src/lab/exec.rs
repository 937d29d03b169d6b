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
    let place = lab.find(&args.host)?;
    let netns = place.netns()?;
    // The mount namespace stays: the pins on bpffs are seen from there.
    let mut nsenter = Command::new("nsenter");
    nsenter.arg(format!("--net={}", netns.display())).arg("--").args(&args.command);
    if let Some(docker) = place.host.docker()? {
        // For the docker command: the host's own engine, not the machine's.
        nsenter.env("DOCKER_HOST", format!("unix://{}", docker.socket().display()));
        nsenter.env_remove("DOCKER_CONTEXT");
    }
    Err(nsenter.exec()).context("cannot start nsenter")
}
