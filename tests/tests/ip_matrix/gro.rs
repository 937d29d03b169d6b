//! GRO of IPv6 in IPv6: packets of the wire's size reach the container merged, as those of IPv4 in IPv4 do.

use std::fs;

use harness::{
    Netns, Versions, counters, eventually,
    traffic::{iperf, ping},
    wire::WireKind,
};

use crate::bed::{self, SOON, no_drops};

/// Packets on the wire for each that the container receives, at least.
const MERGED: u64 = 10;

#[test]
fn before_tc() {
    one_flow_is_merged("tc");
}

#[test]
fn behind_xdp() {
    one_flow_is_merged("xdp");
}

fn one_flow_is_merged(decap: &str) {
    // A veth merges what its peer sends only where that peer's TSO is off: a bridge between would hide it.
    let builder = bed::builder(Versions::V6).wire(WireKind::Veth);
    let topology = builder.overlayd_args(&[&format!("--decap={decap}")]).up().unwrap();
    let (h1, h2) = (topology.h(1), topology.h(2));
    bed::settle(&topology);
    assert!(ping(&h1.c(1).ns, h2.c(1).ip_v6.unwrap(), 2).unwrap().clean());
    eventually("packets are decapsulated where they shall be", SOON, || {
        h2.overlayd().ctl(&["status", "-o", "json"]).unwrap()["decap"] == decap
    })
    .unwrap();
    for host in [h1, h2] {
        // How a veth pair is made to carry what a physical wire would.
        for setting in [["tso", "off"], ["gso", "off"], ["tx-udp_tnl-segmentation", "off"], ["gro", "on"]] {
            host.ns.exec(&["ethtool", "-K", "eth0", setting[0], setting[1]]).unwrap();
        }
    }
    let (wire, (before, _)) = (counters::packets(&h2.ns, "eth0").unwrap().rx, received(&h2.c(1).ns));
    let tcp = iperf::tcp(2).run(&h1.c(1).ns, &h2.c(1).ns, h2.c(1).ip_v6.unwrap()).unwrap();
    let wire = counters::packets(&h2.ns, "eth0").unwrap().rx - wire;
    let (after, errors) = received(&h2.c(1).ns);
    let merged = after - before;
    let bytes = tcp.json["end"]["sum_received"]["bytes"].as_u64().unwrap();
    assert!(
        wire > 1000 && wire * 1600 > bytes,
        "{wire} packets on the wire for {bytes} bytes: not wire-sized"
    );
    println!("{decap}: {wire} packets on the wire, {merged} in the container");
    assert!(merged * MERGED < wire, "{wire} packets on the wire, {merged} in the container");
    assert_eq!(errors, 0);
    no_drops(&topology);
}

/// IPv6 packets that a namespace received, and the TCP segments with errors.
fn received(ns: &Netns) -> (u64, u64) {
    let read = |name: &str| {
        let path = format!("/proc/thread-self/net/{name}");
        ns.run(move || fs::read_to_string(path).unwrap()).unwrap()
    };
    let (v6, both) = (read("snmp6"), read("snmp"));
    let line = v6.lines().find(|line| line.starts_with("Ip6InReceives")).unwrap();
    let packets = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    // TCP's counters are those of both versions.
    let mut lines = both.lines().filter(|line| line.starts_with("Tcp:")).map(|line| line.split(' '));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let errors = names.zip(values).filter(|(name, _)| matches!(*name, "InErrs" | "InCsumErrors"));
    (packets, errors.map(|(_, value)| value.parse::<u64>().unwrap()).sum())
}
