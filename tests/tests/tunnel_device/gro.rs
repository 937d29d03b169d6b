//! GRO of packets as a wire carries them: before tc the tunnel device is its anchor, without whose socket the kernel
//! merges nothing; behind XDP the inner packets are merged, whoever has a socket.

use std::{fs, time::Duration};

use harness::{
    Netns, Topology, counters, eventually,
    topology::StoreKind,
    traffic::{iperf, ping},
    wire::WireKind,
};

/// Packets on the wire for each that the container receives, at least.
const MERGED: u64 = 10;

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
    one_flow_is_merged("tc");
}

#[test]
fn packets_of_the_wires_size_reach_the_container_merged_behind_xdp() {
    one_flow_is_merged("xdp");
}

fn one_flow_is_merged(decap: &str) {
    // A veth merges what its peer sends only where that peer's TSO is off: a bridge between would hide it.
    let builder = Topology::builder().wire(WireKind::Veth).store(StoreKind::Peers);
    let topology = builder.overlayd_args(&[&format!("--decap={decap}")]).up().unwrap();
    let (h1, h2) = (topology.h(1), topology.h(2));
    assert!(ping(&h1.c(1).ns, h2.c(1).ip, 2).unwrap().clean());
    eventually("packets are decapsulated where they shall be", Duration::from_secs(10), || {
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
    let tcp = iperf::tcp(2).run(&h1.c(1).ns, &h2.c(1).ns, h2.c(1).ip).unwrap();
    let wire = counters::packets(&h2.ns, "eth0").unwrap().rx - wire;
    let (after, errors) = received(&h2.c(1).ns);
    let merged = after - before;
    let bytes = tcp.json["end"]["sum_received"]["bytes"].as_u64().unwrap();
    assert!(
        wire > 1000 && wire * 1600 > bytes,
        "{wire} packets on the wire for {bytes} bytes: not wire-sized"
    );
    assert!(merged * MERGED < wire, "{wire} packets on the wire, {merged} in the container");
    println!("{decap}: {wire} packets on the wire, {merged} in the container");
    assert_eq!(errors, 0);
    let drops = h2.overlayd().drops().unwrap();
    assert!(drops.is_empty(), "{drops:?}");
}
