//! Peers on the uplink's own link, with new MAC addresses.

use std::{
    net::UdpSocket,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use harness::{Topology, eventually, topology::StoreKind, two_hosts};

use crate::bed::{Flow, is_well};

#[test]
fn a_peer_with_a_new_mac_address_is_followed() {
    let topology = two_hosts().unwrap();
    let h2 = topology.h(2);
    for (announced, mac) in [("0", "02:00:00:00:01:01"), ("1", "02:00:00:00:01:02")] {
        h2.ns.sysctl("ipv4/conf/eth0/arp_notify", announced).unwrap();
        let flow = Flow::start(&topology);
        let at = flow.now();
        h2.ns.ip(&format!("link set eth0 address {mac}")).unwrap();
        flow.goes_on();
        eprintln!("gratuitous ARP: {announced}");
        flow.lost_only_within(&[(at, at)]);
    }
    is_well(topology.h(1));
    is_well(h2);
}

/// The daemons are dead: the kernel's own neighbour discovery is what follows.
#[test]
fn a_new_mac_address_is_followed_with_the_daemons_dead() {
    let mut topology = two_hosts().unwrap();
    for number in [1, 2] {
        topology.h_mut(number).overlayd_mut().kill9().unwrap();
    }
    let flow = Flow::start(&topology);
    let at = flow.now();
    topology.h(2).ns.ip("link set eth0 address 02:00:00:00:01:03").unwrap();
    flow.goes_on();
    flow.lost_only_within(&[(at, at)]);
}

/// Nothing ever comes from the peer, and it does not say that its MAC address is another: only the kernel's own
/// unreachability detection (RFC 4861, section 7.3) can find out, and it has to run for redirected packets too.
/// Its times are shortened here; as they are by default it takes up to 53 s, as for any packet of the host's own.
#[test]
fn a_silent_peer_with_a_new_mac_address_is_found_by_the_kernel() {
    let mut topology = Topology::builder().store(StoreKind::Peers).up().unwrap();
    let patience = if std::env::var_os("OVERLAYD_TEST_FULL").is_some() { 70 } else { 15 };
    if patience == 15 {
        for (key, value) in
            [("base_reachable_time_ms", "1000"), ("delay_first_probe_time", "1"), ("retrans_time_ms", "100")]
        {
            topology.h(1).ns.sysctl(&format!("ipv4/neigh/eth0/{key}"), value).unwrap();
        }
    }
    for number in [1, 2] {
        topology.h_mut(number).overlayd_mut().kill9().unwrap();
    }
    let (h1, h2) = (topology.h(1), topology.h(2));
    let bind = |host: &harness::host::Host| {
        let c1 = host.c(1);
        let socket = c1.ns.run(|| UdpSocket::bind((c1.ip, 7000))).unwrap().unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        socket
    };
    let (from, to, over, there) = (bind(h1), bind(h2), AtomicBool::new(false), h2.c(1).ip);
    let sender = || {
        while !over.load(Ordering::Relaxed) {
            from.send_to(b"one way", (there, 7000)).unwrap();
            thread::sleep(Duration::from_millis(5));
        }
    };
    thread::scope(|scope| {
        scope.spawn(sender);
        let arrives = || to.recv(&mut [0; 16]).is_ok();
        let flows = eventually("it flows", Duration::from_secs(5), arrives);
        h2.ns.ip("link set eth0 address 02:00:00:00:01:04").unwrap();
        while arrives() {}
        let gone = Instant::now();
        let found = eventually("it flows again", Duration::from_secs(patience), arrives);
        eprintln!("one way, without a word: found after {:?}", gone.elapsed());
        over.store(true, Ordering::Relaxed);
        flows.and(found).unwrap();
    });
}
