//! Namespaces without names: one is alive as long as a thread, a descriptor or a link's peer needs it.

use std::{
    fs::File,
    net::IpAddr,
    os::fd::AsRawFd,
    process::{Command, Output},
    thread,
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, setns, unshare};
use overlay_user::netlink::{Link, Monitor, Netlink};
use serde_json::Value;

/// How long the kernel may take until something shows.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Runs a test on a thread, and in a network namespace, of its own.
pub(crate) fn in_namespace(test: impl AsyncFnOnce(Netlink, Monitor) + Send + 'static) {
    let outcome = thread::spawn(|| {
        enter_new();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (netlink, monitor) = Netlink::connect().unwrap();
            test(netlink, monitor).await;
        });
    });
    if let Err(panic) = outcome.join() {
        std::panic::resume_unwind(panic);
    }
}

fn enter_new() {
    unshare(CloneFlags::CLONE_NEWNET).expect("making a network namespace needs root");
    run("ip link set lo up");
}

/// Another namespace: where a container would be.
pub(crate) struct Elsewhere(File);

impl Elsewhere {
    pub(crate) fn new() -> Self {
        let made = thread::spawn(|| {
            enter_new();
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        Self(made.join().unwrap())
    }

    /// A path that `ip link set … netns` takes.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// Runs a command there.
    pub(crate) fn run(&self, line: &str) -> String {
        self.with(|| run(line))
    }

    /// Does something there.
    pub(crate) fn with<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let there = scope.spawn(|| {
                setns(&self.0, CloneFlags::CLONE_NEWNET).unwrap();
                f()
            });
            there.join().unwrap()
        })
    }
}

/// A veth pair: `name` here with `here` on it, and `eth0` in another namespace with `there`.
pub(crate) fn wire(name: &str, here: Option<&str>, there: &str) -> Elsewhere {
    let elsewhere = Elsewhere::new();
    run(&format!("ip link add {name} up type veth peer eth0 netns {}", elsewhere.path()));
    if let Some(here) = here {
        run(&format!("ip address add {here} dev {name}"));
    }
    elsewhere.run("ip link set eth0 up");
    elsewhere.run(&format!("ip address add {there} dev eth0"));
    elsewhere
}

/// A bridge with an address and one port, a container's: `br0`, `port0`, and the container.
pub(crate) fn bridge_with_container() -> Elsewhere {
    run("ip link add br0 up type bridge");
    run("ip address add 10.1.0.1/24 dev br0");
    let container = wire("port0", None, "10.1.0.2/24");
    run("ip link set port0 master br0");
    container
}

/// Runs a command in this thread's namespace; it has to succeed.
pub(crate) fn run(line: &str) -> String {
    let output = attempt(line);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "`{line}`: {}: {errors}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

fn attempt(line: &str) -> Output {
    let mut words = line.split_whitespace();
    let program = words.next().unwrap();
    Command::new(program).args(words).output().unwrap_or_else(|error| panic!("`{line}`: {error}"))
}

/// Runs a command and reads its output as a JSON array; `ip` prints nothing for an empty one.
pub(crate) fn json(line: &str) -> Vec<Value> {
    match run(line) {
        empty if empty.trim().is_empty() => Vec::new(),
        text => serde_json::from_str(&text).unwrap_or_else(|error| panic!("`{line}`: {error}: {text}")),
    }
}

/// The MAC address of a link, as `ip` prints it.
pub(crate) fn mac_in(links: &str) -> overlay_common::Mac {
    let links: Vec<Value> = serde_json::from_str(links).unwrap();
    links[0]["address"].as_str().unwrap().parse().unwrap()
}

pub(crate) async fn link(netlink: &Netlink, name: &str) -> Link {
    netlink.link_by_name(name).await.unwrap().unwrap_or_else(|| panic!("no link {name}"))
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Asks again until `probe` finds something.
pub(crate) async fn eventually<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
