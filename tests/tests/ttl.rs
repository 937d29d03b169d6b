//! Packet sizes and TTL: containers keep an MTU of 1500 over an uplink of 1500, and nothing stalls.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails, in its helpers too")]

use harness::{
    Topology,
    traffic::{Ping, iperf, ping_with},
    two_hosts,
};

/// From the first host's container to the second's.
fn ping(topology: &Topology, count: u32, options: &[&str]) -> Ping {
    ping_with(&topology.h(1).c(1).ns, topology.h(2).c(1).ip, count, options).unwrap()
}

#[test]
fn tcp_moves_both_ways() {
    let topology = two_hosts().unwrap();
    let (c1, c2) = (topology.h(1).c(1), topology.h(2).c(1));
    let tcp = iperf::tcp(1).bidirectional().run(&c1.ns, &c2.ns, c2.ip).unwrap();
    // A stalled connection moves a window of a few kilobytes and no more.
    assert!(tcp.flow.bits_per_second > 5e7 && tcp.back.unwrap().bits_per_second > 5e7, "{tcp:?}");
}

#[test]
fn a_packet_too_large_with_df_is_answered_by_the_gateway() {
    let topology = two_hosts().unwrap();
    let gateway = topology.h(1).bridge.ip;
    let refused = ping(&topology, 2, &["-M", "do", "-s", "1472"]);
    assert_eq!(refused.received, 0, "{}", refused.text);
    assert!(refused.text.contains(&format!("From {gateway} icmp_seq=1 Frag needed")), "{}", refused.text);
    assert!(refused.text.contains("mtu = 1450"), "{}", refused.text);
    let largest = ping(&topology, 2, &["-M", "do", "-s", "1422"]);
    assert!(largest.clean(), "{}", largest.text);
}

#[test]
fn large_packets_without_df_arrive() {
    let topology = two_hosts().unwrap();
    for size in ["1423", "1472", "3000", "20000"] {
        let ping = ping(&topology, 3, &["-M", "dont", "-s", size]);
        assert!(ping.clean() && ping.text.contains("ttl=63"), "{size}: {}", ping.text);
    }
    let (c1, c2) = (topology.h(1).c(1), topology.h(2).c(1));
    let udp = iperf::udp(1, 1_000_000, 4000).bidirectional().run(&c1.ns, &c2.ns, c2.ip).unwrap();
    for flow in [udp.flow, udp.back.unwrap()] {
        assert!(flow.bits_per_second > 1e5 && flow.lost_percent < 20.0, "{flow:?}");
    }
}

#[test]
fn the_overlay_is_one_hop() {
    let topology = two_hosts().unwrap();
    let gateway = topology.h(1).bridge.ip;
    let expired = ping(&topology, 2, &["-t", "1"]);
    assert_eq!(expired.received, 0, "{}", expired.text);
    assert!(
        expired.text.contains(&format!("From {gateway} icmp_seq=1 Time to live exceeded")),
        "{}",
        expired.text
    );
    // Requests and replies both start with 64; a request that starts with 2 still arrives.
    let ping = ping(&topology, 2, &["-t", "2"]);
    assert!(ping.clean() && ping.text.contains("ttl=63"), "{}", ping.text);
}
