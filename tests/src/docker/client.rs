//! The docker CLI, talking to one engine, each call with a deadline.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::container::Container;

/// For calls whose length does not depend on what a container does.
const PATIENCE: Duration = Duration::from_secs(60);

/// A way to reach one engine: cheap to copy, and good from any namespace, as the socket is a file.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    netns: PathBuf,
}

impl Client {
    pub(super) fn new(socket: PathBuf, netns: PathBuf) -> Self {
        Self { socket, netns }
    }

    /// The engine's API socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The path of the engine's network namespace.
    pub fn netns(&self) -> &Path {
        &self.netns
    }

    /// Runs `docker ARGS`; its standard output without the last newline, or its complaint as the error.
    pub fn docker<S: AsRef<OsStr>>(&self, args: &[S]) -> Result<String> {
        succeed(&mut self.command(args), PATIENCE)
    }

    /// Runs `docker ARGS` and hands over what it said and how it ended.
    pub fn docker_output<S: AsRef<OsStr>>(&self, args: &[S], limit: Duration) -> Result<Output> {
        output(&mut self.command(args), limit)
    }

    /// A container by name, however it was made.
    pub fn container(&self, name: &str) -> Container {
        Container::new(self.clone(), name)
    }

    /// Docker's rules and everybody else's, as `iptables-save` prints them inside the engine's namespace.
    pub fn iptables_save(&self) -> Result<String> {
        self.in_netns(&["iptables-save"], PATIENCE)
    }

    /// Runs a command of the machine in the engine's network namespace; its output, or its complaint as the error.
    pub fn in_netns(&self, command: &[&str], limit: Duration) -> Result<String> {
        let mut netns_option = std::ffi::OsString::from("--net=");
        netns_option.push(&self.netns);
        succeed(Command::new("nsenter").arg(netns_option).arg("--").args(command), limit)
    }

    /// Whether the engine answers `GET /_ping`; asked without the CLI, which takes ten times as long.
    pub(super) fn answers(&self) -> bool {
        let ask = || -> std::io::Result<bool> {
            let mut stream = UnixStream::connect(&self.socket)?;
            stream.set_read_timeout(Some(Duration::from_secs(2)))?;
            stream.write_all(b"GET /_ping HTTP/1.0\r\n\r\n")?;
            let mut status = [0; 12];
            stream.read_exact(&mut status)?;
            Ok(status.ends_with(b" 200"))
        };
        ask().unwrap_or(false)
    }

    fn command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut host = std::ffi::OsString::from("unix://");
        host.push(&self.socket);
        let mut command = Command::new("docker");
        // The user's own contexts, proxies and credential helpers have no say here: an empty configuration.
        command.arg("--config").arg(self.socket.with_file_name("cli")).arg("-H").arg(host).args(args);
        command.env_remove("DOCKER_HOST").env_remove("DOCKER_CONTEXT");
        command
    }
}

fn succeed(command: &mut Command, limit: Duration) -> Result<String> {
    let done = output(command, limit)?;
    let complaint = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "{}: {}: {}", show(command), done.status, complaint.trim());
    Ok(String::from_utf8_lossy(&done.stdout).trim_end().to_owned())
}

/// Runs a command to its end, or kills it after `limit`, which is an error that holds what it said until then.
fn output(command: &mut Command, limit: Duration) -> Result<Output> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("running {}", show(command)))?;
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let deadline = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            break None;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let (stdout, stderr) = (collect(stdout)?, collect(stderr)?);
    let Some(status) = status else {
        let said = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        bail!("{}: not done after {limit:?}; it said: {}", show(command), said.trim());
    };
    Ok(Output { status, stdout, stderr })
}

type Reader = JoinHandle<std::io::Result<Vec<u8>>>;

/// Both pipes are read while the command runs, or a talkative one would block on a full pipe.
fn drain(pipe: Option<impl Read + Send + 'static>) -> Reader {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            pipe.read_to_end(&mut bytes)?;
        }
        Ok(bytes)
    })
}

fn collect(reader: Reader) -> Result<Vec<u8>> {
    let bytes = reader.join().map_err(|_| anyhow!("the thread reading a command's output panicked"))?;
    bytes.context("reading a command's output")
}

fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_hangs_is_killed_and_quoted() {
        let error =
            output(Command::new("sh").args(["-c", "echo begun; exec sleep 60"]), Duration::from_millis(300))
                .expect_err("it hangs");
        assert!(error.to_string().contains("not done after 300ms; it said: begun"), "{error}");
    }

    #[test]
    fn a_failure_carries_the_complaint() {
        let error = succeed(Command::new("sh").args(["-c", "echo no such thing >&2; exit 3"]), PATIENCE)
            .expect_err("it fails");
        assert!(error.to_string().contains("exit status: 3: no such thing"), "{error}");
    }
}
