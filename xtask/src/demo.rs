//! `cargo xtask demo`: two hosts with a container each talk through overlayd, with routes from a real etcd.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use harness::{
    Netns, Scope, Topology, bpffs,
    docker::Place,
    dump::dump,
    eventually, scope,
    snapshot::{Change, Snapshot},
    tcx,
    topology::ETCD_PREFIX,
    traffic::{iperf, iperf::Iperf, ping_from},
};

use crate::lab::{
    interrupt::{self, step},
    state::{self, State},
    up,
};

/// How soon a route has to be known on the other host.
const LEARNED: Duration = Duration::from_secs(5);

/// How long the kernel may take to free what is gone.
const FREED: Duration = Duration::from_secs(20);

/// Enough to show that it flows; what it can carry is a benchmark's business.
const UDP_RATE: u64 = 100_000_000;

/// Fits the overlay's MTU of 1450 with its IP and UDP headers.
const UDP_PAYLOAD: u32 = 1400;

/// Arguments.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Leave the lab up
    #[arg(long)]
    keep: bool,
    /// The lab's name
    #[arg(long, default_value = "demo")]
    name: String,
    /// Make each host a real Docker engine, and the containers real ones
    #[arg(long)]
    docker: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    up::prepare(args.docker)?;
    state::ensure_free(&args.name)?;
    interrupt::watch()?;
    bpffs::ensure()?;
    let before = Snapshot::take()?;
    let mut topology = up::builder(args.docker)
        .without_overlayd()
        .progress(step)
        .up_in(Scope::named(&args.name)?)
        .context("the lab did not come up, and is removed again")?;
    let shown = show(&mut topology);
    if shown.is_err() && !interrupt::came() {
        eprintln!("{}", dump(&topology));
    }
    if args.keep && !interrupt::came() {
        let lab = State::of(&topology);
        lab.save()?;
        topology.keep();
        println!("{lab}");
        return shown;
    }
    let cleaned = clean_up(topology, &before);
    shown.and(cleaned)?;
    println!("==> done: no ping was lost, and nothing is left behind");
    Ok(())
}

fn show(topology: &mut Topology) -> Result<()> {
    learn(topology)?;
    let mut failures = pings(topology)?;
    failures.extend(throughput(topology)?);
    inspect(topology)?;
    if failures.is_empty() { Ok(()) } else { bail!("failed: {}", failures.join("; ")) }
}

/// The daemons start one after the other, and each learns the other's route from etcd.
fn learn(topology: &mut Topology) -> Result<()> {
    step("overlayd on h1")?;
    topology.start_overlayd(0)?;
    overlayctl(topology, 1, "routes")?;
    step("overlayd on h2: its subnet reaches h1 through etcd")?;
    let start = Instant::now();
    topology.start_overlayd(1)?;
    for (here, there) in [(1, 2), (2, 1)] {
        let subnet = topology.h(there).bridge.subnet();
        let known = || topology.h(here).overlayd().routes().is_ok_and(|routes| routes.contains(&subnet));
        eventually(&format!("h{here} has a route for {subnet}"), LEARNED, known)?;
    }
    println!("    both routes are there {} ms after the start of h2's overlayd", start.elapsed().as_millis());
    step(&format!("etcdctl get --prefix {ETCD_PREFIX}"))?;
    print_indented(&topology.etcd().etcdctl(&["get", "--prefix", ETCD_PREFIX])?.stdout);
    overlayctl(topology, 1, "routes")?;
    overlayctl(topology, 2, "routes")
}

/// One way of one packet: who, from where, to whom, at which address.
struct Way<'a> {
    name: String,
    ns: &'a Netns,
    from: Ipv4Addr,
    to: Ipv4Addr,
}

fn ways(topology: &Topology) -> Vec<Way<'_>> {
    let both = [(1, 2), (2, 1)].map(|(here, there)| (topology.h(here), topology.h(there)));
    let mut ways = Vec::new();
    for (here, there) in both {
        let (ns, from, to) = (&here.c(1).ns, here.c(1).ip, there.c(1).ip);
        ways.push(Way { name: format!("{}/c1 -> {}/c1", here.name, there.name), ns, from, to });
    }
    for (here, there) in both {
        // Without a source of its own choice: the host takes its docker0's.
        let (ns, from, to) = (&here.ns, Ipv4Addr::UNSPECIFIED, there.c(1).ip);
        ways.push(Way { name: format!("{} -> {}/c1", here.name, there.name), ns, from, to });
    }
    for (here, there) in both {
        let (ns, from, to) = (&here.c(1).ns, here.c(1).ip, there.bridge.ip);
        ways.push(Way { name: format!("{}/c1 -> {} docker0", here.name, there.name), ns, from, to });
    }
    for (here, there) in both {
        let (ns, from, to) = (&here.ns, here.bridge.ip, there.bridge.ip);
        ways.push(Way { name: format!("{} docker0 -> {} docker0", here.name, there.name), ns, from, to });
    }
    ways
}

fn pings(topology: &Topology) -> Result<Vec<String>> {
    let mut failures = Vec::new();
    for Way { name, ns, from, to } in ways(topology) {
        let source = if from.is_unspecified() { String::new() } else { format!("-I {from} ") };
        step(&format!("{name}: ping {source}{to}"))?;
        let ping = if from.is_unspecified() {
            harness::traffic::ping(ns, to, 5)?
        } else {
            ping_from(ns, from, to, 5)?
        };
        let statistics: Vec<&str> = ping.text.lines().skip_while(|line| !line.starts_with("---")).collect();
        print_indented(&statistics.join("\n"));
        if !ping.clean() {
            failures.push(format!("ping {name} lost {} of {}", ping.lost(), ping.sent));
        }
    }
    Ok(failures)
}

fn throughput(topology: &Topology) -> Result<Vec<String>> {
    let (a, b) = (topology.h(1).c(1), topology.h(2).c(1));
    let udp = || iperf::udp(2, UDP_RATE, UDP_PAYLOAD);
    let runs: [(&str, Iperf); 4] = [
        ("TCP, h1/c1 -> h2/c1: iperf3", iperf::tcp(2)),
        ("TCP, h2/c1 -> h1/c1: iperf3 -R", iperf::tcp(2).reverse()),
        ("UDP, h1/c1 -> h2/c1: iperf3 -u", udp()),
        ("UDP, h2/c1 -> h1/c1: iperf3 -u -R", udp().reverse()),
    ];
    let mut failures = Vec::new();
    for (name, run) in runs {
        step(name)?;
        match run.text(&a.ns, &b.ns, b.ip) {
            Ok(output) => {
                let lines = iperf::summary(&output.stdout);
                print_indented(&lines.join("\n"));
                if !lines.iter().any(|line| iperf::arrived(line)) {
                    failures.push(format!("{name}: nothing arrived"));
                }
            }
            Err(e) => {
                print_indented(&format!("{e:#}"));
                failures.push(name.to_owned());
            }
        }
    }
    Ok(failures)
}

fn inspect(topology: &Topology) -> Result<()> {
    for command in ["status", "peers", "endpoints", "drops"] {
        overlayctl(topology, 1, command)?;
    }
    for host in &topology.hosts {
        step(&format!("{}: tcx links, asked of the kernel", host.name))?;
        for tcx::Attachment { ifname, direction, program, link } in tcx::attachments_in(&host.ns)? {
            println!("    {ifname} {direction:?}: link {link}, program {program}");
        }
    }
    let map = harness::maps::pinned(&topology.h(1).overlayd().config.pin_dir, "ROUTES_V4")?;
    step(&format!("h1: bpftool map dump pinned {}", map.display()))?;
    let dump = topology.h(1).ns.exec(&["bpftool", "map", "dump", "pinned", &map.display().to_string()])?;
    print_indented(&dump.stdout);
    Ok(())
}

/// Prints what overlayctl says on a host, counted from 1.
fn overlayctl(topology: &Topology, host: usize, command: &str) -> Result<()> {
    step(&format!("h{host}: overlayctl {command}"))?;
    let output = topology.h(host).overlayd().ctl_output(&[command])?;
    print_indented(&output.stdout);
    print_indented(&output.stderr);
    if output.code != Some(0) {
        bail!("overlayctl {command} on h{host} ended with {:?}", output.code);
    }
    Ok(())
}

/// Removes the lab, and proves that it is gone.
fn clean_up(topology: Topology, before: &Snapshot) -> Result<()> {
    println!("==> cleaning up");
    let name = topology.scope.name().to_owned();
    let mut links = Vec::new();
    for host in &topology.hosts {
        links.extend(tcx::attachments_in(&host.ns)?.iter().map(|a| a.link).filter(|id| *id != 0));
    }
    let engines = topology.hosts.iter().filter_map(|host| Some(host.docker_engine()?.state().place.clone()));
    let engines: Vec<Place> = engines.collect();
    drop(topology);
    // By their ids they are found wherever they are, also if their namespace were held by something.
    let gone = || links.iter().all(|id| matches!(tcx::link_exists(*id), Ok(false)));
    eventually(&format!("the tcx links {links:?} are gone"), FREED, gone)?;
    for engine in &engines {
        let processes = engine.processes()?;
        if !processes.is_empty() || engine.dir.exists() {
            bail!("the Docker engine in {} is not gone: {processes:?}", engine.dir.display());
        }
    }
    // Others' labs and tests may come and go meanwhile.
    let foreign =
        |change: &Change| matches!(change.kind, "namespace" | "pin") && !scope::owns(&name, &change.what);
    let left = before.settle(FREED, foreign)?;
    if !left.0.is_empty() {
        bail!("not as before:\n{left}");
    }
    println!("    namespaces, links, {} tcx links and pins are as before", links.len());
    if !engines.is_empty() {
        println!("    nothing is left of {} Docker engines", engines.len());
    }
    Ok(())
}

fn print_indented(text: &str) {
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        println!("    {line}");
    }
}
