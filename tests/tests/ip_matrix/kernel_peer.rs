//! A peer we did not write: the kernel's vxlan device over either version of IP, with UDP checksums and without.

use std::{fs, time::Duration};

use harness::{
    Topology, Versions,
    capture::{Capture, Packet, Shape},
    counters, eventually,
    host::Host,
    kernel_vtep::{KernelVtep, Remote},
    topology::{ETCD_PREFIX, StoreKind},
    traffic::{Probe, ping, ping_from, transfer},
};

use crate::bed::{SOON, VERSIONS, Version, end};

const VNI: u32 = 1;

/// What flannel takes.
const PORT: u16 = 8472;

/// Bytes that TCP carries each way, few enough for every packet to be captured.
const BYTES: usize = 1 << 19;

/// Packets that may go through the tunnel device where nothing of a flow does.
const CHATTER: u64 = 20;

/// Host 1 is to have overlayd, host 2 the kernel's device; the containers' MTU is what flannel tells Docker.
fn bed(underlay: Versions, store: StoreKind) -> Topology {
    let mtu = if underlay == Versions::V4 { 1450 } else { 1430 };
    let builder = Topology::builder().without_overlayd().container_mtu(mtu).port(PORT).store(store);
    let topology = builder.versions(underlay, true).up().unwrap();
    // Without offload every checksum is complete on the wire.
    for host in &topology.hosts {
        for ns in [&host.ns, &host.c(1).ns] {
            ns.exec(&["ethtool", "-K", "eth0", "tx", "off"]).unwrap();
        }
    }
    topology
}

/// Host 2's side: both of host 1's subnets by one device, or each by the one of its own version.
fn program_host_2(topology: &Topology, vtep: &KernelVtep, over: Version, subnets: &[Version], mac: &str) {
    let (h1, h2) = (topology.h(1), topology.h(2));
    for version in subnets {
        let remote = Remote { subnet: &version.subnet(h1), ip: over.underlay(h1), mac };
        vtep.add_peer(h2, &remote).unwrap();
    }
}

/// Host 1's side, by a file.
fn write_peers(topology: &Topology, vtep: &KernelVtep, over: Version, extra: &str) {
    let h2 = topology.h(2);
    let row = |version: Version| {
        let (subnet, host, mac) = (version.subnet(h2), over.underlay(h2), &vtep.mac);
        format!("[[peer]]\nsubnet = \"{subnet}\"\nhost = \"{host}\"\nvtep_mac = \"{mac}\"\n{extra}\n")
    };
    fs::write(topology.peers_file(0), VERSIONS.map(row).concat()).unwrap();
}

fn by_file(underlay: Versions, over: Version, zero_checksum: bool) -> Topology {
    let mut topology = bed(underlay, StoreKind::Peers);
    let h2 = topology.h(2);
    let vtep = match over {
        Version::V4 => KernelVtep::create(h2, VNI, PORT),
        Version::V6 => KernelVtep::create_v6(h2, VNI, PORT, zero_checksum),
    };
    let vtep = vtep.unwrap();
    write_peers(&topology, &vtep, over, if zero_checksum { "zero_checksum = true" } else { "" });
    topology.start_overlayd(0).unwrap();
    program_host_2(&topology, &vtep, over, &VERSIONS, &vtep_mac(topology.h(1)));
    knows_host_2(&topology);
    topology
}

fn vtep_mac(host: &Host) -> String {
    let status = host.overlayd().ctl(&["status", "-o", "json"]).unwrap();
    status["vtep_mac"].as_str().unwrap().to_owned()
}

fn knows_host_2(topology: &Topology) {
    let (h1, wanted) = (topology.h(1), VERSIONS.map(|version| version.subnet(topology.h(2))));
    let known = || h1.overlayd().routes().is_ok_and(|routes| wanted.iter().all(|net| routes.contains(net)));
    eventually("host 2 is a peer", SOON, known).unwrap();
}

/// Every pair of ends that must reach each other, both ways.
fn everyone_pings(topology: &Topology, version: Version) {
    let (h1, h2) = (topology.h(1), topology.h(2));
    let (c1, c2, gateway) = (version.ip(h1.c(1)), version.ip(h2.c(1)), |host| version.gateway(host));
    let pings = [
        ping(&h1.c(1).ns, c2, 3).unwrap(),
        ping(&h2.c(1).ns, c1, 3).unwrap(),
        ping(&h1.ns, c2, 3).unwrap(),
        // From flannel's own address, the subnet's first one, which no container has.
        ping(&h2.ns, c1, 3).unwrap(),
        ping(&h1.c(1).ns, gateway(h2), 3).unwrap(),
        ping(&h2.c(1).ns, gateway(h1), 3).unwrap(),
        ping_from(&h1.ns, gateway(h1), gateway(h2), 3).unwrap(),
    ];
    for ping in pings {
        assert!(ping.clean(), "{version:?}: {}", ping.text);
    }
}

/// UDP and TCP, both ways at once, not one packet lost.
fn everyone_talks(topology: &Topology, version: Version) {
    let (a, b) = (end(topology.h(1), 1, version), end(topology.h(2), 1, version));
    let report = Probe::start(a, b, 500, Duration::from_secs(1)).unwrap().join().unwrap();
    assert!(report.clean(), "{version:?}: {report}");
    for (from, to) in [(a, b), (b, a)] {
        transfer(from, to, BYTES).unwrap_or_else(|e| panic!("{version:?} from {}: {e:#}", from.ip));
    }
}

/// Pings and talks under a capture on host 1's wire, and checks every packet of it. `outer` and whether there is an
/// outer checksum, for each inner version.
fn run_and_check(topology: &Topology, outer: [(Version, Option<bool>); 2]) {
    let dir = topology.scope.dir();
    let capture = Capture::start(topology.wire.ns().unwrap(), "h1", PORT, &dir).unwrap();
    for version in VERSIONS {
        everyone_pings(topology, version);
        everyone_talks(topology, version);
    }
    let packets = capture.finish().unwrap();
    let shape = |packet: &Packet| {
        let inner_v6 = packet.inner_is_v6();
        let (outer, outer_checksum) = outer[usize::from(inner_v6)];
        let outer_v6 = outer == Version::V6;
        Shape { outer_v6, inner_v6, vni: VNI, port: PORT, complete: true, outer_checksum }
    };
    let faults: Vec<String> = packets.iter().filter_map(|p| p.fault_in(&shape(p))).take(5).collect();
    assert!(faults.is_empty(), "of {} packets:\n{}", packets.len(), faults.join("\n"));
    for (version, (outer, _)) in VERSIONS.into_iter().zip(outer) {
        let icmp = if version == Version::V4 { 1 } else { 58 };
        for (host, protocol) in topology.hosts.iter().flat_map(|host| [icmp, 6, 17].map(|p| (host, p))) {
            let from = Some(outer.underlay(host));
            let is = |p: &&Packet| {
                p.inner_is_v6() == (version == Version::V6)
                    && p.outer_source() == from
                    && p.inner_protocol() == Some(protocol)
            };
            let seen = packets.iter().filter(is).count();
            assert!(seen >= 20, "{version:?}: {seen} packets of protocol {protocol} from {}", host.name);
        }
    }
    let h1 = topology.h(1);
    assert!(h1.overlayd().drops().unwrap().is_empty(), "{:?}", h1.overlayd().drops());
}

/// Packets that the tunnel device of host 1 has sent: what the programs left it.
fn through_the_device(topology: &Topology) -> u64 {
    counters::packets(&topology.h(1).ns, "ovl0").unwrap().tx
}

#[test]
fn over_ipv4() {
    let topology = by_file(Versions::V4, Version::V4, false);
    run_and_check(&topology, [(Version::V4, None); 2]);
}

/// The kernel's default: it sends checksums, and drops what has none (RFC 8200 section 8.1).
#[test]
fn over_ipv6_with_udp_checksums() {
    let topology = by_file(Versions::V6, Version::V6, false);
    run_and_check(&topology, [(Version::V6, Some(true)); 2]);
    let sent = through_the_device(&topology);
    assert!(sent > 1000, "{sent} packets got their checksum from the tunnel device");
}

#[test]
fn over_ipv6_without_udp_checksums() {
    let topology = by_file(Versions::V6, Version::V6, true);
    run_and_check(&topology, [(Version::V6, Some(false)); 2]);
    let sent = through_the_device(&topology);
    assert!(sent < CHATTER, "{sent} packets went through the tunnel device");
}

/// flannel's dual stack: a device, and a VTEP, for each version.
#[test]
fn a_dual_stack_flannel_host_in_etcd() {
    let mut topology = bed(Versions::Both, StoreKind::Etcd);
    let h2 = topology.h(2);
    let devices =
        [KernelVtep::create(h2, VNI, PORT).unwrap(), KernelVtep::create_v6(h2, VNI, PORT, false).unwrap()];
    let config = r#"{"Network":"172.16.0.0/12","EnableIPv6":true,"IPv6Network":"fd00::/16","Backend":{"Type":"vxlan"}}"#;
    topology.etcd().put(&format!("{ETCD_PREFIX}/config"), config).unwrap();
    let data = devices.each_ref().map(|device| format!(r#"{{"VNI":{VNI},"VtepMAC":"{}"}}"#, device.mac));
    let lease = format!(
        r#"{{"PublicIP":"{}","PublicIPv6":"{}","BackendType":"vxlan","BackendData":{},"BackendV6Data":{}}}"#,
        h2.ip, h2.ip_v6, data[0], data[1]
    );
    let key = |v4: &str, v6: &str| format!("{ETCD_PREFIX}/subnets/{v4}-16&{v6}-64");
    topology.etcd().put(&key("172.27.0.0", "fd00:27::"), &lease).unwrap();
    topology.start_overlayd(0).unwrap();
    // What flanneld would read of us.
    let ours = topology.etcd().get(&key("172.17.0.0", "fd00:17::")).unwrap().unwrap();
    let ours: serde_json::Value = serde_json::from_str(&ours).unwrap();
    assert_eq!(ours["PublicIP"], "172.16.199.17", "{ours}");
    assert_eq!(ours["PublicIPv6"], "fd00:199::17", "{ours}");
    for (device, data, version) in
        [(&devices[0], "BackendData", Version::V4), (&devices[1], "BackendV6Data", Version::V6)]
    {
        let mac = ours[data]["VtepMAC"].as_str().unwrap();
        program_host_2(&topology, device, version, &[version], mac);
    }
    knows_host_2(&topology);
    run_and_check(&topology, [(Version::V4, None), (Version::V6, Some(true))]);
}
