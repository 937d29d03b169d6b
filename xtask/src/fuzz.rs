//! `cargo xtask fuzz`: distinct mutated packets through the loaded programs, or bytes through the parsers.

mod parsers;

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use crate::{command, setup, test};

/// Arguments.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Mutated packets to run through the programs, each another
    #[arg(long, value_name = "N", default_value_t = 10_000_000)]
    packets: u64,
    /// Where the random numbers start: the same seed makes the same packets on as many CPUs
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Run the input in this file again, and the committed corpus, instead
    #[arg(long, value_name = "FILE", conflicts_with = "parsers")]
    replay: Option<PathBuf>,
    /// Fuzz what reads bytes on the host instead, with cargo-fuzz
    #[arg(long)]
    parsers: bool,
    /// Seconds for each parser
    #[arg(long, value_name = "N", default_value_t = 60, requires = "parsers")]
    seconds: u32,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    setup::ensure(setup::Set::Build)?;
    if args.parsers {
        return parsers::run(args.seconds);
    }
    if args.packets == 0 {
        bail!("--packets 0: there is nothing to run");
    }
    programs(args)
}

/// Runs the one test that fuzzes the programs, in release and as root.
fn programs(args: &Args) -> Result<()> {
    let target = command::target_dir()?;
    test::mount_bpffs()?;
    let mut variables = vec![
        ("OVERLAYD_FUZZ_PACKETS", args.packets.to_string()),
        ("OVERLAYD_FUZZ_SEED", args.seed.to_string()),
    ];
    let name = match &args.replay {
        None => "fuzz::nothing_is_accepted_but_what_a_peer_may_send",
        Some(file) => {
            let file = file.canonicalize().with_context(|| format!("cannot read {}", file.display()))?;
            variables.push(("OVERLAYD_FUZZ_REPLAY", file.display().to_string()));
            "fuzz::corpus::the_corpus_is_judged_as_any_other_input"
        }
    };
    let mut cargo = test::root_test(&target, &variables, &["--release", "--test", "programs"]);
    command::run(cargo.args(["--", "--exact", "--nocapture", name]))
}
