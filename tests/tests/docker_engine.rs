//! The harness's Docker engines: two at once as two hosts, given away and taken down, and left behind by a crash.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use harness::docker::{Engine, EngineOptions, EngineState, OnHost, Place};
use harness::image::Image;
use harness::scope::{self, Remains};
use harness::topology::StoreKind;
use harness::{Scope, Topology, cgroup};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

const SOON: Duration = Duration::from_secs(15);

/// Two namespaces joined by a veth, and a directory: all of this test's own, removed on drop.
struct Bed {
    hosts: [String; 2],
    scratch: PathBuf,
}

impl Bed {
    fn new(test: &str) -> Self {
        let nanos = std::time::UNIX_EPOCH.elapsed().expect("a clock").subsec_nanos();
        let id = format!("{test}{:x}{:x}", std::process::id(), nanos & 0xfff);
        let scratch = std::env::temp_dir().join(format!("ovl-{id}"));
        fs::create_dir_all(&scratch).expect("a scratch directory");
        let bed = Self { hosts: [1, 2].map(|n| format!("ovl-{id}-{n}")), scratch };
        for host in &bed.hosts {
            ip(&["netns", "add", host]);
            ip(&["-n", host, "link", "set", "lo", "up"]);
        }
        let [one, two] = &bed.hosts;
        ip(&["link", "add", "eth0", "netns", one, "type", "veth", "peer", "name", "eth0", "netns", two]);
        for (host, address) in [(one, "172.16.199.17/24"), (two, "172.16.199.27/24")] {
            ip(&["-n", host, "addr", "add", address, "dev", "eth0"]);
            ip(&["-n", host, "link", "set", "eth0", "up"]);
        }
        bed
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        for host in &self.hosts {
            let _ = Command::new("ip").args(["netns", "del", host]).status();
        }
        if let Err(error) = fs::remove_dir_all(&self.scratch) {
            eprintln!("{} stays: {error}", self.scratch.display());
        }
    }
}

fn ip(args: &[&str]) {
    let done = Command::new("ip").args(args).output().expect("iproute2 is installed");
    assert!(done.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&done.stderr));
}

fn timed<T>(what: &str, step: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let value = step();
    eprintln!("{:6.2} s  {what}", start.elapsed().as_secs_f32());
    value
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {SOON:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn options(host: usize) -> EngineOptions {
    EngineOptions {
        bip: ["172.17.0.1/16", "172.27.0.1/16"][host].to_owned(),
        address_pool: Some(["base=10.217.0.0/16,size=24", "base=10.227.0.0/16,size=24"][host].to_owned()),
        ..EngineOptions::default()
    }
}

/// Starts both engines at the same time: they must not wait for, nor disturb, each other.
fn start_both(bed: &Bed) -> [Engine; 2] {
    std::thread::scope(|scope| {
        let start = |host: usize| {
            scope.spawn(move || {
                Engine::start(&bed.hosts[host], &bed.scratch, options(host)).expect("an engine")
            })
        };
        [start(0), start(1)].map(|thread| thread.join().expect("no panic"))
    })
}

/// Nothing on the machine bears the engine's names any more.
fn assert_no_trace(place: &Place) {
    assert_eq!(place.processes().expect("/proc"), [], "processes");
    assert_eq!(cgroup::directories(&place.cgroup_parent).expect("cgroups"), [] as [PathBuf; 0], "cgroups");
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    assert!(!mounts.contains(&*place.dir.to_string_lossy()), "mounts: {mounts}");
    assert!(!place.dir.exists(), "files: {}", place.dir.display());
}

#[test]
fn two_engines_are_two_docker_hosts() {
    let bed = Bed::new("two");
    let image = timed("image built", || Image::build(&bed.scratch).expect("an image"));
    let mut engines = timed("two engines started at once", || start_both(&bed));
    timed("image imported twice", || {
        engines.iter().for_each(|engine| engine.import(&image).expect("imported"))
    });

    for (engine, (gateway, subnet)) in
        engines.iter().zip([("172.17.0.1", "172.17.0.0/16"), ("172.27.0.1", "172.27.0.0/16")])
    {
        timed("container: run, ping its gateway, inspect", || a_container_works(engine, gateway));
        let rules = engine.iptables_save().expect("rules");
        assert!(rules.contains(":FORWARD DROP "), "as on a fresh Docker host: {rules}");
        assert!(rules.contains(&format!("-A POSTROUTING -s {subnet} ! -o docker0 -j MASQUERADE")), "{rules}");
    }
    timed("published port, from the other host", || a_published_port_answers(&engines));
    timed("container restarted", || restart_gives_a_new_port(&engines[0]));
    timed("one engine restarted", || the_engine_restarts_on_its_data(&mut engines[1]));

    let places = engines.each_ref().map(|engine| engine.state().place.clone());
    let [one, two] = engines;
    timed("engine stopped", || one.stop().expect("nothing left"));
    timed("engine dropped", || drop(two));
    places.iter().for_each(assert_no_trace);
}

fn a_container_works(engine: &Engine, gateway: &str) {
    let container = engine.run("idle", Image::NAME, &[], &[]).expect("a container");
    let ping = container.exec(&["ping", "-n", "-c2", "-i0.1", "-W2", gateway], SOON).expect("ping ran");
    let said = String::from_utf8_lossy(&ping.stdout);
    assert!(ping.status.success() && said.contains(" 0% packet loss"), "{said}");

    let address = container.ip().expect("an address").to_string();
    let seen = container.exec(&["ip", "-4", "addr", "show", "eth0"], SOON).expect("busybox ip ran");
    assert!(String::from_utf8_lossy(&seen.stdout).contains(&address), "{address}");
    let argv =
        fs::read_to_string(format!("/proc/{}/cmdline", container.pid().expect("it runs"))).expect("/proc");
    assert_eq!(argv, "sleep\u{0}86400\u{0}", "the pid is the machine's");
    let hung = container.exec(&["sleep", "30"], Duration::from_secs(1)).expect("ended by the limit");
    assert_eq!(hung.status.code(), Some(137), "killed");
}

fn a_published_port_answers(engines: &[Engine; 2]) {
    let serve = ["sh", "-c", "echo overlay > /tmp/page; exec httpd -f -p 80 -h /tmp"];
    let server = engines[0].run("web", Image::NAME, &["-p", "8080:80"], &serve).expect("a server");
    let mut answer = String::new();
    until("the published port answers on the other host", || {
        let asked = fetch_from(engines[1].client().netns(), "172.16.199.17:8080", "/page");
        answer = asked.unwrap_or_else(|error| error.to_string());
        answer.starts_with("HTTP/1.")
    });
    assert!(answer.contains(" 200 ") && answer.ends_with("overlay\n"), "{answer}");
    server.rm().expect("removed");
}

/// One HTTP request out of a network namespace.
fn fetch_from(netns: &Path, server: &str, page: &str) -> std::io::Result<String> {
    let netns = fs::File::open(netns)?;
    let client = || {
        setns(netns, CloneFlags::CLONE_NEWNET)?;
        let mut stream =
            TcpStream::connect_timeout(&server.parse().expect("an address"), Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        write!(stream, "GET {page} HTTP/1.0\r\n\r\n")?;
        std::io::read_to_string(stream)
    };
    // A thread of its own, since it stays in the namespace.
    std::thread::scope(|scope| scope.spawn(client).join().expect("no panic"))
}

fn restart_gives_a_new_port(engine: &Engine) {
    let container = engine.client().container("idle");
    let before = container.host_veth().expect("a bridge port");
    container.restart().expect("restarted");
    let after = container.host_veth().expect("a bridge port");
    assert_ne!(before.ifindex, after.ifindex);
    let master =
        engine.client().in_netns(&["ip", "-o", "link", "show", &after.name], SOON).expect("the link");
    assert!(master.contains("master docker0"), "{master}");
}

fn the_engine_restarts_on_its_data(engine: &mut Engine) {
    let before = engine.state().process;
    engine.restart().expect("restarted");
    assert_ne!(before, engine.state().process);
    let container = engine.client().container("idle");
    assert!(container.pid().is_err(), "stopped with the engine");
    container.start().expect("its data is there");
    assert!(engine.iptables_save().expect("rules").contains(":FORWARD DROP "));
}

/// Tells a copy of this test to be the owner of an engine: `NETNS SCRATCH`.
const OWNER: &str = "OVERLAY_TEST_ENGINE_OWNER";

/// Runs the named test once more as another process, which then owns an engine; returns both.
fn owner_of_an_engine(test: &str, bed: &Bed) -> (Child, EngineState) {
    let mut owner = Command::new(std::env::current_exe().expect("a path"))
        .args(["--exact", test, "--nocapture"])
        .env(OWNER, format!("{} {}", bed.hosts[0], bed.scratch.display()))
        .stdout(Stdio::piped())
        .spawn()
        .expect("ourselves once more");
    let mut output = BufReader::new(owner.stdout.take().expect("piped"));
    let record = output
        .by_ref()
        .lines()
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("record: ").map(str::to_owned));
    let record = serde_json::from_str(&record.expect("an engine")).expect("JSON");
    // Kept open: the owner still has its test's result to print.
    owner.stdout = Some(output.into_inner());
    (owner, EngineState::from_json(&record).expect("a record"))
}

/// In the owner: an engine with a container.
fn own_an_engine(place: &str, persistent: bool) -> Engine {
    let (netns, scratch) = place.split_once(' ').expect("two words");
    let scratch = Path::new(scratch);
    let engine = Engine::start(netns, scratch, EngineOptions { persistent, ..options(0) }).expect("up");
    engine.import(&Image::build(scratch).expect("an image")).expect("imported");
    engine.run("idle", Image::NAME, &[], &[]).expect("a container");
    engine
}

#[test]
fn a_persistent_engine_outlives_its_owner_until_taken_down() {
    if let Ok(place) = std::env::var(OWNER) {
        let state = own_an_engine(&place, true).leak().expect("persistent");
        return println!("\nrecord: {}", state.to_json());
    }
    let bed = Bed::new("leak");
    let (mut owner, state) =
        owner_of_an_engine("a_persistent_engine_outlives_its_owner_until_taken_down", &bed);
    owner.wait().expect("it ends by itself");
    assert_eq!(state.client().docker(&["ps", "--format", "{{.Names}}"]).expect("it lives on"), "idle");
    // With dockerd killed, shims and containers are left to be found by name.
    let pid = nix::unistd::Pid::from_raw(state.process.pid);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("ours");
    until("dockerd is dead", || !state.process.alive());
    assert_ne!(state.place.processes().expect("/proc"), [], "the container outlives dockerd");
    timed("taken down with dockerd dead", || state.down().expect("nothing left"));
    assert_no_trace(&state.place);
    state.down().expect("a second time is no error");
}

#[test]
fn a_topologys_engines_are_removed_by_its_name_alone() {
    let persistent = |index, scope: &Scope| Box::new(OnHost::new(index, scope).persistent()) as _;
    let topology = Topology::builder().store(StoreKind::Peers).without_overlayd().engine(persistent);
    let topology = topology.up().expect("up");
    let name = topology.scope.name().to_owned();
    let states: Vec<EngineState> = topology.hosts.iter().map(|h| h.docker().state().clone()).collect();
    topology.keep();
    // One lives, of the other only the shim and the container are left.
    let pid = nix::unistd::Pid::from_raw(states[1].process.pid);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("ours");
    until("dockerd is dead", || !states[1].process.alive());
    assert_eq!(Remains::of(&name).engines.len(), 2);
    timed("two engines removed by name", || {
        assert_eq!(scope::remove(&name, Duration::ZERO), [""; 0]);
    });
    states.iter().for_each(|state| assert_no_trace(&state.place));
    assert!(Remains::of(&name).is_empty(), "{:?}", Remains::of(&name));
}

#[test]
fn an_engine_ends_when_its_owner_is_killed() {
    if let Ok(place) = std::env::var(OWNER) {
        let engine = own_an_engine(&place, false);
        println!("\nrecord: {}", engine.state().to_json());
        std::thread::sleep(Duration::from_secs(60));
        panic!("nobody killed us");
    }
    let bed = Bed::new("kill");
    let (mut owner, state) = owner_of_an_engine("an_engine_ends_when_its_owner_is_killed", &bed);
    assert!(state.process.alive());
    owner.kill().expect("ours");
    owner.wait().expect("reaped");
    timed("all its processes gone after SIGKILL of the owner", || {
        until("no process is left", || state.place.processes().expect("/proc").is_empty());
    });
    state.down().expect("files and empty cgroups");
    assert_no_trace(&state.place);
}

#[test]
fn where_overlay2_cannot_lie_vfs_takes_its_place() {
    let bed = Bed::new("vfs");
    // A thread with a mount namespace of its own: the overlay goes with it.
    let place = std::thread::scope(|scope| scope.spawn(|| an_engine_on_an_overlay(&bed)).join());
    assert_no_trace(&place.expect("no panic"));
}

fn an_engine_on_an_overlay(bed: &Bed) -> Place {
    unshare(CloneFlags::CLONE_NEWNS).expect("root");
    let plain = None::<&str>;
    mount(plain, "/", plain, MsFlags::MS_REC | MsFlags::MS_PRIVATE, plain).expect("private");
    mount(Some("tmpfs"), &bed.scratch, Some("tmpfs"), MsFlags::empty(), plain).expect("a tmpfs");
    for dir in ["lower", "upper", "work", "m"] {
        fs::create_dir(bed.scratch.join(dir)).expect("a directory");
    }
    let layers =
        ["lower", "upper", "work"].map(|dir| format!("{dir}dir={}", bed.scratch.join(dir).display()));
    let top = bed.scratch.join("m");
    mount(Some("overlay"), &top, Some("overlay"), MsFlags::empty(), Some(&*layers.join(",")))
        .expect("overlay");

    let engine =
        timed("engine started on an overlay", || Engine::start(&bed.hosts[0], &top, options(0)).expect("up"));
    assert_eq!(engine.driver(), "vfs");
    engine.import(&Image::build(&top).expect("an image")).expect("imported");
    let container = engine.run("idle", Image::NAME, &[], &[]).expect("a container");
    assert!(container.exec(&["true"], SOON).expect("it ran").status.success());
    let place = engine.state().place.clone();
    engine.stop().expect("nothing left");
    assert!(!place.dir.exists(), "files");
    place
}

#[test]
fn what_cannot_work_is_refused_with_one_clear_line() {
    let scratch = std::env::temp_dir();
    let start = |netns: &str, scratch: &Path| {
        format!("{:#}", Engine::start(netns, scratch, EngineOptions::default()).expect_err("refused"))
    };
    let absent = start("ovl-no-such-namespace", &scratch);
    assert!(absent.starts_with("opening the network namespace /run/netns/ovl-no-such-namespace"), "{absent}");
    let own = start("/proc/self/ns/net", &scratch);
    assert!(own.contains("is our own network namespace"), "{own}");

    let bed = Bed::new("bad");
    let deep = bed.scratch.join("d".repeat(60));
    let long = start(&bed.hosts[0], &deep);
    assert!(long.contains("over 107: take a shorter scratch path"), "{long}");
    let bad = EngineOptions { bip: "no address".to_owned(), ..EngineOptions::default() };
    let error = Engine::start(&bed.hosts[0], &bed.scratch, bad).expect_err("refused");
    assert!(error.to_string().contains("dockerd ended"), "{error}");
    assert_eq!(
        fs::read_dir(&bed.scratch).expect("a directory").count(),
        0,
        "nothing is left of the refused ones"
    );
}
