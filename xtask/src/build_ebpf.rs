//! `cargo xtask build-ebpf`: the object that overlayd embeds, and what is in it.

use std::fs;

use anyhow::{Context, Result};
use ebpf_build::{Recipe, Toolchain};

use crate::{command, elf, setup};

/// Arguments.
#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: &Args) -> Result<()> {
    setup::ensure(setup::Set::Build)?;
    let recipe = Recipe {
        workspace: &command::workspace(),
        package: ebpf_build::PACKAGE,
        target_dir: &ebpf_build::target_dir(&command::target_dir()?),
        host_arch: std::env::consts::ARCH,
    };
    let object = Toolchain::find()?.build(&recipe)?;
    let file = fs::read(&object).with_context(|| format!("cannot read {}", object.display()))?;
    println!("{} ({} bytes)", object.display(), file.len());
    let programs = elf::programs(&file).with_context(|| format!("{} is no ELF object", object.display()))?;
    for program in programs {
        println!("  {program}");
    }
    Ok(())
}
