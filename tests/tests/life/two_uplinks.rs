//! Hosts with two uplinks, each to a router of its own: flows are spread over both (ECMP), and a way that goes takes
//! nothing along but what was on it.

use std::{collections::BTreeMap, net::UdpSocket, time::Duration};

use harness::{
    Topology, counters, eventually, host::Host, topology::StoreKind, traffic::ping_with, versions::Versions,
    wire::WireKind,
};
use overlay_user::datapath::{map::Maps, pin::Pins};
use serde_json::Value;

use crate::bed::{Flow, SOON, is_well, pause, says};

/// Two hosts and two routers; the second way carries packets of so many bytes.
fn hosts(second: u32) -> Topology {
    Topology::builder().wire(WireKind::TwoPaths { second }).store(StoreKind::Peers).up().unwrap()
}

/// Packets that each uplink has sent.
fn sent(host: &Host) -> [u64; 2] {
    ["eth0", "eth1"].map(|uplink| counters::packets(&host.ns, uplink).unwrap().tx)
}

/// Packets that each uplink sends meanwhile.
fn sends(host: &Host, during: impl FnOnce()) -> [u64; 2] {
    let before = sent(host);
    during();
    let after = sent(host);
    [after[0] - before[0], after[1] - before[1]]
}

/// The uplink by which the host's side of a flow leaves. The flow has a thousand packets a second.
fn uplink_of(host: &Host) -> usize {
    // As many as tell: a machine that is busy may send none for a while.
    let before = sent(host);
    let since = || {
        let now = sent(host);
        [now[0] - before[0], now[1] - before[1]]
    };
    eventually("the flow goes on", SOON, || since().iter().sum::<u64>() > 250).unwrap();
    let sent = since();
    match sent {
        [a, b] if a > 100 && b < 100 => 0,
        [a, b] if b > 100 && a < 100 => 1,
        _ => panic!("one flow takes one way: {sent:?} packets"),
    }
}

/// What `overlayctl peers` says of the ways to the first peer: eighths of all flows, by uplink.
fn shares(host: &Host) -> BTreeMap<String, u64> {
    let peers = host.overlayd().ctl(&["peers", "-o", "json"]).unwrap();
    let hops = peers[0]["hops"].as_array().unwrap();
    hops.iter()
        .map(|hop| (hop["uplink"].as_str().unwrap().to_owned(), hop["share"].as_u64().unwrap()))
        .collect()
}

fn shared(eth0: u64, eth1: u64) -> BTreeMap<String, u64> {
    [("eth0", eth0), ("eth1", eth1)]
        .into_iter()
        .filter(|(_, share)| *share > 0)
        .map(|(uplink, share)| (uplink.to_owned(), share))
        .collect()
}

fn await_shares(host: &Host, eth0: u64, eth1: u64) {
    let expected = shared(eth0, eth1);
    eventually(&format!("shares {expected:?}"), SOON, || shares(host) == expected)
        .unwrap_or_else(|error| panic!("{error}: {:?}\n{}", shares(host), host.overlayd().log_tail(20)));
}

fn default_route(host: &Host, hops: &str) {
    host.ns.ip(&format!("route replace default src {} {hops}", host.ip)).unwrap();
}

/// The host's gateways.
fn gateways(host: &Host) -> [String; 2] {
    let n = host.ip.octets()[3] & !1;
    [format!("198.18.1.{n}"), format!("198.18.2.{n}")]
}

#[test]
fn many_flows_use_both_and_one_flow_keeps_its_own() {
    const FLOWS: usize = 128;
    const EACH: u64 = 8;
    let topology = hosts(1500);
    let (h1, h2) = (topology.h(1), topology.h(2));
    await_shares(h1, 4, 4);
    let status = h1.overlayd().ctl(&["status", "-o", "json"]).unwrap();
    let decaps: Vec<_> = status["uplinks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|uplink| (uplink["name"].as_str().unwrap(), uplink["decap"].as_str().unwrap()))
        .collect();
    assert_eq!(decaps, [("eth0", "tc"), ("eth1", "tc")]);

    let (c1, c2) = (h1.c(1), h2.c(1));
    let there = c2.ns.run(|| UdpSocket::bind((c2.ip, 7000))).unwrap().unwrap();
    there.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let senders = || (0..FLOWS).map(|_| UdpSocket::bind((c1.ip, 0)).unwrap()).collect();
    let senders: Vec<UdpSocket> = c1.ns.run(senders).unwrap();
    let round = |senders: &[UdpSocket], packets: u64| {
        for sender in senders {
            for _ in 0..packets {
                sender.send_to(b"one of many", (c2.ip, 7000)).unwrap();
                there.recv(&mut [0; 32]).unwrap();
            }
        }
    };
    let all = sends(h1, || round(&senders, EACH));
    let total = FLOWS as u64 * EACH;
    // Of 128 flows less than 32 on one of two ways are no accident.
    assert!(
        all.iter().all(|sent| *sent >= total / 4) && all.iter().sum::<u64>() >= total,
        "{all:?} of {total}"
    );
    for sender in &senders[..4] {
        let one = sends(h1, || round(std::slice::from_ref(sender), 200));
        assert!(one.iter().any(|sent| *sent >= 200) && one.iter().any(|sent| *sent < 50), "{one:?}");
    }
    is_well(h1);
}

/// The whole way of a flow goes and comes back, on the host's own side and on the router's.
#[test]
fn a_way_that_goes_takes_along_only_what_was_on_it() {
    for (at, what) in [(Side::Host, "the host's link"), (Side::Router, "the cable")] {
        let topology = hosts(1500);
        let h1 = topology.h(1);
        let flow = Flow::start(&topology);
        let used = uplink_of(h1);
        let mut gone = Vec::new();
        for state in ["down", "up"] {
            let now = flow.now();
            gone.push((now, now));
            match at {
                Side::Host => h1.ns.ip(&format!("link set eth{used} {state}")),
                Side::Router => topology.wire.namespaces()[used].ip(&format!("link set h1 {state}")),
            }
            .unwrap();
            if (at, state) == (Side::Router, "up") {
                // What a routing daemon would do: the router lost its address' route with its link.
                restore_router(&topology, used);
            }
            flow.goes_on();
            let (down, up) = (state == "down", 4);
            let share = |side| {
                if !down {
                    up
                } else if side == used {
                    0
                } else {
                    8
                }
            };
            await_shares(h1, share(0), share(1));
            if down {
                assert_ne!(uplink_of(h1), used, "{what}");
                if at == Side::Host {
                    says(h1, &[&format!("uplink eth{used} is down"), &format!("ip link set eth{used} up")]);
                }
            }
        }
        is_well(h1);
        eprintln!("{what} of eth{used}:");
        flow.lost_only_within(&gone);
    }
}

/// Over IPv6 the kernel forgets a link's routes when it goes down, and whoever made them makes them again.
#[test]
fn over_ipv6_too_a_way_that_goes_takes_along_only_what_was_on_it() {
    let topology = Topology::builder()
        .wire(WireKind::TwoPaths { second: 1500 })
        .versions(Versions::V6, true)
        .store(StoreKind::Peers)
        .up()
        .unwrap();
    let h1 = topology.h(1);
    await_shares(h1, 4, 4);
    let flow = Flow::start(&topology);
    let used = uplink_of(h1);
    let down = flow.now();
    h1.ns.ip(&format!("link set eth{used} down")).unwrap();
    flow.goes_on();
    await_shares(h1, if used == 0 { 0 } else { 8 }, if used == 0 { 8 } else { 0 });
    assert_ne!(uplink_of(h1), used);
    let up = flow.now();
    h1.ns.ip(&format!("link set eth{used} up")).unwrap();
    let hop = |side: u8| format!("nexthop via fd00:198:{}::16 dev eth{side}", side + 1);
    h1.ns.ip(&format!("-6 route replace default src {} {} {}", h1.ip_v6, hop(0), hop(1))).unwrap();
    await_shares(h1, 4, 4);
    flow.goes_on();
    is_well(h1);
    flow.lost_only_within(&[(down, down), (up, up)]);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Host,
    Router,
}

/// The route to the first host that went with the router's link.
fn restore_router(topology: &Topology, side: usize) {
    let (host, router) = (topology.h(1), &topology.wire.namespaces()[side]);
    let own = format!("198.18.{}.{}", side + 1, (host.ip.octets()[3] & !1) + 1);
    router.ip(&format!("route replace {}/32 via {own} metric 10", host.ip)).unwrap();
}

/// Both ways are there all the time: nothing is lost, whatever the route prefers.
#[test]
fn weights_and_other_routes_are_followed_and_nothing_is_lost() {
    let topology = hosts(1500);
    let h1 = topology.h(1);
    let [one, two] = gateways(h1);
    let flow = Flow::start(&topology);
    let weighted = format!("nexthop via {one} dev eth0 weight 3 nexthop via {two} dev eth1 weight 1");
    let both = format!("nexthop via {one} dev eth0 nexthop via {two} dev eth1");
    for (hops, eth0, eth1) in [
        (weighted, 6, 2),
        (format!("via {two} dev eth1"), 0, 8),
        (both.clone(), 4, 4),
        (format!("via {one} dev eth0"), 8, 0),
        (both, 4, 4),
    ] {
        default_route(h1, &hops);
        await_shares(h1, eth0, eth1);
        flow.goes_on();
    }
    is_well(h1);
    flow.clean();
}

#[test]
fn a_start_moves_no_flow() {
    let mut topology = hosts(1500);
    let [one, two] = gateways(topology.h(1));
    // A share that depends on what was before: three ways in eight slots.
    let three = format!(
        "nexthop via {one} dev eth0 nexthop via {two} dev eth1 nexthop via 198.18.2.99 dev eth1 onlink"
    );
    topology.wire.namespaces()[1].ip("addr add 198.18.2.99/32 dev h1").unwrap();
    default_route(topology.h(1), &three);
    eventually("three ways", SOON, || hops(topology.h(1)).len() == 3).unwrap();
    default_route(topology.h(1), &format!("nexthop via {one} dev eth0 nexthop via {two} dev eth1"));
    eventually("two ways", SOON, || hops(topology.h(1)).len() == 2).unwrap();
    let flow = Flow::start(&topology);
    let before = slots(topology.h(1));
    for _ in 0..2 {
        topology.h_mut(1).overlayd_mut().restart().unwrap();
        assert_eq!(slots(topology.h(1)), before);
    }
    flow.clean();
}

fn slots(host: &Host) -> Value {
    let maps = Maps::open(&Pins::new(&host.overlayd().config.pin_dir)).unwrap();
    let (_, route) = maps.routes().unwrap()[0];
    let tunnels = maps.tunnels().unwrap();
    let (_, tunnel) = tunnels.iter().find(|(id, _)| *id == route.tunnel).unwrap();
    tunnel.hops.map(|hop| format!("{} {:?}", hop.uplink, hop.next_hop)).to_vec().into()
}

fn hops(host: &Host) -> Vec<Value> {
    let peers = host.overlayd().ctl(&["peers", "-o", "json"]).unwrap();
    peers[0]["hops"].as_array().unwrap().clone()
}

#[test]
fn the_mtu_is_that_of_the_ways_in_use() {
    let topology = hosts(1400);
    let (h1, h2) = (topology.h(1), topology.h(2));
    let overlay = || h1.overlayd().ctl(&["status", "-o", "json"]).unwrap()["mtu"].clone();
    let to_peer = || h1.overlayd().ctl(&["peers", "-o", "json"]).unwrap()[0]["mtu"].clone();
    let carries = |bytes: u32| {
        let size = (bytes - 28).to_string();
        // What the gateway told of the time before.
        h1.c(1).ns.ip("route flush cache").unwrap();
        ping_with(&h1.c(1).ns, h2.c(1).ip, 1, &["-M", "do", "-s", &size, "-W", "1"]).unwrap().clean()
    };
    assert_eq!((overlay(), to_peer()), (1350.into(), 1350.into()));
    assert!(carries(1350) && !carries(1351));
    // Neither way back may be the narrow one either.
    for host in [h1, h2] {
        let [one, _] = gateways(host);
        default_route(host, &format!("via {one} dev eth0"));
        await_shares(host, 8, 0);
    }
    assert_eq!((overlay(), to_peer()), (1350.into(), 1450.into()), "the wide way alone leads there");
    eventually("what the wide way carries", SOON, || carries(1450)).unwrap();
    assert!(!carries(1451));
    h1.ns.ip("link set eth1 down").unwrap();
    eventually("the narrow one does not count", SOON, || overlay() == 1450).unwrap();
}

/// The way of a flow, its interface and all.
#[test]
fn an_uplink_that_is_deleted_and_made_again_is_followed() {
    let topology = hosts(1500);
    let h1 = topology.h(1);
    let flow = Flow::start(&topology);
    let used = uplink_of(h1);
    let from = flow.now();
    h1.ns.ip(&format!("link del eth{used}")).unwrap();
    says(h1, &[&format!("uplink eth{used} is gone")]);
    flow.goes_on();
    await_shares(h1, if used == 0 { 0 } else { 8 }, if used == 0 { 8 } else { 0 });
    pause(1);
    let to = flow.now();
    again(&topology, used);
    flow.goes_on();
    await_shares(h1, 4, 4);
    is_well(h1);
    flow.lost_only_within(&[(from, from), (to, to)]);
}

/// The link that was deleted, and the routes that went along on both of its ends.
fn again(topology: &Topology, side: usize) {
    let (h1, router) = (topology.h(1), &topology.wire.namespaces()[side]);
    let (there, here) = (h1.ns.path().display(), router.path().display());
    let [one, two] = gateways(h1);
    let n = h1.ip.octets()[3] & !1;
    router
        .ip(&format!(
            "link add name h1 mtu 1500 netns {here} type veth peer name eth{side} mtu 1500 netns {there}"
        ))
        .unwrap();
    router
        .ip_batch(&["link set h1 up".into(), format!("addr add 198.18.{}.{n}/31 dev h1", side + 1)])
        .unwrap();
    h1.ns
        .ip_batch(&[
            format!("addr add 198.18.{}.{}/31 dev eth{side}", side + 1, n + 1),
            format!("link set eth{side} up"),
        ])
        .unwrap();
    default_route(h1, &format!("nexthop via {one} dev eth0 nexthop via {two} dev eth1"));
    restore_router(topology, side);
}

/// Names that no link has yet are no reason not to start where another uplink is there.
#[test]
fn a_start_without_one_of_the_uplinks_says_so_and_uses_the_other() {
    let mut topology = Topology::builder()
        .wire(WireKind::TwoPaths { second: 1500 })
        .store(StoreKind::Peers)
        .without_overlayd()
        .up()
        .unwrap();
    // Down, so that its router does not send there what nobody would take.
    topology.h(1).ns.ip_batch(&["link set eth1 down".into(), "link set eth1 name later".into()]).unwrap();
    for index in 0..2 {
        topology.start_overlayd(index).unwrap();
    }
    topology.await_routes().unwrap();
    let h1 = topology.h(1);
    says(h1, &["uplink eth1 is gone"]);
    await_shares(h1, 8, 0);
    let flow = Flow::start(&topology);
    h1.ns.ip("link set later name eth1").unwrap();
    says(h1, &["uplink eth1 is down"]);
    h1.ns.ip("link set eth1 up").unwrap();
    let [one, two] = gateways(h1);
    default_route(h1, &format!("nexthop via {one} dev eth0 nexthop via {two} dev eth1"));
    await_shares(h1, 4, 4);
    is_well(h1);
    flow.clean();
}
