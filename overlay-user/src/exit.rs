//! Exit codes, the same for both binaries, and errors as one line.

use std::process::ExitCode;

/// Done.
pub const OK: u8 = 0;
/// Failed.
pub const ERROR: u8 = 1;
/// Called wrongly. clap uses the same number.
pub const USAGE: u8 = 2;
/// Done, or running, but not whole.
pub const DEGRADED: u8 = 3;
/// No overlayd runs here.
pub const NOT_RUNNING: u8 = 4;

/// An error that carries its own exit code.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The exit code.
    pub code: u8,
    /// One line: what, where, and what to do.
    pub message: String,
}

impl Failure {
    /// A failure with this code and message.
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// Prints an error as one line on standard error and turns it into an exit code.
pub fn report(program: &str, result: anyhow::Result<u8>) -> ExitCode {
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("{program}: {}", one_line(&error));
            ExitCode::from(error.downcast_ref::<Failure>().map_or(ERROR, |failure| failure.code))
        }
    }
}

/// Reads the command line. Help and version are printed; a mistake is one line, too.
///
/// # Errors
/// The exit code.
pub fn arguments<C: clap::Parser>(program: &str) -> Result<C, ExitCode> {
    C::try_parse().map_err(|error| {
        if !error.use_stderr() {
            // A reader that has gone away (`| head`) is no error.
            let _ = error.print();
            return ExitCode::from(OK);
        }
        eprintln!("{program}: {}; try `{program} --help`", usage_line(&error.to_string()));
        ExitCode::from(USAGE)
    })
}

/// What clap says over many lines: up to the usage, which `--help` tells better.
fn usage_line(text: &str) -> String {
    let text = text.split("\n\nUsage:").next().unwrap_or(text);
    let text = text.split("\n\nFor more information").next().unwrap_or(text);
    let paragraph = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = text.split("\n\n").map(paragraph).collect::<Vec<_>>().join("; ");
    line.strip_prefix("error: ").unwrap_or(&line).to_owned()
}

/// The error and its causes on one line.
pub fn one_line(error: &anyhow::Error) -> String {
    // Causes that the message of the error above already tells are left out.
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause.to_string().replace('\n', " ");
        let text = text.trim();
        if line.is_empty() {
            line.push_str(text);
        } else if !line.contains(text) {
            line.push_str(": ");
            line.push_str(text);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn causes_are_told_once_and_on_one_line() {
        let inner = anyhow::anyhow!("no such file\n(os error 2)");
        let error = inner.context("cannot read x: no such file (os error 2)").context("start");
        assert_eq!(one_line(&error), "start: cannot read x: no such file (os error 2)");
    }

    #[test]
    fn a_usage_error_is_one_line() {
        let clap = "error: unexpected argument '--vin' found\n\n  tip: a similar argument exists: '--vni'\n\n\
                    Usage: overlayd --vni <N>\n\nFor more information, try '--help'.\n";
        assert_eq!(
            usage_line(clap),
            "unexpected argument '--vin' found; tip: a similar argument exists: '--vni'"
        );
        let clap =
            "error: invalid value 'x' for '--port <N>': no digit\n\nFor more information, try '--help'.\n";
        assert_eq!(usage_line(clap), "invalid value 'x' for '--port <N>': no digit");
    }

    #[test]
    fn a_failure_keeps_its_code_under_context() {
        let result: anyhow::Result<u8> = Err(Failure::new(USAGE, "bad")).context("outer");
        assert_eq!(result.unwrap_err().downcast_ref::<Failure>().map(|failure| failure.code), Some(USAGE));
    }
}
