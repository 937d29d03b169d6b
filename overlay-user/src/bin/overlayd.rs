//! The daemon, and `overlayd detach`, which removes every trace of it.

use std::{
    io::IsTerminal,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{self, ExitCode},
    time::Duration,
};

use clap::{Args, Parser, Subcommand};
use overlay_user::{
    config::{self, Config, Flags, LogFormat, default},
    daemon::{self, Ended},
    detach,
    exit::{self, Failure},
    lease, memory,
};
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// Joins the containers of many Docker hosts into one network, in eBPF
#[derive(Parser)]
#[command(
    name = "overlayd",
    version,
    args_conflicts_with_subcommands = true,
    after_help = "Exit codes: 0 ok, 1 error, 2 usage, 3 degraded, 4 not running"
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Run,
}

#[derive(Args, Clone)]
struct Run {
    /// A configuration file (TOML) with the flags' names as keys (`etcd_endpoints`, …); flags win
    #[arg(long, env = "OVERLAYD_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Subcommand)]
enum Command {
    /// End a running daemon and remove every trace: programs, maps, routes, and the announcement in etcd
    Detach(Detach),
    /// Lease a subnet of the network in etcd for this host's bridge, and write what Docker needs to know: before Docker starts
    Lease(Box<Lease>),
}

#[derive(Args)]
struct Lease {
    /// Where the subnet and the MTU are written, as variables
    #[arg(long, env = "OVERLAYD_SUBNET_FILE", value_name = "FILE", default_value = lease::SUBNET_FILE)]
    subnet_file: PathBuf,
    #[command(flatten)]
    run: Run,
}

#[derive(Args)]
struct Detach {
    /// The daemon's pin directory
    #[arg(long, env = "OVERLAYD_PIN_DIR", value_name = "DIR", default_value = default::PIN_DIR)]
    pin_dir: PathBuf,
    /// The daemon's state directory
    #[arg(long, env = "OVERLAYD_STATE_DIR", value_name = "DIR", default_value = default::STATE_DIR)]
    state_dir: PathBuf,
    /// The daemon's API socket
    #[arg(long, env = "OVERLAYD_SOCKET", value_name = "FILE", default_value = default::SOCKET)]
    socket: PathBuf,
    /// Seconds for which packets are still taken after the announcement is taken back
    #[arg(long, value_name = "SECONDS", default_value_t = detach::DRAIN.as_secs(), value_parser = clap::value_parser!(u64).range(..=60))]
    drain: u64,
}

fn main() -> ExitCode {
    memory::share();
    match exit::arguments("overlayd") {
        Ok(cli) => exit::report("overlayd", run(cli)),
        Err(code) => code,
    }
}

fn run(cli: Cli) -> anyhow::Result<u8> {
    match cli.command {
        Some(Command::Detach(Detach { pin_dir, state_dir, socket, drain })) => {
            start_log(LogFormat::Text);
            runtime()?.block_on(detach::run(&pin_dir, &state_dir, &socket, Duration::from_secs(drain)))
        }
        Some(Command::Lease(wanted)) => {
            let Lease { subnet_file, run } = *wanted;
            let (config, log_format) = configure(run)?;
            start_log(log_format);
            runtime()?.block_on(lease::run(config, &subnet_file))
        }
        None => {
            let (config, log_format) = configure(cli.run.clone())?;
            start_log(log_format);
            // Before there are other threads.
            daemon::hold_hang_ups();
            let ended = runtime()?.block_on(daemon::run(config, || configure(cli.run.clone()).map(drop)))?;
            match ended {
                Ended::Code(code) => Ok(code),
                Ended::Again => Err(again()),
            }
        }
    }
}

/// Becomes a new process of the same number, with the same arguments. Returns only where that fails.
fn again() -> anyhow::Error {
    // One that came before the next process holds it would be the end of that.
    daemon::hold_hang_ups();
    // The program may have been replaced by a newer one of the same name: that is the one to run.
    let program = std::env::args_os().next().unwrap_or_else(|| "overlayd".into());
    let error = process::Command::new(&program).args(std::env::args_os().skip(1)).exec();
    anyhow::anyhow!("cannot start {} again: {error}; the data path goes on forwarding", program.display())
}

/// Merges flags and file. What does not fit is a usage error.
fn configure(run: Run) -> anyhow::Result<(Config, LogFormat)> {
    let usage = |error: anyhow::Error| Failure::new(exit::USAGE, exit::one_line(&error));
    let flags = match &run.config {
        Some(path) => run.flags.over(config::read_file(path).map_err(usage)?),
        None => run.flags,
    };
    let flags = flags.over(Flags::of_flannel(|name| std::env::var(name).ok()).map_err(usage)?);
    let log_format = flags.log_format.unwrap_or_default();
    let config = flags.check().map_err(|error| {
        usage(match &run.config {
            Some(path) => error.context(format!("flags with configuration file {}", path.display())),
            None => error,
        })
    })?;
    Ok((config, log_format))
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

/// Logs to standard error. `OVERLAYD_LOG` chooses what, as in `OVERLAYD_LOG=debug`.
fn start_log(format: LogFormat) {
    let filter = EnvFilter::try_from_env("OVERLAYD_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        LogFormat::Text => registry
            .with(
                fmt::layer()
                    .with_writer(std::io::stderr)
                    .with_target(false)
                    .with_ansi(std::io::stderr().is_terminal()),
            )
            .init(),
        LogFormat::Json => registry.with(fmt::layer().json().with_writer(std::io::stderr)).init(),
    }
}
