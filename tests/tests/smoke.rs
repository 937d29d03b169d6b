//! End to end, in little: two hosts with a container each talk through the fast path, and what was attached is gone
//! after a detach. It needs no Docker and no particular kernel: `cargo xtask vm` runs it on every supported one.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails, in its helpers too")]

use std::time::Duration;

use harness::{
    Topology, eventually,
    hooks::{attached, clsact},
    host::{BRIDGE, Host, UPLINK},
    tables::Traffic,
    tcx,
    topology::StoreKind,
    traffic::{Endpoint, Probe, Report, ping, transfer},
};

/// An emulated CPU takes its time.
const SOON: Duration = Duration::from_secs(20);
/// Each way; enough for aggregates, which TCP makes by itself.
const TCP_BYTES: usize = 1_000_000;
const UDP_RATE: u32 = 200;

fn two_hosts() -> Topology {
    Topology::builder().store(StoreKind::Peers).containers(2).up().unwrap()
}

fn end(host: &Host, container: u32) -> Endpoint<'_> {
    Endpoint { ns: &host.c(container).ns, ip: host.c(container).ip }
}

/// Whether status says that the kernel has no tcx.
fn says_no_tcx(host: &Host) -> bool {
    let status = host.overlayd().ctl(&["status", "-o", "json"]).unwrap();
    let notes = status["notes"].as_array().unwrap();
    notes.iter().any(|note| note.as_str().unwrap().contains("no tcx"))
}

/// Pings until the endpoints are known: from then on everything takes the fast path.
fn warm_up(topology: &Topology) {
    for (from, to) in [(1, 2), (2, 1)] {
        let ping = ping(&topology.h(from).c(1).ns, topology.h(to).c(1).ip, 3).unwrap();
        assert!(ping.clean(), "{}", ping.text);
    }
    for host in &topology.hosts {
        eventually("the endpoint is known", SOON, || host.knows(1)).unwrap();
    }
}

fn probe(topology: &Topology, duration: Duration) -> Probe {
    Probe::start(end(topology.h(1), 1), end(topology.h(2), 1), UDP_RATE, duration).unwrap()
}

fn traffic(topology: &Topology) -> [Traffic; 2] {
    let of = |host: &Host, peer: &Host| host.overlayd().traffic(peer.ip).unwrap();
    [of(topology.h(1), topology.h(2)), of(topology.h(2), topology.h(1))]
}

/// What the bridges themselves have carried: nothing of the fast path.
fn bridged(topology: &Topology) -> u64 {
    let of = |host: &Host| harness::counters::packets(&host.ns, BRIDGE).unwrap();
    topology.hosts.iter().map(of).map(|packets| packets.rx + packets.tx).sum()
}

fn assert_nothing_dropped(topology: &Topology) {
    for host in &topology.hosts {
        assert_eq!(host.overlayd().drops().unwrap().len(), 0, "on {}", host.name);
    }
}

#[test]
fn ping_udp_and_tcp_take_the_fast_path() {
    let topology = two_hosts();
    warm_up(&topology);
    let (before, bridged_before) = (traffic(&topology), bridged(&topology));

    let report: Report = probe(&topology, Duration::from_secs(5)).join().unwrap();
    assert!(report.clean(), "{report}");
    let (forth, back) = (report.forth.sent, report.back.sent);
    let after = traffic(&topology);
    // ARP, and IPv6's chatter of routers and groups, go over the bridge: some packets, not hundreds.
    assert!(forth >= 500 && back >= 500, "{report}");
    assert!(bridged(&topology) - bridged_before < 100, "the bridges carried packets of the flow");
    let moved = |n: usize| (after[n].to - before[n].to, after[n].from - before[n].from);
    assert_eq!([moved(0), moved(1)], [(forth, back), (back, forth)]);

    for (from, to) in [(1, 2), (2, 1)] {
        transfer(end(topology.h(from), 1), end(topology.h(to), 1), TCP_BYTES).unwrap();
    }
    assert!(bridged(&topology) - bridged_before < 200, "the bridges carried packets of TCP");
    let segments = traffic(&topology)[0].to - after[0].to;
    assert!(segments > (2 * TCP_BYTES / 1500) as u64, "{segments} packets only were counted");
    assert_nothing_dropped(&topology);
}

/// From the host, to the host, and between containers of one bridge: the hooks besides those of the fast path.
#[test]
fn the_host_and_neighbours_on_one_bridge_are_reached() {
    let topology = two_hosts();
    warm_up(&topology);
    let (h1, h2) = (topology.h(1), topology.h(2));
    for (what, ns, ip) in [
        ("host to container", &h1.ns, h2.c(1).ip),
        ("host to host", &h1.ns, h2.bridge.ip),
        ("container to host", &h1.c(1).ns, h2.bridge.ip),
        ("container to its neighbour", &h1.c(1).ns, h1.c(2).ip),
    ] {
        let ping = ping(ns, ip, 3).unwrap();
        assert!(ping.clean(), "{what}: {}", ping.text);
    }
    let report =
        Probe::start(end(h1, 1), end(h1, 2), UDP_RATE, Duration::from_secs(3)).unwrap().join().unwrap();
    assert!(report.clean(), "between neighbours: {report}");
    // The tunnel device, by what the kernel has to put together.
    let large =
        harness::traffic::ping_with(&h1.c(1).ns, h2.c(1).ip, 3, &["-s", "3000", "-M", "dont"]).unwrap();
    assert!(large.clean(), "{}", large.text);
    transfer(end(h1, 1), end(h1, 2), TCP_BYTES).unwrap();
    assert_nothing_dropped(&topology);
}

#[test]
fn a_restart_loses_nothing_and_leaves_as_many_programs_as_before() {
    let mut topology = two_hosts();
    warm_up(&topology);
    // The uplink thrice, docker0 both ways, the ports of two containers, and the tunnel device.
    let before = topology.hosts.iter().map(|host| attached(host).unwrap()).collect::<Vec<_>>();
    assert_eq!(before, [8, 8], "{}", clsact(&topology.h(1).ns).unwrap());
    for host in &topology.hosts {
        // Which of the two it is, is asked of the kernel; all are of one kind, and status tells of the lesser one.
        let over_tcx = tcx::attachments_in(&host.ns).unwrap().len();
        assert_eq!((over_tcx, says_no_tcx(host)), if over_tcx > 0 { (8, false) } else { (0, true) });
    }
    let probe = probe(&topology, Duration::from_secs(60));
    for number in [1, 2] {
        topology.h_mut(number).overlayd_mut().restart().unwrap();
        topology.h_mut(number).overlayd_mut().kill9().unwrap();
        let until = probe.arrived() + 100;
        eventually("traffic flows without a daemon", SOON, || probe.arrived() >= until).unwrap();
        topology.h_mut(number).overlayd_mut().start_again().unwrap();
    }
    let report = probe.finish().unwrap();
    assert!(report.clean(), "{report}");
    let after = topology.hosts.iter().map(|host| attached(host).unwrap()).collect::<Vec<_>>();
    assert_eq!(after, before, "{}", clsact(&topology.h(1).ns).unwrap());
    assert_nothing_dropped(&topology);
}

#[test]
fn detach_leaves_no_program_and_no_qdisc() {
    let mut topology = two_hosts();
    warm_up(&topology);
    assert!(topology.hosts.iter().all(|host| attached(host).unwrap() > 0));
    // A daemon that was killed has nobody to tidy up after it but detach.
    topology.h_mut(2).overlayd_mut().kill9().unwrap();
    for number in [1, 2] {
        let output = topology.h_mut(number).overlayd_mut().detach().unwrap();
        assert_eq!(output.code, Some(0), "{}", output.text());
        let host = topology.h(number);
        assert_eq!(
            (attached(host).unwrap(), clsact(&host.ns).unwrap()),
            (0, String::new()),
            "on {}",
            host.name
        );
    }
}

/// A clsact of somebody else's stays, with their filter.
#[test]
fn a_clsact_of_others_stays() {
    let mut topology = Topology::builder().store(StoreKind::Peers).without_overlayd().up().unwrap();
    let h1 = topology.h(1);
    h1.ns.exec(&["tc", "qdisc", "add", "dev", UPLINK, "clsact"]).unwrap();
    // Of the kind of ours, at the priority that ours take.
    let filter = ["filter", "add", "dev", UPLINK, "ingress", "prio", "1", "protocol", "all", "bpf"];
    h1.ns.cmd("tc").args(filter).args(["bytecode", "1,6 0 0 0,", "flowid", "1:1"]).check().unwrap();
    let theirs = clsact(&h1.ns).unwrap();
    for index in [0, 1] {
        topology.start_overlayd(index).unwrap();
    }
    topology.await_routes().unwrap();
    warm_up(&topology);
    assert_eq!(topology.h_mut(1).overlayd_mut().detach().unwrap().code, Some(0));
    let host = topology.h(1);
    assert!(theirs.contains("clsact") && theirs.contains("bytecode"), "{theirs}");
    assert_eq!(clsact(&host.ns).unwrap(), theirs);
}
