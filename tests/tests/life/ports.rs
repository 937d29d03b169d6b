//! Ports by the hundred, and events that are lost.

use std::{
    fs,
    thread::sleep,
    time::{Duration, Instant},
};

use harness::{
    Topology, eventually,
    host::{BRIDGE, Host},
    traffic::ping,
    two_hosts,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use overlay_user::datapath::{map::Maps, pin::Pins};

use crate::bed::{Flow, SOON, is_well};

const VETHS: usize = 200;

/// Processor time of the daemon so far: utime and stime of proc(5), in ticks of 10 ms.
fn processor_time(host: &Host) -> Duration {
    let pid = host.overlayd().pid().unwrap();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

/// What is pinned and what the maps know, besides the one container that stays.
fn left_over(host: &Host) -> (usize, usize, usize) {
    let pins = Pins::new(&host.overlayd().config.pin_dir);
    let maps = Maps::open(&pins).unwrap();
    (pins.pinned_links().unwrap().len(), maps.ports().unwrap().len(), maps.endpoints().unwrap().len())
}

/// Adds and removes veths at this pace, each with its other end in the host itself.
fn churn(host: &Host, over: Duration) {
    let pace = over / (2 * VETHS as u32);
    let began = Instant::now();
    let step = |n: usize, command: &[String]| {
        host.ns.ip_batch(command).unwrap();
        sleep((pace * n as u32).saturating_sub(began.elapsed()));
    };
    for n in 0..VETHS {
        step(
            n + 1,
            &[
                format!("link add name churn{n} type veth peer name far{n}"),
                format!("link set churn{n} master {BRIDGE} up"),
            ],
        );
    }
    for n in 0..VETHS {
        step(VETHS + n + 1, &[format!("link del churn{n}")]);
    }
}

fn veths_come_and_go(over: Duration) {
    let topology = two_hosts().unwrap();
    let h1 = topology.h(1);
    assert!(ping(&h1.c(1).ns, topology.h(2).c(1).ip, 2).unwrap().clean());
    eventually("the endpoint is known", SOON, || h1.knows(1)).unwrap();
    let before = left_over(h1);
    let flow = Flow::start(&topology);
    let (began, used) = (Instant::now(), processor_time(h1));
    churn(h1, over);
    let (took, used) = (began.elapsed(), processor_time(h1) - used);
    eprintln!("{VETHS} veths came and went in {took:?}: the daemon used {used:?}");
    eventually("nothing is left over", SOON, || left_over(h1) == before)
        .unwrap_or_else(|error| panic!("{error}: {before:?}, now {:?}", left_over(h1)));
    assert!(used < took, "it did nothing else");
    is_well(h1);
    flow.clean();
}

/// In a few seconds; in a minute with `OVERLAYD_TEST_FULL=1`.
#[test]
fn hundreds_of_veths_come_and_go_and_nothing_is_lost() {
    veths_come_and_go(Duration::from_secs(5));
    if std::env::var_os("OVERLAYD_TEST_FULL").is_some() {
        veths_come_and_go(Duration::from_secs(60));
    }
}

fn signal(host: &Host, signal: Signal) {
    kill(Pid::from_raw(host.overlayd().pid().unwrap().cast_signed()), signal).unwrap();
}

/// More notifications than the monitor's socket holds.
fn flood(host: &Host) {
    host.ns.ip("link add name flood type veth peer name flood2").unwrap();
    host.ns.ip("link set flood up").unwrap();
    let address = |n: u32| format!("10.200.{}.{}", n / 250, 1 + n % 250);
    for state in ["permanent", "noarp", "permanent"] {
        let lines: Vec<String> = (0..9000)
            .map(|n| format!("neigh replace {} lladdr 02:00:00:00:00:01 dev flood nud {state}", address(n)))
            .collect();
        host.ns.ip_batch(&lines).unwrap();
    }
    host.ns.ip("link del flood").unwrap();
}

/// Notifications that netlink sockets in the host's namespace have lost: the ninth column of /proc/net/netlink.
fn overruns(host: &Host) -> u64 {
    let table = host.ns.run(|| fs::read_to_string("/proc/thread-self/net/netlink")).unwrap().unwrap();
    table.lines().skip(1).map(|line| line.split_whitespace().nth(8).unwrap().parse::<u64>().unwrap()).sum()
}

#[test]
fn what_happened_in_lost_events_is_found_all_the_same() {
    let mut topology = Topology::builder().containers(2).up().unwrap();
    let flow = Flow::start(&topology);
    signal(topology.h(1), Signal::SIGSTOP);
    flood(topology.h(1));
    let lost = overruns(topology.h(1));
    assert!(lost > 0, "its socket holds them all");
    // From here on it hears of nothing.
    let old = topology.h(1).port_index(2).unwrap();
    topology.h_mut(1).remove_container("c2").unwrap();
    topology.start_container(1, 3).unwrap();
    let h1 = topology.h(1);
    h1.ns.ip(&format!("route flush proto 79 dev {BRIDGE}")).unwrap();
    h1.ns.ip("link set eth0 mtu 1400").unwrap();
    assert!(overruns(h1) > lost);
    signal(h1, Signal::SIGCONT);
    let pins = Pins::new(&h1.overlayd().config.pin_dir);
    let followed = || {
        let maps = Maps::open(&pins).unwrap();
        let gone = maps.ports().unwrap().iter().all(|(index, _)| *index != old);
        let routes = h1.ns.ip(&format!("route show proto 79 dev {BRIDGE}")).unwrap().stdout;
        // Until it has said something again, it counts as one that does not run.
        let mtu = h1.overlayd().ctl(&["status", "-o", "json"]).is_ok_and(|status| status["mtu"] == 1350);
        gone && mtu && routes.contains("mtu 1350") && h1.attached(&h1.c(3).port).unwrap()
    };
    eventually("all is followed", SOON, followed).unwrap();
    assert!(ping(&topology.h(2).c(1).ns, h1.c(3).ip, 2).unwrap().clean());
    h1.ns.ip("link set eth0 mtu 1500").unwrap();
    is_well(h1);
    flow.clean();
}
