//! Real Docker engines, one per "host": each in an existing network namespace, apart from all others on the machine.
//!
//! An engine shares no link, socket, cgroup, mount or file with another one or with the machine's own Docker, so any
//! number may run at once. Nobody needs to clean up after a crash of the owner: dockerd then gets SIGTERM from the
//! kernel (PR_SET_PDEATHSIG) and stops its containers and containerd; empty cgroups and the scratch files stay.

mod client;
mod container;
mod host;
mod on_host;
mod process;
mod state;

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;

pub use client::Client;
pub use container::{Container, HostVeth};
pub use on_host::OnHost;
pub use process::Process;
pub use state::{EngineState, Place};

use crate::image::Image;
use host::Host;
use state::GRACE;

/// From exec to an answering socket: about 1 s on an idle machine.
const START: Duration = Duration::from_secs(60);

/// overlay2 cannot lie on an overlay (a container's own file system); vfs works anywhere.
const DRIVERS: [&str; 2] = ["overlay2", "vfs"];

/// How an engine is started.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Address and prefix length of docker0.
    pub bip: String,
    /// `base=10.217.0.0/16,size=24`: where networks other than the default bridge get their subnets from. Without it,
    /// two engines pick the same ones, and any may collide with another host's container subnet.
    pub address_pool: Option<String>,
    /// More flags for dockerd.
    pub extra_args: Vec<String>,
    /// Whether the engine may outlive this process, for [`Engine::leak`]: then nobody ends it when we crash.
    pub persistent: bool,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            bip: "172.17.0.1/16".to_owned(),
            address_pool: None,
            extra_args: Vec::new(),
            persistent: false,
        }
    }
}

/// A running dockerd; dropping it removes every trace of it.
#[derive(Debug)]
pub struct Engine {
    state: EngineState,
    client: Client,
    options: EngineOptions,
    driver: &'static str,
    /// Holds the mount namespace; `None` once the engine is leaked.
    host: Option<Host>,
}

impl Engine {
    /// Starts dockerd in the network namespace `netns` (a name below /run/netns, or a path) with its files in a new
    /// directory in `scratch`, and waits until it answers.
    pub fn start(netns: &str, scratch: &Path, options: EngineOptions) -> Result<Self> {
        let id = format!("overlay-{}", unique_id()?);
        let place = Place {
            netns: if netns.contains('/') { netns.into() } else { Path::new("/run/netns").join(netns) },
            dir: scratch.join(&id),
            cgroup_parent: format!("/{id}"),
        };
        let host = Host::enter(&place.netns, &id)?;
        let launched = prepare(&place).and_then(|()| launch_with_any_driver(&host, &place, &options));
        match launched {
            Ok((process, driver)) => {
                let client = place.client();
                let state = EngineState { process, place };
                Ok(Self { state, client, options, driver, host: Some(host) })
            }
            Err(error) => Err(match place.clear(None) {
                Ok(()) => error,
                Err(left) => error.context(format!("and the clean-up failed: {left:#}")),
            }),
        }
    }

    /// The docker CLI for this engine; see [`Client`] for all it does.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// What names everything the engine has on this machine.
    pub fn state(&self) -> &EngineState {
        &self.state
    }

    /// The storage driver that worked here.
    pub fn driver(&self) -> &'static str {
        self.driver
    }

    /// Brings the image in, as [`Image::NAME`]; once per engine.
    pub fn import(&self, image: &Image) -> Result<()> {
        let tar = image.tar().to_string_lossy();
        let idle = r#"CMD ["sleep","86400"]"#;
        self.client.docker(&["import", "-c", idle, tar.as_ref(), Image::NAME]).map(drop)
    }

    /// Starts a container: `docker run -d --name NAME ARGS IMAGE CMD`; an empty `cmd` is the image's own, which idles.
    pub fn run(&self, name: &str, image: &str, args: &[&str], cmd: &[&str]) -> Result<Container> {
        // The kernel gives process 1 no default SIGTERM: each stop of an idle one would take ten seconds.
        let detached = ["run", "-d", "--name", name, "--stop-signal", "KILL"];
        self.client.docker(&[&detached, args, &[image], cmd].concat())?;
        Ok(self.client.container(name))
    }

    /// Anything else that `docker` can do; its standard output.
    pub fn docker(&self, args: &[&str]) -> Result<String> {
        self.client.docker(args)
    }

    /// Docker's rules and everybody else's, as `iptables-save` prints them inside the namespace.
    pub fn iptables_save(&self) -> Result<String> {
        self.client.iptables_save()
    }

    /// Stops dockerd and starts it again on the same data and in the same mounts, as an upgrade of Docker does.
    /// Running containers are stopped by it and stay so, unless they have a restart policy.
    pub fn restart(&mut self) -> Result<()> {
        let host = self.host.as_ref().context("the engine was given away")?;
        self.state.process.terminate(GRACE)?;
        self.state.process = launch(host, &self.state.place, &self.options, self.driver)?;
        Ok(())
    }

    /// Removes every trace of the engine, and says what it could not remove. Dropping does the same, and prints it.
    pub fn stop(mut self) -> Result<()> {
        self.take_down()
    }

    /// Lets the engine live on when this process ends; the record is what it takes to end it.
    pub fn leak(mut self) -> Result<EngineState> {
        ensure!(self.options.persistent, "only an engine started with `persistent` can outlive its owner");
        self.host = None;
        Ok(self.state.clone())
    }

    fn take_down(&mut self) -> Result<()> {
        // The namespace thread last: its end sends SIGTERM to a dockerd that still runs.
        self.host.take().map_or(Ok(()), |_host| self.state.down())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Err(error) = self.take_down() {
            eprintln!("clean-up: {error:#}");
        }
    }
}

/// Eight hex digits that no other engine, run or user on this machine has.
pub(crate) fn unique_id() -> Result<String> {
    let path = "/proc/sys/kernel/random/uuid";
    let uuid = fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    Ok(uuid.chars().take(8).collect())
}

fn prepare(place: &Place) -> Result<()> {
    let dir = &place.dir;
    // The longest socket below it, against the 107 bytes of sun_path (unix(7)).
    let longest = dir.join("exec/containerd/containerd-debug.sock");
    let length = longest.as_os_str().len();
    ensure!(
        length <= 107,
        "{} is {length} bytes long, over 107: take a shorter scratch path",
        longest.display()
    );
    for part in ["data", "exec", "cli"] {
        let path = dir.join(part);
        fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
    }
    // Without a file of its own, dockerd would read the machine's.
    fs::write(dir.join("daemon.json"), "{}\n").context("writing daemon.json")?;
    place.note()
}

fn launch_with_any_driver(
    host: &Host,
    place: &Place,
    options: &EngineOptions,
) -> Result<(Process, &'static str)> {
    let mut refusals = Vec::new();
    for driver in DRIVERS {
        match launch(host, place, options, driver) {
            Ok(process) => return Ok((process, driver)),
            Err(error) if is_about_storage(&error) => refusals.push(format!("{error:#}")),
            Err(error) => return Err(error),
        }
    }
    bail!("no storage driver works in {}: {}", place.dir.display(), refusals.join("; "))
}

fn is_about_storage(error: &anyhow::Error) -> bool {
    let text = format!("{error:#}").to_lowercase();
    ["graphdriver", "storage driver", "driver not supported"].iter().any(|phrase| text.contains(phrase))
}

/// One dockerd, up and answering; on an error it is gone again, its files are not.
fn launch(host: &Host, place: &Place, options: &EngineOptions, driver: &str) -> Result<Process> {
    let log = place.dir.join("dockerd.log");
    let command = dockerd(place, options, driver, &log)?;
    let at_our_death = if options.persistent { None } else { Some(Signal::SIGTERM) };
    let child = host.spawn(command, at_our_death).context("starting dockerd: run `cargo xtask setup`")?;
    let process = Process::of(i32::try_from(child.id())?)?;
    let client = place.client();
    let deadline = Instant::now() + START;
    while !client.answers() {
        let ended = !process.alive();
        if ended || Instant::now() >= deadline {
            process.terminate(GRACE)?;
            let what = if ended { "ended".to_owned() } else { format!("did not answer within {START:?}") };
            bail!("dockerd {what}; {} ends with:\n{}", log.display(), tail(&log));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(process)
}

fn dockerd(place: &Place, options: &EngineOptions, driver: &str, log: &Path) -> Result<Command> {
    let dir = &place.dir;
    let mut command = Command::new("dockerd");
    for (flag, path) in [
        ("--config-file", "daemon.json"),
        ("--data-root", "data"),
        ("--exec-root", "exec"),
        ("--pidfile", "dockerd.pid"),
    ] {
        command.arg(flag).arg(dir.join(path));
    }
    command.arg("-H").arg(format!("unix://{}", dir.join("docker.sock").display()));
    command.args(["--bip", &options.bip, "--storage-driver", driver, "--userland-proxy=false"]);
    // systemd, the default driver of cgroup v2 machines, would take only names it manages itself.
    command.args(["--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", &place.cgroup_parent]);
    command.args(["--log-level", "warn"]);
    if let Some(pool) = &options.address_pool {
        command.args(["--default-address-pool", pool]);
    }
    command.args(&options.extra_args);
    // Over the system bus it would ask the machine's firewalld to change rules outside this namespace.
    command.env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent");
    let file = OpenOptions::new().create(true).append(true).open(log);
    let file = file.with_context(|| format!("opening {}", log.display()))?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    Ok(command)
}

/// The last lines of a log, for an error.
fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_else(|error| error.to_string());
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}
