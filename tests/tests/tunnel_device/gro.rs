//! The device as the anchor of GRO: without a tunnel socket on the port the kernel merges nothing.

use std::fs;

use harness::{Netns, Topology, counters, topology::StoreKind, traffic::iperf, wire::WireKind};

/// Packets that the IP layer of a namespace received, and the TCP segments with errors.
fn received(ns: &Netns) -> (u64, u64) {
    let text = ns.run(|| fs::read_to_string("/proc/thread-self/net/snmp").unwrap()).unwrap();
    let value = |protocol: &str, name: &str| {
        let mut lines = text.lines().filter(|line| line.starts_with(protocol));
        let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
        let at = names.split(' ').position(|word| word == name).unwrap();
        values.split(' ').nth(at).unwrap().parse::<u64>().unwrap()
    };
    (value("Ip:", "InReceives"), value("Tcp:", "InErrs") + value("Tcp:", "InCsumErrors"))
}

#[test]
fn packets_of_the_wires_size_reach_the_container_merged() {
    // A veth merges what its peer sends only where that peer's TSO is off: a bridge between would hide it.
    let topology = Topology::builder().wire(WireKind::Veth).store(StoreKind::Peers).up().unwrap();
    let (h1, h2) = (topology.h(1), topology.h(2));
    for host in [h1, h2] {
        // How a veth pair is made to carry what a physical wire would.
        for setting in [["tso", "off"], ["gso", "off"], ["tx-udp_tnl-segmentation", "off"], ["gro", "on"]] {
            host.ns.exec(&["ethtool", "-K", "eth0", setting[0], setting[1]]).unwrap();
        }
    }
    let (wire, (before, _)) = (counters::packets(&h2.ns, "eth0").unwrap().rx, received(&h2.c(1).ns));
    let tcp = iperf::tcp(2).run(&h1.c(1).ns, &h2.c(1).ns, h2.c(1).ip).unwrap();
    let wire = counters::packets(&h2.ns, "eth0").unwrap().rx - wire;
    let (after, errors) = received(&h2.c(1).ns);
    let merged = after - before;
    let bytes = tcp.json["end"]["sum_received"]["bytes"].as_u64().unwrap();
    assert!(
        wire > 1000 && wire * 1600 > bytes,
        "{wire} packets on the wire for {bytes} bytes: not wire-sized"
    );
    assert!(merged * 2 < wire, "{wire} packets on the wire, {merged} in the container");
    assert_eq!(errors, 0);
    let drops = h2.overlayd().drops().unwrap();
    assert!(drops.is_empty(), "{drops:?}");
}
