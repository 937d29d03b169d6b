//! `cargo xtask vm`: a command, or the tests that depend on the kernel, under other Linux kernels. Each boots in
//! qemu, emulated, on this machine's own root filesystem, where every write is lost. Emulation is an order of
//! magnitude slower than the machine: right for what is correct, useless for what is fast.

mod apt;
mod cpio;
mod emulator;
mod guest;
mod image;
mod kernel;
mod module;
mod suite;
mod vmlinux;

use std::io::Write;
use std::path::PathBuf;
use std::process::exit;
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use self::{emulator::Emulator, guest::Guest, kernel::Series};
use crate::{command, setup, tally::Tally};

pub(crate) use self::suite::{TIMEOUT, all_kernels, run_all};

/// Arguments.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The kernels: series of this machine's package sources (as `6.1`), or `sid`
    #[arg(long, value_delimiter = ',', default_value = "6.1,6.12,sid")]
    kernel: Vec<Series>,
    /// Seconds that a kernel's boot and command may take together
    #[arg(long, value_name = "SECONDS", default_value_t = TIMEOUT.as_secs())]
    timeout: u64,
    /// Run only tests whose names contain this
    filter: Option<String>,
    /// What to run, in this directory, instead of the tests
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    ensure!(args.timeout > 0, "--timeout 0: there would be no time to run anything");
    let timeout = Duration::from_secs(args.timeout);
    if args.command.is_empty() {
        let mut tally = Tally::default();
        let failed = run_all(&args.kernel, args.filter.as_deref(), timeout, &mut |line| {
            tally.add_line(&String::from_utf8_lossy(line));
            let mut stdout = std::io::stdout();
            stdout.write_all(line)?;
            Ok(stdout.flush()?)
        })?;
        ensure!(failed.is_empty(), "the tests failed on kernel {}", failed.join(", "));
        if let (Some(filter), 0) = (&args.filter, tally.passed) {
            bail!("no test that could run there has a name with `{filter}` in it");
        }
        println!("{tally}");
        return Ok(());
    }
    let lab = Lab::open()?;
    let mut code = 0;
    for series in &args.kernel {
        let guest = Guest::command(&args.command, timeout)?;
        let status = lab.run(series, &guest, &mut std::io::stdout())?;
        code = if code == 0 { status } else { code };
    }
    if code == 0 { Ok(()) } else { exit(code) }
}

/// Where kernels and the emulator are kept, and the emulator itself.
struct Lab {
    cache: PathBuf,
    emulator: Emulator,
}

impl Lab {
    /// Makes sure that all is there to boot a kernel.
    fn open() -> Result<Self> {
        if !cfg!(target_arch = "x86_64") {
            bail!("cargo xtask vm boots amd64 kernels, and on this architecture nothing would run in them");
        }
        setup::ensure(setup::Set::Vm)?;
        let cache = command::target_dir()?.join("vm");
        std::fs::create_dir_all(&cache)?;
        let emulator = Emulator::find(&cache)?;
        Ok(Self { cache, emulator })
    }

    /// Boots a kernel and runs a command in it. Returns its exit status.
    fn run(&self, series: &Series, guest: &Guest, out: &mut (dyn Write + Send)) -> Result<i32> {
        let image = kernel::ready(series, &self.cache)?;
        eprintln!("+ [Linux {}] {}", image.version, guest.shown);
        self.emulator.run(&image, guest, out)
    }
}
