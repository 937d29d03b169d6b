//! The operator's tool.

use std::process::ExitCode;

use overlay_user::{ctl, exit};

fn main() -> ExitCode {
    match exit::arguments::<ctl::Cli>("overlayctl") {
        Ok(cli) => exit::report("overlayctl", ctl::run(&cli)),
        Err(code) => code,
    }
}
