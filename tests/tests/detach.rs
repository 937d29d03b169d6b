//! Ending: `overlayd detach` leaves nothing, and SIGTERM with `keep` leaves all that forwards.

#![expect(clippy::unwrap_used, reason = "set-up that fails is a test that fails")]

use std::{path::Path, time::Duration};

use harness::{
    Topology, binaries, eventually,
    footprint::Footprint,
    process::Output,
    topology::{Builder, ETCD_PREFIX, StoreKind},
    traffic::{Endpoint, Probe, iperf, ping},
};

const SOON: Duration = Duration::from_secs(5);

/// Host 1's key.
fn key() -> String {
    format!("{ETCD_PREFIX}/subnets/172.17.0.0-16")
}

/// Everything on host 1 that overlayd may have to do with.
fn footprint(topology: &Topology) -> Footprint {
    let config = topology.overlayd_config(0);
    Footprint::of(topology, 1, &[&config.pin_dir, &config.state_dir]).unwrap()
}

/// Hosts whose overlayd has carried traffic, and host 1's footprint from before.
fn used(builder: Builder) -> (Topology, Footprint) {
    let mut topology = builder.without_overlayd().up().unwrap();
    topology.start_overlayd(1).unwrap();
    // Its node's key is written a moment after it is ready.
    let is_told = |topology: &Topology| {
        let key = format!("{ETCD_PREFIX}/overlayd/nodes/h2");
        topology.etcd.as_ref().is_none_or(|etcd| etcd.get(&key).is_ok_and(|value| value.is_some()))
    };
    eventually("host 2 says who it is", SOON, || is_told(&topology)).unwrap();
    let before = footprint(&topology);
    topology.start_overlayd(0).unwrap();
    let (h1, h2) = (topology.h(1), topology.h(2));
    let reached = || ping(&h2.c(1).ns, h1.c(1).ip, 1).is_ok_and(|ping| ping.clean());
    eventually("host 2 knows host 1", SOON, reached).unwrap();
    for ping in [ping(&h1.c(1).ns, h2.c(1).ip, 2), ping(&h1.ns, h2.c(1).ip, 2)] {
        assert!(ping.as_ref().is_ok_and(|ping| ping.clean()), "{ping:?}");
    }
    iperf::tcp(1).run(&h1.c(1).ns, &h2.c(1).ns, h2.c(1).ip).unwrap();
    let changes = before.difference(&footprint(&topology)).join("\n");
    for trace in ["+ tcx", "+ link", "+ route", "+ neighbour", "+ setting", "+ directory"] {
        assert!(changes.contains(trace), "no `{trace}` of a running overlayd among\n{changes}");
    }
    (topology, before)
}

fn expect(output: &Output, code: i32, says: &[&str]) {
    assert_eq!(output.code, Some(code), "{}", output.text());
    for part in says {
        assert!(output.stderr.contains(part), "no {part:?}{}", output.text());
    }
}

fn nothing_is_left(topology: &Topology, before: &Footprint) {
    let changes = before.difference(&footprint(topology));
    assert!(changes.is_empty(), "{}", changes.join("\n"));
    let ctl = topology.h(1).overlayd().ctl_output(&["status"]).unwrap();
    expect(&ctl, 4, &["no overlayd"]);
    let (c1, h2) = (topology.h(1).c(1), topology.h(2));
    assert_eq!(ping(&c1.ns, h2.c(1).ip, 1).unwrap().received, 0);
    assert!(ping(&c1.ns, topology.h(1).bridge.ip, 1).unwrap().clean());
}

/// Whoever sends before he has heard is not to send into a void.
#[test]
fn packets_are_taken_until_the_others_have_heard() {
    let (mut topology, before) = used(Topology::builder());
    let mut h1 = topology.h_mut(1).overlayd.take().unwrap();
    let leaving = std::thread::spawn(move || {
        let output = h1.detach_draining(2).unwrap();
        (h1, output)
    });
    let forgotten = || topology.h(2).overlayd().routes().is_ok_and(|routes| routes.is_empty());
    eventually("host 2 forgets host 1", SOON, forgotten).unwrap();
    let attached = harness::tcx::attachments_in(&topology.h(1).ns).unwrap();
    assert!(!attached.is_empty(), "packets are still taken");
    let (h1, output) = leaving.join().unwrap();
    expect(&output, 0, &[]);
    topology.h_mut(1).overlayd = Some(h1);
    nothing_is_left(&topology, &before);
}

#[test]
fn detach_ends_a_running_daemon_and_leaves_nothing() {
    let (mut topology, before) = used(Topology::builder());
    let output = topology.h_mut(1).overlayd_mut().detach().unwrap();
    expect(&output, 0, &[]);
    assert!(!topology.h_mut(1).overlayd_mut().running());
    nothing_is_left(&topology, &before);
    // The peer hears of it.
    let gone = || topology.h(2).overlayd().routes().is_ok_and(|routes| routes.is_empty());
    eventually("host 2 forgets host 1", Duration::from_secs(1), gone).unwrap();
    // And once more, where nothing is.
    let output = topology.h_mut(1).overlayd_mut().detach().unwrap();
    expect(&output, 0, &["nothing to detach"]);
    nothing_is_left(&topology, &before);
}

#[test]
fn detach_after_kill_9_leaves_nothing() {
    let (mut topology, before) = used(Topology::builder().store(StoreKind::Peers));
    topology.h_mut(1).overlayd_mut().kill9().unwrap();
    let output = topology.h_mut(1).overlayd_mut().detach().unwrap();
    expect(&output, 0, &[]);
    nothing_is_left(&topology, &before);
}

#[test]
fn without_etcd_detach_names_the_key_and_removes_it_later() {
    let (mut topology, before) = used(Topology::builder());
    topology.etcd_mut().kill().unwrap();
    let output = topology.h_mut(1).overlayd_mut().detach().unwrap();
    expect(&output, 3, &[&key(), "172.16.199.1:2379"]);
    assert_eq!(output.stderr.lines().count(), 1, "{}", output.text());
    assert!(!topology.h_mut(1).overlayd_mut().running());
    topology.etcd_mut().start_again().unwrap();
    let changes = before.difference(&footprint(&topology));
    let state = topology.h(1).overlayd().config.state_dir.display().to_string();
    // The key, what the second try needs to know, and the node's key, until its lease of half a minute is over.
    let expected =
        |line: &String| line.contains(&key()) || line.contains(&state) || line.contains("/overlayd/nodes/");
    assert!(changes.len() >= 2 && changes.iter().all(expected), "{}", changes.join("\n"));
    let output = topology.h_mut(1).overlayd_mut().detach().unwrap();
    expect(&output, 0, &[]);
    nothing_is_left(&topology, &before);
}

#[test]
fn sigterm_with_on_exit_detach_leaves_nothing() {
    let (mut topology, before) = used(Topology::builder().overlayd_args(&["--on-exit=detach"]));
    let status = topology.h_mut(1).overlayd_mut().stop().unwrap();
    assert_eq!(status.code(), Some(0), "{}", topology.h(1).overlayd().log_tail(10));
    nothing_is_left(&topology, &before);
}

#[test]
fn detach_of_a_daemon_that_detaches_as_it_ends() {
    let (mut topology, before) = used(Topology::builder().overlayd_args(&["--on-exit=detach"]));
    let output = topology.h_mut(1).overlayd_mut().detach().unwrap();
    expect(&output, 0, &[]);
    nothing_is_left(&topology, &before);
}

#[test]
fn sigterm_with_keep_leaves_key_pins_and_traffic() {
    let (mut topology, _) = used(Topology::builder());
    let tcx = |t: &Topology| harness::tcx::attachments_in(&t.h(1).ns).unwrap();
    let (attached, value) = (tcx(&topology), topology.etcd().get(&key()).unwrap());
    let [a, b] = [1, 2].map(|n| topology.h(n).c(1));
    let (a, b) = (Endpoint { ns: &a.ns, ip: a.ip }, Endpoint { ns: &b.ns, ip: b.ip });
    let probe = Probe::start(a, b, 1000, Duration::from_secs(20)).unwrap();
    eventually("traffic flows", SOON, || probe.arrived() > 100).unwrap();
    let status = topology.h_mut(1).overlayd_mut().stop().unwrap();
    assert_eq!(status.code(), Some(0), "{}", topology.h(1).overlayd().log_tail(10));
    let before = probe.arrived();
    eventually("traffic goes on", SOON, || probe.arrived() > before + 1000).unwrap();
    assert_eq!(tcx(&topology), attached);
    assert!(value.is_some());
    assert_eq!(topology.etcd().get(&key()).unwrap(), value);
    let ctl = |args: &[&str]| topology.h(1).overlayd().ctl_output(args).unwrap();
    expect(&ctl(&["status"]), 4, &[]);
    let routes = ctl(&["routes"]);
    assert!(routes.code == Some(0) && routes.stdout.contains("172.27.0.0/16"), "{}", routes.text());
    topology.h_mut(1).overlayd_mut().start_again().unwrap();
    let report = probe.finish().unwrap();
    assert!(report.clean(), "{report}");
    let ids =
        |all: &[harness::tcx::Attachment]| all.iter().map(|a| (a.ifname.clone(), a.link)).collect::<Vec<_>>();
    assert_eq!(ids(&tcx(&topology)), ids(&attached), "the restart adopts the links");
}

#[test]
fn detach_of_another_hosts_pins_is_refused() {
    let (topology, _) = used(Topology::builder());
    let before = footprint(&topology);
    let config = &topology.h(1).overlayd().config;
    let detach = |state: &Path| {
        let cmd = topology.h(2).ns.cmd(binaries::find("overlayd").unwrap()).arg("detach");
        cmd.args([format!("--pin-dir={}", config.pin_dir.display())])
            .args([format!("--state-dir={}", state.display())])
            .run()
            .unwrap()
    };
    let mine = topology.h(2).overlayd().config.state_dir.clone();
    for state in [&config.state_dir, &mine] {
        expect(&detach(state), 1, &["another network namespace", "detach it there"]);
    }
    let changes = before.difference(&footprint(&topology));
    assert!(changes.is_empty(), "{}", changes.join("\n"));
    let (h1, h2) = (topology.h(1), topology.h(2));
    let ping = ping(&h1.c(1).ns, h2.c(1).ip, 3).unwrap();
    assert!(ping.clean(), "{}", ping.text);
}

#[test]
fn a_pin_directory_that_is_not_the_states_is_refused() {
    let (mut topology, before) = used(Topology::builder().store(StoreKind::Peers));
    let config = topology.h(1).overlayd().config.clone();
    let other = topology.scope.pin_dir("other");
    let dirs = [("--pin-dir", &other), ("--state-dir", &config.state_dir)];
    let dirs = dirs.map(|(flag, dir)| format!("{flag}={}", dir.display()));
    let overlayd = topology.h(1).ns.cmd(binaries::find("overlayd").unwrap());
    let right = config.pin_dir.display().to_string();
    let running = footprint(&topology);
    let output = overlayd.clone().arg("detach").args(&dirs).run().unwrap();
    expect(&output, 1, &[&right, "--pin-dir"]);
    assert!(topology.h_mut(1).overlayd_mut().running());
    // Nor is a second data path laid beside one that was kept.
    topology.h_mut(1).overlayd_mut().stop().unwrap();
    let peers = format!("--peers={}", topology.peers_file(0).display());
    let socket = format!("--socket={}", config.socket().display());
    let output = overlayd.args(["--iface=eth0", &peers, &socket]).args(&dirs).run().unwrap();
    expect(&output, 1, &[&right, "--pin-dir"]);
    let mut changes = running.difference(&footprint(&topology));
    // The lock names who held it last, and the socket went with its daemon.
    changes.retain(|line| !line.contains("/state/lock ") && !line.contains("/state/overlayd.sock"));
    assert!(changes.is_empty() && !other.exists(), "{}", changes.join("\n"));
    expect(&topology.h_mut(1).overlayd_mut().detach().unwrap(), 0, &[]);
    nothing_is_left(&topology, &before);
}
