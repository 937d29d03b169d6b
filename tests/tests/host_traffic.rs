//! The hosts themselves: to remote containers, to each other's docker0, and everybody to the outside.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails, in its helpers too")]

use std::{net::Ipv4Addr, time::Duration};

use harness::{
    Netns, Topology,
    host::{BRIDGE, Host, UPLINK},
    traffic::{Endpoint, Probe, Sniffer, iperf, ping, ping_from, transfer},
    two_hosts, wire,
};

/// Strict (1, RFC 3704) and loose (2): each takes effect as the larger one of `all` and the device's.
fn rp_filter(host: &Host, mode: &str) {
    for device in ["all", BRIDGE, UPLINK] {
        host.ns.sysctl(&format!("ipv4/conf/{device}/rp_filter"), mode).unwrap();
    }
}

/// Ping, TCP and UDP, both ways each.
fn talk(what: &str, client: (&Netns, Ipv4Addr), server: (&Netns, Ipv4Addr)) {
    for (from, to) in [(client, server), (server, client)] {
        let ping = ping_from(from.0, from.1, to.1, 3).unwrap();
        assert!(ping.clean(), "{what}, {} to {}: {}", from.1, to.1, ping.text);
    }
    let tcp = iperf::tcp(1).bidirectional().options(&["-B", &client.1.to_string()]);
    let tcp = tcp.run(client.0, server.0, server.1).unwrap();
    assert!(tcp.flow.bits_per_second > 5e6 && tcp.back.unwrap().bits_per_second > 5e6, "{what}: {tcp:?}");
    let [a, b] = [client, server].map(|(ns, ip)| Endpoint { ns, ip });
    let udp = Probe::start(a, b, 1000, Duration::from_millis(500)).unwrap().join().unwrap();
    assert!(udp.clean(), "{what}: {udp}");
}

fn everybody_talks(mode: &str) -> Topology {
    let topology = two_hosts().unwrap();
    let (h1, h2) = (topology.h(1), topology.h(2));
    rp_filter(h1, mode);
    rp_filter(h2, mode);
    // The route names the source: who asks for none gets docker0's address.
    assert!(ping(&h1.ns, h2.c(1).ip, 2).unwrap().clean());
    talk("host and remote container", (&h1.ns, h1.bridge.ip), (&h2.c(1).ns, h2.c(1).ip));
    talk("container and remote docker0", (&h1.c(1).ns, h1.c(1).ip), (&h2.ns, h2.bridge.ip));
    talk("docker0 and docker0", (&h1.ns, h1.bridge.ip), (&h2.ns, h2.bridge.ip));
    for host in [h1, h2] {
        assert_eq!(host.overlayd().drops().unwrap().len(), 0, "on {}", host.name);
    }
    topology
}

#[test]
fn hosts_talk_with_the_overlay_under_strict_reverse_path_filtering() {
    everybody_talks("1");
}

#[test]
fn hosts_talk_with_the_overlay_under_loose_reverse_path_filtering() {
    everybody_talks("2");
}

/// What comes to docker0's own address comes in aggregates, as the wire brought it, and strict filtering lets it by.
#[test]
fn tcp_to_a_remote_docker0_arrives_in_aggregates() {
    let topology = two_hosts().unwrap();
    let (h1, h2) = (topology.h(1), topology.h(2));
    rp_filter(h2, "1");
    let sniffer = Sniffer::on(&h2.ns, BRIDGE).unwrap();
    let container = Endpoint { ns: &h1.c(1).ns, ip: h1.c(1).ip };
    let bridge = Endpoint { ns: &h2.ns, ip: h2.bridge.ip };
    transfer(container, bridge, 1_000_000).unwrap();
    let frames = sniffer.finish().unwrap();
    let arrived = frames.iter().filter(|f| !f.outgoing && f.bytes.get(30..34) == Some(&bridge.ip.octets()));
    let largest = arrived.map(|f| f.bytes.len()).max();
    assert!(largest > Some(10 * 1500), "the largest packet has {largest:?} bytes");
    transfer(bridge, container, 5_000_000).unwrap();
    let tcp = iperf::tcp(1).run(container.ns, bridge.ns, bridge.ip).unwrap();
    assert!(tcp.flow.bits_per_second > 5e6, "{tcp:?}");
    for host in [h1, h2] {
        assert_eq!(host.overlayd().drops().unwrap().len(), 0, "on {}", host.name);
    }
}

#[test]
fn the_way_to_the_outside_stays_as_it_was() {
    let topology = two_hosts().unwrap();
    let (h1, h2, outside) = (topology.h(1), topology.h(2), topology.wire.ns().unwrap());
    // As Docker has it.
    let subnet = h1.bridge.subnet();
    let masquerade = ["-t", "nat", "-A", "POSTROUTING", "-s", &subnet, "!", "-o", BRIDGE, "-j", "MASQUERADE"];
    h1.ns.cmd("iptables").args(masquerade).check().unwrap();
    for (from, to) in
        [(&h1.ns, wire::ADDRESS), (outside, h1.ip), (&h1.ns, h2.ip), (&h1.c(1).ns, wire::ADDRESS)]
    {
        let ping = ping(from, to, 3).unwrap();
        assert!(ping.clean() && ping.text.contains("bytes from"), "{}: {}", from.name(), ping.text);
    }
    for client in [&h1.ns, &h1.c(1).ns] {
        let tcp = iperf::tcp(1).bidirectional().run(client, outside, wire::ADDRESS).unwrap();
        assert!(tcp.flow.bits_per_second > 5e7 && tcp.back.unwrap().bits_per_second > 5e7, "{tcp:?}");
    }
    assert!(ping(&h1.c(1).ns, h2.c(1).ip, 2).unwrap().clean());
}
