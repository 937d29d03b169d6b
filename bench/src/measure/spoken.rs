//! A process that tells line by line how far it is; dropping it ends it.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    os::unix::process::CommandExt as _,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// A process whose standard output is read as it comes.
#[derive(Debug)]
pub(super) struct Spoken {
    name: String,
    child: Child,
    lines: Receiver<String>,
    stderr: Option<JoinHandle<String>>,
}

impl Spoken {
    /// Starts it. It does not hear Ctrl-C: who reads it ends it.
    pub(super) fn start(name: impl Into<String>, command: &mut Command) -> Result<Self> {
        let name = name.into();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let (sender, lines) = channel();
        if let Some(stdout) = child.stdout.take() {
            thread::spawn(move || {
                let lines = BufReader::new(stdout).lines().map_while(Result::ok);
                lines.take_while(|line| sender.send(line.clone()).is_ok()).for_each(drop);
            });
        }
        let stderr = child.stderr.take().map(|mut stderr| {
            thread::spawn(move || {
                let mut said = Vec::new();
                let _ = stderr.read_to_end(&mut said);
                String::from_utf8_lossy(&said).trim().to_owned()
            })
        });
        Ok(Self { name, child, lines, stderr })
    }

    /// The next line that is wanted.
    pub(super) fn line(&mut self, within: Duration, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let deadline = Instant::now() + within;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if wanted(&line) => return Ok(line),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => bail!("{} says nothing within {within:?}", self.name),
                Err(RecvTimeoutError::Disconnected) => {
                    let complaint = self.complaint();
                    bail!("{} failed: {complaint}", self.name)
                }
            }
        }
    }

    /// What it said on stderr, once its output has ended.
    fn complaint(&mut self) -> String {
        let _ = self.child.kill();
        let status = self.child.wait().map_or_else(|e| e.to_string(), |status| status.to_string());
        let said = self.stderr.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        if said.is_empty() { status } else { said.trim_start_matches("error: ").to_owned() }
    }
}

impl Drop for Spoken {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Spoken {
        Spoken::start("the script", Command::new("sh").args(["-c", script])).unwrap()
    }

    #[test]
    fn lines_come_as_they_are_said() {
        let mut script = sh("echo one; echo two; exec sleep 60");
        assert_eq!(script.line(Duration::from_secs(5), |line| line == "two").unwrap(), "two");
        let error = script.line(Duration::from_millis(50), |_| true).unwrap_err().to_string();
        assert_eq!(error, "the script says nothing within 50ms");
    }

    #[test]
    fn a_failure_is_told_in_its_own_words() {
        let mut script = sh("echo 'error: no way' >&2; exit 3");
        let error = script.line(Duration::from_secs(5), |_| true).unwrap_err().to_string();
        assert_eq!(error, "the script failed: no way");
        let error = sh("exit 3").line(Duration::from_secs(5), |_| true).unwrap_err().to_string();
        assert_eq!(error, "the script failed: exit status: 3");
    }
}
