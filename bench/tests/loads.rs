//! Each load between two namespaces on a veth pair: what both ends say of it must fit together. How fast it is, is
//! nobody's business here.

use std::{process::Command, thread::available_parallelism, time::Duration};

use anyhow::Result;
use harness::{Netns, Scope};
use overlay_bench::{
    load::{Driven, Kind, Served},
    measure::{Generator, Load, Metric},
    systems::Side,
};

const TIME: Duration = Duration::from_millis(300);

/// Two hosts, which go before the scope does.
struct Pair {
    client: Side,
    server: Side,
    _hosts: [Netns; 2],
    _scope: Scope,
}

impl Pair {
    fn new() -> Result<Self> {
        let scope = Scope::unique()?;
        let hosts = [scope.netns("h1")?, scope.netns("h2")?];
        let [one, two] = &hosts;
        let (here, there) = (one.path().display(), two.path().display());
        one.ip(&format!("link add name eth0 netns {here} type veth peer name eth0 netns {there}"))?;
        for (ns, address) in [(one, "192.0.2.1"), (two, "192.0.2.2")] {
            ns.ip(&format!("addr add {address}/24 dev eth0"))?;
            ns.ip("link set eth0 up")?;
        }
        // A machine with one CPU has to do with it.
        let last = usize::from(available_parallelism()?.get() > 1);
        let (client, server) = (side(one, "192.0.2.1", 0)?, side(two, "192.0.2.2", last)?);
        Ok(Self { client, server, _hosts: hosts, _scope: scope })
    }

    fn run(&self, kind: Kind) -> Result<(Driven, Served)> {
        generator().run(kind, &self.client, &self.server, TIME)
    }
}

fn side(ns: &Netns, address: &str, cpu: usize) -> Result<Side> {
    Ok(Side { name: ns.name(), netns: ns.path().to_owned(), address: address.parse()?, cpu })
}

fn generator() -> Generator {
    Generator::at(env!("CARGO_BIN_EXE_overlay-bench"))
}

#[test]
fn every_request_is_answered_once_and_the_window_is_within_the_run() {
    let (driven, served) = Pair::new().unwrap().run(Kind::Rr).unwrap();
    assert_eq!(driven.total, served.total);
    assert!(0 < driven.counted && driven.counted < driven.total, "{driven:?}");
    assert!(0.3 <= driven.seconds && driven.seconds < 5.0, "{driven:?}");
    assert!(0.0 < driven.p50_us && driven.p50_us <= driven.p99_us, "{driven:?}");
    // One at a time, and half of them took the median or longer.
    assert!(driven.p50_us * driven.counted as f64 / 2.0 <= driven.seconds * 1e6 + 1.0, "{driven:?}");
    assert!(driven.busy_seconds > 0.0, "{driven:?}");
}

#[test]
fn every_connection_is_answered_and_leaves_no_port_waiting() {
    let pair = Pair::new().unwrap();
    let (driven, served) = pair.run(Kind::Crr).unwrap();
    assert_eq!(driven.total, served.total);
    assert!(0 < driven.counted && driven.counted < driven.total, "{driven:?}");
    for side in [&pair.client, &pair.server] {
        let sockets = Netns::borrow(&side.netns).exec(&["ss", "-Htan", "state", "time-wait"]).unwrap().stdout;
        assert_eq!(sockets, "", "ports in TIME_WAIT in {}", side.name);
    }
}

#[test]
fn no_more_datagrams_arrive_than_were_sent() {
    let (driven, served) = Pair::new().unwrap().run(Kind::Udp).unwrap();
    assert!(served.total <= driven.total, "{served:?} of {driven:?}");
    assert!(0 < served.counted && served.counted < served.total, "{served:?}");
    assert!(0 < driven.counted && driven.counted < driven.total, "{driven:?}");
    assert_eq!(served.seconds, 0.3);
}

#[test]
fn every_load_gives_its_metrics() {
    let pair = Pair::new().unwrap();
    let metrics = Load::ALL.into_iter().flat_map(|load| {
        let figures = load.run(&generator(), &pair.client, &pair.server, TIME).unwrap();
        assert!(figures.contains_key(&load.rate()), "{load:?} {figures:?}");
        assert!(figures.values().all(|value| value.is_finite() && *value > 0.0), "{load:?} {figures:?}");
        figures.into_keys()
    });
    let mut metrics: Vec<Metric> = metrics.collect();
    metrics.sort_unstable();
    assert_eq!(metrics, Metric::ALL);
}

#[test]
fn an_end_that_fails_is_told_in_its_own_words() {
    let mut pair = Pair::new().unwrap();
    pair.server.address = "192.0.2.3".parse().unwrap();
    let error = generator().run(Kind::Rr, &pair.client, &pair.server, TIME).unwrap_err().to_string();
    let name = &pair.server.name;
    assert!(error.starts_with(&format!("rr serve of {name} failed: cannot listen on 192.0.2.3")), "{error}");
    pair.server.address = "192.0.2.2".parse().unwrap();
    // Where the one that connects has no way to the other.
    Netns::borrow(&pair.client.netns).ip("link set eth0 down").unwrap();
    for (kind, what) in [(Kind::Crr, "connect to 192.0.2.2"), (Kind::Udp, "send to 192.0.2.2")] {
        let error = format!("{:#}", generator().run(kind, &pair.client, &pair.server, TIME).unwrap_err());
        assert!(error.contains(what) && error.contains("unreachable"), "{error}");
    }
}

#[test]
fn bad_places_are_one_clear_line() {
    for (netns, cpu, said) in [
        ("/run/netns/overlayd.none", "0", "cannot open /run/netns/overlayd.none"),
        ("/proc/self/ns/mnt", "0", "cannot enter /proc/self/ns/mnt"),
        ("/proc/self/ns/net", "1000", "cannot stay on CPU 1000"),
        ("/proc/self/ns/net", "100000", "there is no CPU 100000"),
    ] {
        let arguments = ["load", "--netns", netns, "--cpu", cpu, "--milliseconds", "1", "--kind", "udp"];
        let mut command = Command::new(env!("CARGO_BIN_EXE_overlay-bench"));
        let output = command.args(arguments).args(["serve", "127.0.0.1"]).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && stderr.contains(said), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}
