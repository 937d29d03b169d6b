//! A real router on the way that carries less than the uplinks, containers left at 1500.

use std::{
    net::UdpSocket,
    os::fd::AsRawFd,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use harness::{
    Topology, eventually,
    host::Host,
    traffic::{iperf, ping_with},
};
use nix::{
    errno::Errno,
    libc,
    sys::socket::{getsockopt, sockopt},
};

use crate::bed::{NARROW, SOON, clean, maps, mtu_to, mtus, path_mtus, probe, routed, said};

/// Inside the tunnel over the narrow link.
const INNER: u64 = NARROW as u64 - 50;

/// A UDP socket that never lets anything be fragmented, connected to the discard port: nobody need answer.
fn df_socket(topology: &Topology) -> UdpSocket {
    let to = topology.h(2).c(1).ip;
    let socket = topology.h(1).c(1).ns.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
    let always: libc::c_int = libc::IP_PMTUDISC_DO;
    let size = size_of_val(&always) as libc::socklen_t;
    // SAFETY: the descriptor is the socket's, and the option an int that outlives the call.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            (&raw const always).cast(),
            size,
        )
    };
    Errno::result(set).unwrap();
    socket.connect((to, 9)).unwrap();
    socket
}

/// Sends datagrams that fill 1450 bytes, the most that fits the uplink, until the network has an opinion.
fn provoke(socket: &UdpSocket, enough: impl Fn() -> bool) {
    eventually("the router has spoken", SOON, || {
        // A datagram that was lost comes back as an error of a later call.
        let _ = socket.send(&[0; 1450 - 28]);
        enough()
    })
    .unwrap();
}

#[test]
fn tcp_flows_both_ways_and_nobody_else_is_concerned() {
    let topology = routed().up().unwrap();
    let (h1, h2, h3) = (topology.h(1), topology.h(2), topology.h(3));
    let probes = [probe(h1.c(1), h2.c(1)), probe(h2.c(1), h3.c(1))];
    assert_eq!((mtus(h1, h2), mtus(h2, h1)), ((1450, 1450), (1450, 1450)));
    for (from, to) in [(h1, h2), (h2, h1)] {
        for iperf in [iperf::tcp(1), iperf::tcp(1).reverse(), iperf::tcp(1).bidirectional()] {
            let tcp = iperf.run(&from.c(1).ns, &to.c(1).ns, to.c(1).ip).unwrap();
            // A stalled connection moves a window of a few kilobytes and no more.
            let flows = [Some(tcp.flow), tcp.back].into_iter().flatten();
            assert!(flows.into_iter().all(|flow| flow.bits_per_second > 1e6), "{tcp:?}");
        }
    }
    assert_eq!(mtus(h1, h2), (INNER, INNER));
    // The first has told the second's containers by the MSS of its SYNs: there was nothing more to learn.
    assert_eq!(mtus(h2, h1), (1450, 1450));
    for (host, peer) in [(h1, h3), (h2, h3), (h3, h1), (h3, h2)] {
        assert_eq!(mtus(host, peer), (1450, 1450), "{} to {}", host.name, peer.name);
    }
    let largest = ping_with(&h2.c(1).ns, h3.c(1).ip, 2, &["-M", "do", "-s", "1422"]).unwrap();
    assert!(largest.clean(), "{}", largest.text);
    assert_eq!(said(h1.overlayd()).len(), 1, "{:?}", said(h1.overlayd()));
    for host in &topology.hosts {
        assert_eq!(host.overlayd().drops().unwrap().len(), 0, "on {}", host.name);
    }
    probes.into_iter().for_each(clean);
}

#[test]
fn senders_are_told_by_their_own_gateway() {
    let topology = routed().containers(2).up().unwrap();
    let (h1, h2) = (topology.h(1), topology.h(2));
    let probe = probe(h1.c(1), h2.c(1));
    let socket = df_socket(&topology);
    // What is too large even for the uplink never leaves the host.
    provoke(&socket, || mtus(h1, h2) == (INNER, INNER));
    assert_eq!(path_mtus(h1.overlayd()), [(h2.ip, NARROW)]);
    let told = || getsockopt(&socket, sockopt::IpMtu).unwrap();
    provoke(&socket, || told() == INNER as i32);
    let refused = || socket.send(&[0; 1450 - 28]).err().and_then(|error| error.raw_os_error());
    eventually("sending is refused", SOON, || refused() == Some(Errno::EMSGSIZE as i32)).unwrap();
    // What was refused before may come back as this call's error, once.
    let fits = || socket.send(&[0; INNER as usize - 28]).is_ok();
    assert!(fits() || fits());

    // Another container has not been told yet.
    let from = &h1.c(2).ns;
    let ping = |size: u64, option: &str| {
        let size = (size - 28).to_string();
        ping_with(from, h2.c(2).ip, 3, &["-M", option, "-s", &size]).unwrap()
    };
    let too_large = ping(INNER + 1, "do");
    let says = format!("From {} icmp_seq=1 Frag needed and DF set (mtu = {INNER})", h1.bridge.ip);
    assert!(too_large.received == 0 && too_large.text.contains(&says), "{}", too_large.text);
    assert!(ping(INNER, "do").clean());
    // The way back has to be learned as well, at the price of one reply.
    assert_eq!(mtus(h2, h1), (1450, 1450));
    ping(1450, "dont");
    eventually("the way back is learned", SOON, || mtus(h2, h1) == (INNER, INNER)).unwrap();
    for size in [1450, 1500, 4000, 20_000] {
        let whole = ping(size, "dont");
        assert!(whole.clean(), "{size}: {}", whole.text);
    }
    clean(probe);
}

#[test]
fn what_the_router_said_to_a_dead_daemon_is_in_force_at_the_next_start() {
    let mut topology = routed().up().unwrap();
    let probe = probe(topology.h(1).c(1), topology.h(2).c(1));
    topology.h_mut(1).overlayd_mut().kill9().unwrap();
    let socket = df_socket(&topology);
    let peer = topology.h(2).ip;
    provoke(&socket, || path_mtus(topology.h(1).overlayd()) == [(peer, NARROW)]);
    assert_eq!(mtu_to(topology.h(1), peer), 1450, "nobody is there to act on it");
    topology.h_mut(1).overlayd_mut().start_again().unwrap();
    assert_eq!(mtus(topology.h(1), topology.h(2)), (INNER, INNER));
    // Told while it comes up: the daemon may be anywhere between looking and listening.
    for _ in 0..3 {
        topology.h_mut(1).overlayd_mut().kill9().unwrap();
        maps(topology.h(1).overlayd()).delete_path_mtu(peer.into()).unwrap();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let Host { overlayd, containers, .. } = &mut topology.hosts[0];
            let (ns, socket, over) = (&containers[0].ns, &socket, &over);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    // The sender forgets what it was told, and tries again.
                    ns.ip("route flush cache").unwrap();
                    let _ = socket.send(&[0; 1450 - 28]);
                    thread::sleep(Duration::from_millis(10));
                }
            });
            let started = overlayd.as_mut().unwrap().start_again();
            // It may have come up before anything was told: then it is told now.
            thread::sleep(Duration::from_millis(300));
            over.store(true, Ordering::Relaxed);
            started.unwrap();
        });
        let learned = || mtus(topology.h(1), topology.h(2)) == (INNER, INNER);
        eventually("it is in force", SOON, learned).unwrap();
    }
    let (from, to) = (&topology.h(1).c(1).ns, topology.h(2).c(1).ip);
    let ping = ping_with(from, to, 3, &["-M", "dont", "-s", "4000"]).unwrap();
    // The first reply is how the second host learns.
    assert!(ping.lost() <= 1, "{}", ping.text);
    let ping = ping_with(from, to, 3, &["-M", "dont", "-s", "4000"]).unwrap();
    assert!(ping.clean(), "{}", ping.text);
    clean(probe);
}
