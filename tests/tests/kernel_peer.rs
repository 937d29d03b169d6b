//! A peer we did not write: a host with the kernel's vxlan device, set up as flanneld does it.

#![expect(clippy::unwrap_used, reason = "set-up that fails is a test that fails")]

use std::{fs, time::Duration};

use harness::{
    Topology,
    capture::{Capture, Packet},
    eventually,
    kernel_vtep::{KernelVtep, Remote},
    topology::{Builder, ETCD_PREFIX, StoreKind},
    traffic::{iperf, ping, ping_from},
};

const SOON: Duration = Duration::from_secs(5);

/// Host 1 is to have overlayd, host 2 the kernel's device; the containers' MTU is what flannel tells Docker.
fn bed() -> Builder {
    Topology::builder().without_overlayd().container_mtu(1450)
}

/// Host 2's side, given the MAC address of host 1's VTEP.
fn program_host_2(topology: &Topology, vtep: &KernelVtep, mac: &str) {
    let (h1, h2) = (topology.h(1), topology.h(2));
    let remote = Remote { subnet: &h1.bridge.subnet(), ip: h1.ip.into(), mac };
    vtep.add_peer(h2, &remote).unwrap();
}

fn vtep_mac(topology: &Topology) -> String {
    let status = topology.h(1).overlayd().ctl(&["status", "-o", "json"]).unwrap();
    status["vtep_mac"].as_str().unwrap().to_owned()
}

fn knows_host_2(topology: &Topology) {
    let subnet = topology.h(2).bridge.subnet();
    let known = || topology.h(1).overlayd().routes().is_ok_and(|routes| routes.contains(&subnet));
    eventually("host 2 is a peer", SOON, known).unwrap();
}

/// Every pair of ends that must reach each other, both ways.
fn everyone_pings(topology: &Topology) {
    let (h1, h2) = (topology.h(1), topology.h(2));
    let pings = [
        ping(&h1.c(1).ns, h2.c(1).ip, 3).unwrap(),
        ping(&h2.c(1).ns, h1.c(1).ip, 3).unwrap(),
        ping(&h1.ns, h2.c(1).ip, 3).unwrap(),
        // From flannel's own address, <subnet>.0, which no container has.
        ping(&h2.ns, h1.c(1).ip, 3).unwrap(),
        ping(&h1.c(1).ns, h2.bridge.ip, 3).unwrap(),
        ping(&h2.c(1).ns, h1.bridge.ip, 3).unwrap(),
        ping_from(&h1.ns, h1.bridge.ip, h2.bridge.ip, 3).unwrap(),
    ];
    for ping in pings {
        assert!(ping.clean(), "{}", ping.text);
    }
}

/// TCP and UDP, both ways at once, slow enough for every packet to be captured. What a busy machine's iperf3
/// misses for want of a turn is not the overlay's loss: the pings and the capture hold that to zero.
fn everyone_talks(topology: &Topology) {
    let (c1, c2) = (topology.h(1).c(1), topology.h(2).c(1));
    let tcp = iperf::tcp(1).bidirectional().options(&["-b", "20M"]).run(&c1.ns, &c2.ns, c2.ip).unwrap();
    let udp = iperf::udp(1, 10_000_000, 1400).bidirectional().run(&c1.ns, &c2.ns, c2.ip).unwrap();
    for flow in [tcp.flow, tcp.back.unwrap(), udp.flow, udp.back.unwrap()] {
        assert!(flow.bits_per_second > 1e6 && flow.lost_percent < 20.0, "{flow:?}");
    }
}

/// Pings and talks under a capture on host 1's wire, and checks every packet of it.
fn run_and_check(topology: &Topology, vni: u32, port: u16, complete: bool) {
    let wire = topology.wire.ns().unwrap();
    let capture = Capture::start(wire, "h1", port, &topology.scope.dir()).unwrap();
    everyone_pings(topology);
    everyone_talks(topology);
    let packets = capture.finish().unwrap();
    let faults: Vec<String> = packets.iter().filter_map(|p| p.fault(vni, port, complete)).take(5).collect();
    assert!(faults.is_empty(), "of {} packets:\n{}", packets.len(), faults.join("\n"));
    for host in &topology.hosts {
        for protocol in [1, 6, 17] {
            let is = |p: &&Packet| {
                p.outer_source() == Some(host.ip.into()) && p.inner_protocol() == Some(protocol)
            };
            let seen = packets.iter().filter(is).count();
            assert!(seen >= 20, "{seen} packets of IP protocol {protocol} from {}", host.name);
        }
    }
    // Nobody holds back: aggregates of many segments.
    let (c1, c2) = (topology.h(1).c(1), topology.h(2).c(1));
    let tcp = iperf::tcp(1).bidirectional().run(&c1.ns, &c2.ns, c2.ip).unwrap();
    assert!(tcp.flow.bits_per_second > 5e7 && tcp.back.unwrap().bits_per_second > 5e7, "{tcp:?}");
    let drops = topology.h(1).overlayd().ctl(&["status", "-o", "json"]).unwrap();
    assert_eq!(drops["drops"], 0, "{drops}");
}

#[test]
fn a_flannel_host_in_etcd() {
    let mut topology = bed().up().unwrap();
    // Without offload every checksum is complete on the wire.
    for host in &topology.hosts {
        host.c(1).ns.exec(&["ethtool", "-K", "eth0", "tx", "off"]).unwrap();
        host.ns.exec(&["ethtool", "-K", "eth0", "tx", "off"]).unwrap();
    }
    let prefix = format!("{ETCD_PREFIX}/subnets");
    topology
        .etcd()
        .put(&format!("{ETCD_PREFIX}/config"), r#"{"Network":"172.16.0.0/12","Backend":{"Type":"vxlan"}}"#)
        .unwrap();
    let vtep = KernelVtep::create(topology.h(2), 1, 8472).unwrap();
    let lease = format!(
        r#"{{"PublicIP":"{}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"{}"}}}}"#,
        topology.h(2).ip,
        vtep.mac
    );
    topology.etcd().put(&format!("{prefix}/172.27.0.0-16"), &lease).unwrap();
    topology.start_overlayd(0).unwrap();
    // What flanneld would read of us.
    let ours = topology.etcd().get(&format!("{prefix}/172.17.0.0-16")).unwrap().unwrap();
    let ours: serde_json::Value = serde_json::from_str(&ours).unwrap();
    assert_eq!((&ours["PublicIP"], &ours["BackendType"]), (&"172.16.199.17".into(), &"vxlan".into()));
    program_host_2(&topology, &vtep, ours["BackendData"]["VtepMAC"].as_str().unwrap());
    knows_host_2(&topology);
    run_and_check(&topology, 1, 8472, true);
}

#[test]
fn another_vni_and_port_by_flag() {
    let (vni, port) = (0x12_3456, 5555);
    let mut topology = bed().store(StoreKind::Peers).vni(vni).port(port).up().unwrap();
    let vtep = KernelVtep::create(topology.h(2), vni, port).unwrap();
    topology.start_overlayd(0).unwrap();
    program_host_2(&topology, &vtep, &vtep_mac(&topology));
    let (c1, h2) = (topology.h(1).c(1), topology.h(2));
    // Its VTEP's MAC address is not in the file yet: broadcast reaches the host, but no kernel forwards it.
    let reached = ping(&c1.ns, h2.bridge.ip, 2).unwrap();
    assert!(reached.clean(), "{}", reached.text);
    assert_eq!(ping(&c1.ns, h2.c(1).ip, 1).unwrap().received, 0);
    let (subnet, ip, mac) = (h2.bridge.subnet(), h2.ip, &vtep.mac);
    let text = format!("[[peer]]\nsubnet = \"{subnet}\"\nhost = \"{ip}\"\nvtep_mac = \"{mac}\"\n");
    fs::write(topology.peers_file(0), text).unwrap();
    let arrives = || ping(&c1.ns, h2.c(1).ip, 1).is_ok_and(|ping| ping.clean());
    eventually("a container of host 2 answers", SOON, arrives).unwrap();
    run_and_check(&topology, vni, port, false);
}

#[test]
fn another_vni_and_port_for_one_peer() {
    let (vni, port) = (4242, 8472);
    let mut topology = bed().store(StoreKind::Peers).up().unwrap();
    let vtep = KernelVtep::create(topology.h(2), vni, port).unwrap();
    let (subnet, ip, mac) = (topology.h(2).bridge.subnet(), topology.h(2).ip, &vtep.mac);
    let text = format!(
        "[[peer]]\nsubnet = \"{subnet}\"\nhost = \"{ip}\"\nvni = {vni}\nport = {port}\nvtep_mac = \"{mac}\"\n"
    );
    fs::write(topology.peers_file(0), text).unwrap();
    topology.start_overlayd(0).unwrap();
    program_host_2(&topology, &vtep, &vtep_mac(&topology));
    let status = topology.h(1).overlayd().ctl(&["status", "-o", "json"]).unwrap();
    assert_eq!(
        (&status["vni"], &status["port"]),
        (&1.into(), &4789.into()),
        "overlayd's own are the defaults"
    );
    run_and_check(&topology, vni, port, false);
}
