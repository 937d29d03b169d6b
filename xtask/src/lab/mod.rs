//! `cargo xtask lab`: hosts with containers and overlayd, as network namespaces on one wire, to play with.

pub(crate) mod binaries;
mod exec;
pub(crate) mod root;
pub(crate) mod state;
pub(crate) mod up;

use std::time::Duration;

use anyhow::{Result, bail};
pub(crate) use harness::interrupt;
use harness::scope::{self, Remains};

use state::State;

/// How long a daemon has to end by itself.
const GRACE: Duration = Duration::from_secs(3);

/// Arguments.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Build overlayd and bring a lab up
    Up(up::Args),
    /// Remove a lab, also what a crash left of it
    Down(Name),
    /// What overlayctl says on each host
    Status(Name),
    /// Run a command on a host (`h1`) or in a container (`h1/c1`)
    Exec(exec::Args),
}

#[derive(clap::Args)]
pub(crate) struct Name {
    /// The lab's name
    #[arg(long, default_value = state::DEFAULT_NAME)]
    name: String,
}

pub(crate) fn run(args: Args) -> Result<()> {
    match args.command {
        Command::Up(args) => up::run(&args),
        Command::Down(Name { name }) => {
            root::ensure()?;
            down(&name)
        }
        Command::Status(Name { name }) => {
            root::ensure()?;
            status(&name)
        }
        Command::Exec(args) => {
            root::ensure()?;
            exec::run(&args)
        }
    }
}

/// Works from the name alone, so that it needs no state file of an `up` that came to its end.
fn down(name: &str) -> Result<()> {
    let remains = Remains::of(name);
    let had_state = state::remove(name)?;
    if remains.is_empty() && !had_state {
        println!("there is no lab `{name}`");
        return Ok(());
    }
    let trouble = scope::remove(name, GRACE);
    if !trouble.is_empty() {
        bail!("the lab `{name}` is not all gone:\n{}", trouble.join("\n"));
    }
    let engines = match remains.engines.len() {
        0 => String::new(),
        number => format!(" and {number} Docker engines"),
    };
    println!("the lab `{name}` is gone: {} namespaces{engines} removed", remains.namespaces.len());
    Ok(())
}

fn status(name: &str) -> Result<()> {
    let lab = State::load(name)?;
    let mut failed = Vec::new();
    for host in &lab.hosts {
        println!("==> {} ({}), log {}", host.name, host.ip, host.log.display());
        let output = harness::overlayd::overlayctl(&host.netns, &host.pin_dir, &["status"])?;
        print!("{}", output.stdout);
        eprint!("{}", output.stderr);
        if let Some(docker) = host.docker()? {
            match docker.docker(&["ps", "--all", "--format", "docker     {{.Names}}: {{.Status}}"]) {
                Ok(containers) => println!("{containers}"),
                Err(error) => {
                    eprintln!("{error:#}");
                    failed.push(host.name.as_str());
                    continue;
                }
            }
        }
        // 3 says that it is degraded, and has said why.
        if !matches!(output.code, Some(0 | 3)) {
            failed.push(host.name.as_str());
        }
    }
    if failed.is_empty() { Ok(()) } else { bail!("no status of {}", failed.join(", ")) }
}
