//! Commands, bounded in time, inside a namespace or outside.

use std::{
    fmt::Write as _,
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};

use crate::wait::patient;

/// What a command may take unless told otherwise.
pub const TIMEOUT: Duration = Duration::from_secs(20);

/// A command to run.
#[derive(Clone, Debug)]
pub struct Cmd {
    argv: Vec<String>,
    env: Vec<(String, String)>,
    netns: Option<PathBuf>,
    stdin: Option<String>,
    timeout: Duration,
}

/// What a command that ended left behind.
#[derive(Clone, Debug)]
pub struct Output {
    /// The exit code; `None` where a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Cmd {
    /// A command without arguments, in the caller's namespace.
    pub fn new(program: impl AsRef<str>) -> Self {
        Self {
            argv: vec![program.as_ref().to_owned()],
            env: Vec::new(),
            netns: None,
            stdin: None,
            timeout: TIMEOUT,
        }
    }

    /// Appends an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<str>) -> Self {
        self.argv.push(arg.as_ref().to_owned());
        self
    }

    /// Appends arguments.
    #[must_use]
    pub fn args<S: AsRef<str>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.argv.extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Sets a variable of the environment.
    #[must_use]
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.env.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Runs it in the network namespace at `path`. The mount namespace stays, so that bpffs is the same one.
    #[must_use]
    pub fn netns(mut self, path: &Path) -> Self {
        self.netns = Some(path.to_owned());
        self
    }

    /// Feeds its standard input.
    #[must_use]
    pub fn stdin(mut self, text: impl Into<String>) -> Self {
        self.stdin = Some(text.into());
        self
    }

    /// Ends it after this long.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The command as a person would type it.
    #[must_use]
    pub fn line(&self) -> String {
        match &self.netns {
            Some(path) => format!("[{}] {}", path.display(), self.argv.join(" ")),
            None => self.argv.join(" "),
        }
    }

    /// Runs it to its end, whatever its exit code.
    ///
    /// # Errors
    /// It could not be started, or was ended for taking too long.
    pub fn run(&self) -> Result<Output> {
        let mut command = self.command();
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start `{}`", self.line()))?;
        let stdout = capture(child.stdout.take());
        let stderr = capture(child.stderr.take());
        let stdin = child.stdin.take();
        let text = self.stdin.clone().unwrap_or_default();
        // Written from a thread: a command that does not read must not hold us up. It may also be gone.
        let feeder = thread::spawn(move || stdin.map(|mut s| s.write_all(text.as_bytes())));
        let status = wait_until(&mut child, Instant::now() + patient(self.timeout));
        // What it left in its group would keep the pipes open.
        let _ = killpg(group(&child), Signal::SIGKILL);
        let ended = match status {
            Some(status) => status,
            None => child.wait()?,
        };
        let _ = feeder.join();
        let output = Output {
            code: ended.code(),
            stdout: stdout.join().unwrap_or_default(),
            stderr: stderr.join().unwrap_or_default(),
        };
        if status.is_none() {
            bail!("`{}` did not end within {:?}{}", self.line(), self.timeout, output.text());
        }
        Ok(output)
    }

    /// Runs it to its end; an exit code other than 0 is an error with all it said.
    ///
    /// # Errors
    /// It could not be started, failed, or was ended for taking too long.
    pub fn check(&self) -> Result<Output> {
        let output = self.run()?;
        if output.code != Some(0) {
            let code = output.code.map_or_else(|| "a signal".to_owned(), |c| format!("exit code {c}"));
            bail!("`{}` ended with {code}{}", self.line(), output.text());
        }
        Ok(output)
    }

    /// Starts it in a session of its own; both its outputs are appended to `log`.
    ///
    /// # Errors
    /// It could not be started, or the log cannot be written.
    pub fn spawn(&self, log: &Path) -> Result<Background> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = Command::new("setsid");
        let inner = self.command();
        command.arg(inner.get_program()).args(inner.get_args());
        command.envs(self.env.iter().map(|(k, v)| (k, v)));
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("cannot start `{}`", self.line()))?;
        Ok(Background { child, line: self.line(), log: log.to_owned() })
    }

    fn command(&self) -> Command {
        let mut command = match &self.netns {
            Some(path) => {
                let mut nsenter = Command::new("nsenter");
                nsenter.arg(format!("--net={}", path.display())).arg("--").args(&self.argv);
                nsenter
            }
            None => {
                let mut plain = Command::new(&self.argv[0]);
                plain.args(&self.argv[1..]);
                plain
            }
        };
        command.envs(self.env.iter().map(|(k, v)| (k, v)));
        command
    }
}

impl Output {
    /// Both outputs, indented, for messages.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for line in self.stdout.lines().chain(self.stderr.lines()) {
            let _ = write!(text, "\n    {line}");
        }
        text
    }
}

/// A command that runs until it is ended; dropping it kills it and what it started.
#[derive(Debug)]
pub struct Background {
    child: Child,
    line: String,
    log: PathBuf,
}

impl Background {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it is still running.
    pub fn alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal to it alone.
    ///
    /// # Errors
    /// It is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(pid(&self.child), signal).with_context(|| format!("cannot send {signal} to `{}`", self.line))
    }

    /// Sends SIGTERM and waits for its end.
    ///
    /// # Errors
    /// It did not end in time, and was killed.
    pub fn terminate(&mut self, deadline: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        self.signal(Signal::SIGTERM)?;
        if let Some(status) = wait_until(&mut self.child, Instant::now() + patient(deadline)) {
            return Ok(status);
        }
        self.kill();
        bail!("`{}` ignored SIGTERM for {deadline:?} and was killed\n{}", self.line, self.tail(30));
    }

    /// Kills it and its session's group, and reaps it.
    pub fn kill(&mut self) -> ExitStatus {
        // A stopped process dies of SIGKILL as well. setsid made it the leader of its group.
        let _ = killpg(group(&self.child), Signal::SIGKILL);
        let _ = self.child.kill();
        self.child.wait().unwrap_or_else(|_| ExitStatus::from_raw(Signal::SIGKILL as i32))
    }

    /// The last lines of its log.
    #[must_use]
    pub fn tail(&self, lines: usize) -> String {
        tail(&self.log, lines)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if self.alive() {
            self.kill();
        }
    }
}

/// The last lines of a log file, empty where there is none.
#[must_use]
pub fn tail(log: &Path, lines: usize) -> String {
    let text = std::fs::read(log).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

fn capture(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn wait_until(child: &mut Child, deadline: Instant) -> Option<ExitStatus> {
    let mut pause = Duration::from_millis(1);
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}

/// Every child leads a group of its own, so the ids are the same.
fn group(child: &Child) -> Pid {
    pid(child)
}

/// Creates an empty log.
pub(crate) fn fresh_log(path: &Path) -> Result<()> {
    File::create(path).map(drop).with_context(|| format!("cannot write {}", path.display()))
}
