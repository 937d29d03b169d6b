//! Somebody else's programs on the hooks that ours are on: each sees what it should, keeps its turn, and is named.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails, in its helpers too")]

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use harness::{
    Netns, Topology, eventually,
    foreign::{Foreign, Kind, OnFilter, OnHook, Order, Watched},
    host::{BRIDGE, Host, UPLINK},
    tcx::{self, Direction},
    traffic::{DatagramSocket, Endpoint, Probe, ping, ping_with, transfer},
    two_hosts,
};

const SOON: Duration = Duration::from_secs(5);
/// The daemon looks at every resync, ten seconds apart, on a machine that may be busy.
const NOTICED: Duration = Duration::from_secs(30);

const TUNNEL: u16 = 4789;
/// To containers, and from host to host past the overlay.
const INSIDE: u16 = 40_001;
const OUTSIDE: u16 = 40_002;
/// Datagrams at once.
const COUNT: u64 = 50;

fn send(from: (&Netns, Ipv4Addr), to: (&Netns, Ipv4Addr), port: u16, count: u64) {
    let near = DatagramSocket::bind(from.0, from.1, 0).unwrap();
    let far = DatagramSocket::bind(to.0, to.1, port).unwrap();
    for n in 0..count {
        near.send(far.address(), b"for whoever counts").unwrap();
        assert!(far.receive(SOON).unwrap().is_some(), "datagram {n} to port {port}");
    }
}

/// From the second host's container to the first one's, and from host to host: all of it arrives.
fn inward(topology: &Topology) {
    let (h1, h2) = (topology.h(1), topology.h(2));
    send((&h2.c(1).ns, h2.c(1).ip), (&h1.c(1).ns, h1.c(1).ip), INSIDE, COUNT);
    send((&h2.ns, h2.ip), (&h1.ns, h1.ip), OUTSIDE, COUNT);
}

fn know_each_other(topology: &Topology) {
    let (h1, h2) = (topology.h(1), topology.h(2));
    assert!(ping(&h1.c(1).ns, h2.c(1).ip, 2).unwrap().clean());
    eventually("the endpoints are known", SOON, || h1.knows(1) && h2.knows(1)).unwrap();
}

fn counting(kind: Kind, name: &str) -> Foreign {
    Foreign::counting(kind, name, &[TUNNEL, INSIDE, OUTSIDE]).unwrap()
}

fn at_uplink(foreign: &Foreign, host: &Host, order: Order) -> OnHook {
    foreign.tcx(&host.ns, UPLINK, Direction::Ingress, order).unwrap()
}

fn filter(foreign: &Foreign, topology: &Topology, number: usize, direction: Direction) -> OnFilter {
    let host = topology.h(number);
    // Beside the daemon's pins, and gone with the topology's.
    let pin = host.overlayd().config.pin_dir.with_file_name(format!("{}-filter", host.name));
    foreign.filter(&host.ns, UPLINK, direction, &pin).unwrap()
}

/// The programs on the uplink's ingress, in their turn; ours, which stand together, are 0.
fn turns(host: &Host, foreign: &[&Foreign]) -> Vec<u32> {
    let known: Vec<u32> = foreign.iter().map(|foreign| foreign.id().unwrap()).collect();
    let here = |a: &tcx::Attachment| a.ifname == UPLINK && a.direction == Direction::Ingress;
    let all = tcx::attachments_in(&host.ns).unwrap().into_iter().filter(here);
    let mut turns: Vec<u32> = all.map(|a| if known.contains(&a.program) { a.program } else { 0 }).collect();
    turns.dedup_by(|later, earlier| *later == 0 && *earlier == 0);
    turns
}

fn notes(host: &Host) -> Vec<String> {
    let status = host.overlayd().ctl(&["status", "-o", "json"]).unwrap();
    let notes = status["notes"].as_array().unwrap();
    notes.iter().map(|note| note.as_str().unwrap().to_owned()).collect()
}

fn noted(host: &Host, expected: &str) {
    let said = || notes(host).iter().any(|note| note == expected);
    eventually("the note is there", NOTICED, said)
        .unwrap_or_else(|e| panic!("{e:#}\nwanted: {expected}\nthere: {:#?}", notes(host)));
}

/// Has the daemon look at once: links have changed.
fn nudge(host: &Host) {
    host.ns.ip("link set dev lo alias nudged").unwrap();
}

fn silent_about(host: &Host, name: &str) {
    let silent = || !notes(host).iter().any(|note| note.contains(name));
    eventually("the note is gone", NOTICED, silent).unwrap_or_else(|e| panic!("{e:#} {:#?}", notes(host)));
}

/// Seen so far: tunnel packets, packets from host to host.
fn seen(foreign: &Foreign) -> (u64, u64) {
    (foreign.seen(TUNNEL).unwrap(), foreign.seen(OUTSIDE).unwrap())
}

#[test]
fn on_the_uplink_each_sees_what_it_should() {
    let topology = two_hosts().unwrap();
    know_each_other(&topology);
    let h1 = topology.h(1);
    let [xdp, first, last, old] =
        [(Kind::Xdp, "for_xdp"), (Kind::Tc, "for_first"), (Kind::Tc, "for_last"), (Kind::Tc, "for_filter")]
            .map(|(kind, name)| counting(kind, name));
    let _held = [
        xdp.xdp(&h1.ns, UPLINK).unwrap(),
        at_uplink(&first, h1, Order::First),
        at_uplink(&last, h1, Order::Last),
    ];
    let _filter = filter(&old, &topology, 1, Direction::Ingress);
    let before = [&xdp, &first].map(seen);
    inward(&topology);
    assert!(ping(&topology.h(2).ns, h1.ip, 3).unwrap().clean());
    for (foreign, (tunnel, outside)) in [&xdp, &first].into_iter().zip(before) {
        assert_eq!(seen(foreign), (tunnel + COUNT, outside + COUNT), "before ours");
    }
    for foreign in [&last, &old] {
        assert_eq!(seen(foreign), (0, COUNT), "after ours");
        assert!(foreign.others().unwrap() >= 3, "pings");
    }
    // TCP at full size, with all of them there.
    let ends = [topology.h(2), h1].map(|host| Endpoint { ns: &host.c(1).ns, ip: host.c(1).ip });
    transfer(ends[0], ends[1], 2_000_000).unwrap();
    transfer(ends[1], ends[0], 2_000_000).unwrap();
    for foreign in [&last, &old] {
        assert_eq!(foreign.seen(TUNNEL).unwrap(), 0, "after ours");
    }
    for foreign in [&xdp, &first, &last, &old] {
        assert_eq!(foreign.seen(INSIDE).unwrap(), 0, "nobody sees on the uplink what came out of a tunnel");
    }
    let ids = [&xdp, &first, &last, &old].map(|foreign| foreign.id().unwrap());
    let taken = "tunnel packets that it drops or redirects do not reach containers";
    let unseen = "it does not see the tunnel packets that overlayd takes";
    for line in [
        format!("XDP program for_xdp (id {}, native) runs before overlayd's uplink_ingress: {taken}", ids[0]),
        format!("tcx program for_first (id {}) runs before overlayd's uplink_ingress: {taken}", ids[1]),
        format!("tcx program for_last (id {}) runs after overlayd's uplink_ingress: {unseen}", ids[2]),
        format!("tc filter for_filter (id {}) runs after overlayd's uplink_ingress: {unseen}", ids[3]),
    ] {
        noted(h1, &format!("on eth0, {line}"));
    }
    assert_eq!(h1.overlayd().drops().unwrap().len(), 0);
}

#[test]
fn everybody_keeps_the_turn_over_restarts_and_departures() {
    let mut topology = Topology::builder().without_overlayd().up().unwrap();
    let [early, late, front] = ["for_early", "for_late", "for_front"].map(|name| counting(Kind::Tc, name));
    let [e, l, f] = [&early, &late, &front].map(|foreign| foreign.id().unwrap());
    let all = [&early, &late, &front];
    // One that was there first has to let ours before it; one that comes later goes where it likes.
    let held = at_uplink(&early, topology.h(1), Order::First);
    topology.start_overlayd(0).unwrap();
    topology.start_overlayd(1).unwrap();
    topology.await_routes().unwrap();
    know_each_other(&topology);
    assert_eq!(turns(topology.h(1), &all), [0, e]);
    let at_end = at_uplink(&late, topology.h(1), Order::Last);
    let at_front = at_uplink(&front, topology.h(1), Order::First);
    assert_eq!(turns(topology.h(1), &all), [f, 0, e, l]);

    let ends = [1, 2].map(|n| topology.h(n).c(1)).map(|c| Endpoint { ns: &c.ns, ip: c.ip });
    let probe = Probe::start(ends[0], ends[1], 1000, Duration::from_secs(60)).unwrap();
    topology.h_mut(1).overlayd_mut().restart().unwrap();
    assert_eq!(turns(topology.h(1), &all), [f, 0, e, l]);
    topology.h_mut(1).overlayd_mut().kill9().unwrap();
    topology.h_mut(1).overlayd_mut().start_again().unwrap();
    assert_eq!(turns(topology.h(1), &all), [f, 0, e, l]);
    // What was there at the start is told at the start.
    let taken = "tunnel packets that it drops or redirects do not reach containers";
    noted(
        topology.h(1),
        &format!("on eth0, tcx program for_front (id {f}) runs before overlayd's uplink_ingress: {taken}"),
    );
    let ids: Vec<u32> = [&held, &at_end, &at_front].iter().map(|on| on.id().unwrap()).collect();
    drop(at_end);
    assert_eq!(turns(topology.h(1), &all), [f, 0, e]);
    let report = probe.finish().unwrap();
    assert!(report.clean() && report.forth.sent > 100, "{report}");
    assert_eq!(seen(&late).0 + seen(&early).0, 0, "ours took all tunnel packets");

    topology.h_mut(1).overlayd_mut().stop().unwrap();
    assert_eq!(topology.h_mut(1).overlayd_mut().detach().unwrap().code, Some(0));
    assert_eq!(turns(topology.h(1), &all), [f, e]);
    assert!(tcx::link_exists(ids[0]).unwrap() && !tcx::link_exists(ids[1]).unwrap());
    // Nobody takes what comes to the tunnel's port any more: the one behind sees it now.
    let (h1, h2) = (topology.h(1), topology.h(2));
    let stray = DatagramSocket::bind(&h2.ns, h2.ip, 0).unwrap();
    let before = [&front, &early].map(|foreign| seen(foreign).0);
    for _ in 0..COUNT {
        stray.send(SocketAddrV4::new(h1.ip, TUNNEL), b"for nobody").unwrap();
    }
    let both = || [&front, &early].map(|foreign| seen(foreign).0) == before.map(|count| count + COUNT);
    eventually("both see it", SOON, both).unwrap();
}

/// What each that drops tunnel packets does to them, by where it is.
#[test]
fn one_that_drops_tunnel_packets_is_named() {
    let topology = Topology::builder().containers(2).up().unwrap();
    know_each_other(&topology);
    let (h1, h2) = (topology.h(1), topology.h(2));
    let watched = [Watched { port: TUNNEL, drop: true }];
    let reached = || ping_with(&h2.c(1).ns, h1.c(1).ip, 3, &["-W", "0.3"]).unwrap().received == 3;
    // What has nothing to do with it goes on meanwhile.
    let ends = [1, 2].map(|n| h1.c(n)).map(|c| Endpoint { ns: &c.ns, ip: c.ip });
    let probe = Probe::start(ends[0], ends[1], 1000, Duration::from_secs(120)).unwrap();
    assert!(reached());

    let dropping = |kind, name| Foreign::load(kind, name, &watched).unwrap();
    let taken = "tunnel packets that it drops or redirects do not reach containers";
    let before = "runs before overlayd's uplink_ingress";
    let tcx = dropping(Kind::Tc, "for_thief");
    let held = at_uplink(&tcx, h1, Order::First);
    assert!(!reached() && tcx.seen(TUNNEL).unwrap() >= 3);
    nudge(h1);
    let id = tcx.id().unwrap();
    noted(h1, &format!("on eth0, tcx program for_thief (id {id}) {before}: {taken}"));
    drop(held);
    assert!(reached());

    // Behind ours there is nothing to steal.
    let behind = dropping(Kind::Tc, "for_behind");
    let held = at_uplink(&behind, h1, Order::Last);
    let filtered = dropping(Kind::Tc, "for_old");
    let filter = filter(&filtered, &topology, 1, Direction::Ingress);
    assert!(reached());
    assert_eq!((behind.seen(TUNNEL).unwrap(), filtered.seen(TUNNEL).unwrap()), (0, 0));
    drop((held, filter));

    let xdp = dropping(Kind::Xdp, "xdp_dispatcher");
    let held = xdp.xdp(&h1.ns, UPLINK).unwrap();
    assert!(!reached() && xdp.seen(TUNNEL).unwrap() >= 3);
    nudge(h1);
    let id = xdp.id().unwrap();
    let what = "of libxdp, and what it calls,";
    noted(h1, &format!("on eth0, XDP program xdp_dispatcher (id {id}, native) {what} {before}: {taken}"));
    silent_about(h1, "for_thief");
    drop(held);
    assert!(reached());
    nudge(h1);
    silent_about(h1, "xdp_dispatcher");
    let report = probe.finish().unwrap();
    assert!(report.clean() && report.forth.sent > 100, "{report}");
}

#[test]
fn around_the_containers_each_sees_what_it_should() {
    let topology = Topology::builder().containers(2).up().unwrap();
    know_each_other(&topology);
    let (h1, h2) = (topology.h(1), topology.h(2));
    let names = ["for_port", "for_port_end", "for_port_out", "for_bridge", "for_bridge_out", "for_leaving"];
    let all = names.map(|name| counting(Kind::Tc, name));
    let [port, port_end, port_out, bridge, bridge_out, leaving] = &all;
    let mut held = Vec::new();
    for number in [1, 2] {
        let device = &h1.c(number).port;
        held.push(port.tcx(&h1.ns, device, Direction::Ingress, Order::First).unwrap());
        held.push(port_end.tcx(&h1.ns, device, Direction::Ingress, Order::Last).unwrap());
    }
    held.push(port_out.tcx(&h1.ns, &h1.c(1).port, Direction::Egress, Order::First).unwrap());
    held.push(bridge.tcx(&h1.ns, BRIDGE, Direction::Ingress, Order::Last).unwrap());
    held.push(bridge_out.tcx(&h1.ns, BRIDGE, Direction::Egress, Order::First).unwrap());
    let filter = filter(leaving, &topology, 1, Direction::Egress);

    let (near, far) = ((&h1.c(1).ns, h1.c(1).ip), (&h2.c(1).ns, h2.c(1).ip));
    send(near, far, INSIDE, COUNT);
    send(far, near, OUTSIDE, COUNT);
    // Out, by the port and the uplink; in, past both the bridge and the port.
    let counts = all.each_ref().map(|f| [INSIDE, OUTSIDE, TUNNEL].map(|port| f.seen(port).unwrap()));
    let nothing = [0, 0, 0];
    assert_eq!(counts, [[COUNT, 0, 0], nothing, nothing, nothing, nothing, [0, 0, COUNT]], "{names:?}");

    let id = |foreign: &Foreign| foreign.id().unwrap();
    let unseen = "it does not see the packets to peers that overlayd takes";
    let dropped = "what it drops or redirects does not reach peers";
    let ports = format!("2 ports of docker0 ({}, {})", h1.c(1).port, h1.c(2).port);
    for line in [
        format!(
            "on {ports}, tcx program for_port (id {}) runs before overlayd's workload_egress: {dropped}",
            id(port)
        ),
        format!(
            "on {ports}, tcx program for_port_end (id {}) runs after overlayd's workload_egress: {unseen}",
            id(port_end)
        ),
        format!(
            "on the egress of {}, tcx program for_port_out (id {}): it does not see packets that overlayd hands to the container past it",
            h1.c(1).port,
            id(port_out)
        ),
        format!(
            "on docker0, tcx program for_bridge (id {}) runs after overlayd's workload_egress: {unseen}",
            id(bridge)
        ),
        format!(
            "on docker0, tcx program for_bridge_out (id {}) runs before overlayd's bridge_egress: {dropped}",
            id(bridge_out)
        ),
        format!(
            "on the egress of eth0, tc filter for_leaving (id {}): it sees packets to peers with their outer headers; what it drops does not reach them",
            id(leaving)
        ),
    ] {
        noted(h1, &line);
    }
    drop((held, filter));
    nudge(h1);
    silent_about(h1, "for_");
    assert_eq!(h1.overlayd().drops().unwrap().len(), 0);
}
