//! A peer behind NAT: its packets come from another address than packets to it go to.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails, in its helpers too")]

use std::{fs, time::Duration};

use harness::{
    Topology, eventually,
    traffic::{Endpoint, Probe, ping},
    wire::WireKind,
};

const SOON: Duration = Duration::from_secs(10);
/// What the router makes of host 2's address.
const OUTER: &str = "203.0.113.9";

fn drops(topology: &Topology) -> u64 {
    let drops = topology.h(1).overlayd().drops().unwrap();
    assert!(drops.keys().all(|reason| reason == "unknown_peer"), "{drops:?}");
    drops.get("unknown_peer").copied().unwrap_or(0)
}

#[test]
fn a_peer_behind_nat_is_refused_by_name_until_it_says_where_it_comes_from() {
    let mut topology = Topology::builder().hosts(3).wire(WireKind::Routed { narrow: 1500 }).up().unwrap();
    // Traffic of the host that has an address of its own, behind the same router.
    let ends = [1, 3].map(|n| topology.h(n).c(1)).map(|c| Endpoint { ns: &c.ns, ip: c.ip });
    let probe = Probe::start(ends[0], ends[1], 1000, Duration::from_secs(60)).unwrap();
    let router = topology.wire.namespaces().last().unwrap();
    let inner = topology.h(2).ip.to_string();
    let rule =
        ["-t", "nat", "-A", "POSTROUTING", "-p", "udp", "-s", &inner, "-j", "SNAT", "--to-source", OUTER];
    // Only what begins from now on is looked at: nothing has been sent yet.
    router.cmd("iptables").args(rule).check().unwrap();

    let (near, far) = (topology.h(1).c(1), topology.h(2).c(1));
    assert_eq!(ping(&far.ns, near.ip, 2).unwrap().received, 0);
    assert!(drops(&topology) > 0);
    let log = || fs::read_to_string(&topology.h(1).overlayd().config.log).unwrap();
    let mut pings = 0;
    eventually("it is named", SOON, || {
        pings += ping(&far.ns, near.ip, 1).unwrap().received;
        log().contains(&format!("tunnel packets from {OUTER} are dropped (unknown_peer)"))
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", topology.h(1).overlayd().log_tail(10)));
    assert_eq!(pings, 0);
    let status = topology.h(1).overlayd().ctl_output(&["status"]).unwrap();
    assert!(status.stdout.contains(OUTER) && status.stdout.contains("--src-ip"), "{}", status.text());

    let h2 = topology.h_mut(2).overlayd_mut();
    h2.config.args.push(format!("--src-ip={OUTER}"));
    h2.restart().unwrap();
    let (near, far) = (topology.h(1).c(1), topology.h(2).c(1));
    let talk = || ping(&far.ns, near.ip, 1).is_ok_and(|ping| ping.clean());
    eventually("it is believed", SOON, talk).unwrap();
    let before = drops(&topology);
    assert!(ping(&far.ns, near.ip, 3).unwrap().clean() && ping(&near.ns, far.ip, 3).unwrap().clean());
    assert_eq!(drops(&topology), before);

    // What it says no more is believed no more.
    let h2 = topology.h_mut(2).overlayd_mut();
    h2.config.args.pop();
    h2.restart().unwrap();
    let (near, far) = (topology.h(1).c(1), topology.h(2).c(1));
    let silent = || ping(&far.ns, near.ip, 1).is_ok_and(|ping| ping.received == 0);
    eventually("it is refused", SOON, silent).unwrap();
    assert!(drops(&topology) > before);
    let report = probe.finish().unwrap();
    assert!(report.clean(), "{report}");
}
