//! `cargo xtask lab up`.

use anyhow::{Context, Result};
use harness::{Scope, Topology, docker::OnHost, topology::Builder};

use super::{binaries, interrupt, root, state, state::State};
use crate::setup;

/// Arguments.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many hosts
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=24))]
    hosts: u8,
    /// How many containers on each
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=200))]
    containers: u8,
    /// The lab's name; several can be up at once
    #[arg(long, default_value = state::DEFAULT_NAME)]
    name: String,
    /// Make each host a real Docker engine, and the containers real ones
    #[arg(long)]
    docker: bool,
}

pub(super) fn run(args: &Args) -> Result<()> {
    prepare(args.docker)?;
    state::ensure_free(&args.name)?;
    interrupt::watch()?;
    let builder = builder(args.docker).hosts(args.hosts.into()).containers(args.containers.into());
    let topology = builder
        .progress(interrupt::step)
        .up_in(Scope::named(&args.name)?)
        .with_context(|| format!("the lab `{}` did not come up, and is removed again", args.name))?;
    // A failure or a signal drops the topology up to here.
    let lab = State::of(&topology);
    interrupt::check()?;
    lab.save()?;
    topology.keep();
    println!("{lab}");
    Ok(())
}

/// Two hosts that are namespaces, or Docker engines which live on when the topology is kept.
pub(crate) fn builder(docker: bool) -> Builder {
    let builder = Topology::builder();
    if docker {
        builder.engine(|index, scope| Box::new(OnHost::new(index, scope).persistent()))
    } else {
        builder
    }
}

/// Installs what is missing, builds, and goes on as root.
pub(crate) fn prepare(docker: bool) -> Result<()> {
    if !root::is_second_run() {
        println!("==> setup");
        setup::ensure(if docker { setup::Set::Docker } else { setup::Set::Lab })?;
        println!("==> build");
        binaries::build()?;
    }
    root::ensure()
}
