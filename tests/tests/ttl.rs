//! The TTL: the overlay is one hop.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails, in its helpers too")]

use harness::{
    Topology,
    traffic::{Ping, ping_with},
    two_hosts,
};

/// From the first host's container to the second's.
fn ping(topology: &Topology, options: &[&str]) -> Ping {
    ping_with(&topology.h(1).c(1).ns, topology.h(2).c(1).ip, 2, options).unwrap()
}

#[test]
fn the_overlay_is_one_hop() {
    let topology = two_hosts().unwrap();
    let gateway = topology.h(1).bridge.ip;
    let expired = ping(&topology, &["-t", "1"]);
    assert_eq!(expired.received, 0, "{}", expired.text);
    assert!(
        expired.text.contains(&format!("From {gateway} icmp_seq=1 Time to live exceeded")),
        "{}",
        expired.text
    );
    // Requests and replies both start with 64; a request that starts with 2 still arrives.
    let ping = ping(&topology, &["-t", "2"]);
    assert!(ping.clean() && ping.text.contains("ttl=63"), "{}", ping.text);
}
