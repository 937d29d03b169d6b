//! The port belongs to somebody else: a VXLAN device as flanneld makes it.

use harness::{Topology, eventually, host::Host, topology::StoreKind, traffic::ping};

use crate::{RESYNC, SOON, entry, is_whole, link, notes, probe, status};

/// A VXLAN device of another network on both hosts, with addresses of its own and each other as flood target.
fn other_network(topology: &Topology, vni: u32) {
    for (host, peer, number) in [(1, 2, 1), (2, 1, 2)] {
        let (here, there) = (topology.h(host), topology.h(peer));
        here.ns
            .ip_batch(&[
                format!(
                    "link add other type vxlan id {vni} dev eth0 local {} dstport 4789 remote {}",
                    here.ip, there.ip
                ),
                format!("addr add 10.77.0.{number}/24 dev other"),
                "link set other up".to_owned(),
            ])
            .unwrap();
    }
}

fn other_network_flows(from: &Host) -> bool {
    ping(&from.ns, std::net::Ipv4Addr::new(10, 77, 0, 2), 3).unwrap().clean()
}

fn ours_flows(topology: &Topology) {
    let report = probe(topology, 3).join().unwrap();
    assert!(report.clean(), "{report}");
}

#[test]
fn both_networks_flow_and_the_port_is_taken_when_it_is_free() {
    let mut topology = Topology::builder().store(StoreKind::Peers).without_overlayd().up().unwrap();
    other_network(&topology, 7);
    assert!(other_network_flows(topology.h(1)), "before");
    for host in [0, 1] {
        topology.start_overlayd(host).unwrap();
    }
    ours_flows(&topology);
    assert!(other_network_flows(topology.h(1)), "beside overlayd");
    let h1 = topology.h(1);
    assert_eq!((link(h1, "ovl0"), entry(h1, 4789)), (None, Some((0, 1))));
    let (said, (state, message)) = (notes(h1), status(h1));
    assert_eq!(state, "ok", "a port that is taken is no trouble: {message}");
    assert!(said.len() == 1, "{said:?}");
    for words in ["4789", "other (VNI 7)", "fragments", "IP options", "left to other"] {
        assert!(said[0].contains(words), "no {words:?} in {said:?}");
    }
    // Down is enough; up again is then the kernel's refusal, not ours.
    h1.ns.ip("link set other down").unwrap();
    eventually("the port is ours", SOON, || is_whole(h1) && notes(h1).is_empty()).unwrap();
    assert!(h1.ns.ip("link set other up").unwrap_err().to_string().contains("in use"));
    ours_flows(&topology);
    topology.h(2).ns.ip("link del other").unwrap();
    eventually("the other's too", SOON, || is_whole(topology.h(2))).unwrap();
    ours_flows(&topology);
}

#[test]
fn a_device_with_our_vni_is_a_trouble() {
    let mut topology = Topology::builder().store(StoreKind::Peers).without_overlayd().up().unwrap();
    other_network(&topology, 1);
    for host in [0, 1] {
        topology.start_overlayd(host).unwrap();
    }
    ours_flows(&topology);
    let h1 = topology.h(1);
    let (state, message) = status(h1);
    assert_eq!(state, "degraded");
    for words in ["VXLAN device other", "4789", "VNI 1,", "delete it"] {
        assert!(message.contains(words), "no {words:?} in {message}");
    }
    h1.ns.ip("link del other").unwrap();
    eventually("the port is ours", SOON, || is_whole(h1) && status(h1).0 == "ok").unwrap();
}

/// A device that receives as ours does shares the port's socket: both get theirs.
#[test]
fn a_device_like_ours_shares_the_port() {
    let mut topology = Topology::builder().store(StoreKind::Peers).without_overlayd().up().unwrap();
    let theirs = "link add theirs up type vxlan external vnifilter nolearning udp6zerocsumrx dstport 4789";
    topology.h(1).ns.ip(theirs).unwrap();
    topology.h(1).ns.exec(&["bridge", "vni", "add", "vni", "7", "dev", "theirs"]).unwrap();
    for host in [0, 1] {
        topology.start_overlayd(host).unwrap();
    }
    let h1 = topology.h(1);
    let ours = crate::index(h1, "ovl0").unwrap();
    assert_eq!(entry(h1, 4789), Some((ours, 1)));
    ours_flows(&topology);
    h1.ns.ip("link del theirs").unwrap();
    eventually("it is ours alone", SOON, || is_whole(h1)).unwrap();
}

/// The kernel asks of a shared socket that all its devices want the same of what they receive.
#[test]
fn a_device_that_wants_checksums_over_ipv6_has_the_port_for_itself() {
    let mut topology = Topology::builder().store(StoreKind::Peers).without_overlayd().up().unwrap();
    let theirs = "link add theirs up type vxlan external vnifilter nolearning dstport 4789";
    topology.h(1).ns.ip(theirs).unwrap();
    for host in [0, 1] {
        topology.start_overlayd(host).unwrap();
    }
    let h1 = topology.h(1);
    assert_eq!((link(h1, "ovl0"), entry(h1, 4789)), (None, Some((0, 1))));
    assert!(notes(h1).iter().any(|note| note.contains("belongs to VXLAN device theirs")), "{:?}", notes(h1));
    ours_flows(&topology);
    h1.ns.ip("link del theirs").unwrap();
    eventually("the port is ours", SOON, || is_whole(h1) && notes(h1).is_empty()).unwrap();
}

#[test]
fn a_programs_socket_on_the_port_is_no_trouble_either() {
    let mut topology = Topology::builder().store(StoreKind::Peers).without_overlayd().up().unwrap();
    let socket = topology.h(1).ns.run(|| std::net::UdpSocket::bind("0.0.0.0:4789").unwrap()).unwrap();
    for host in [0, 1] {
        topology.start_overlayd(host).unwrap();
    }
    let h1 = topology.h(1);
    assert_eq!((link(h1, "ovl0"), entry(h1, 4789)), (None, Some((0, 1))));
    assert!(notes(h1).iter().any(|note| note.contains("another socket")), "{:?}", notes(h1));
    ours_flows(&topology);
    drop(socket);
    // No link tells of it.
    eventually("the port is ours", RESYNC + RESYNC, || is_whole(h1) && notes(h1).is_empty()).unwrap();
}
