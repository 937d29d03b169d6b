//! Traffic of every kind, with XDP on the uplinks.

use harness::{
    Topology,
    host::{Host, UPLINK},
    traffic::{Endpoint, Frame, Sniffer, ping, ping_with, transfer},
};

use crate::{await_xdp, native_program, probe, two_hosts_with_xdp};

fn end(host: &Host, number: u32) -> Endpoint<'_> {
    let container = host.c(number);
    Endpoint { ns: &container.ns, ip: container.ip }
}

/// What the uplink brings, as it is behind XDP: an inner packet to this container.
fn is_stripped(frame: &Frame, to: &Host) -> bool {
    !frame.outgoing && frame.bytes.get(30..34) == Some(&to.c(1).ip.octets()[..])
}

/// What the uplink brings as it was on the wire.
fn is_tunnel(frame: &Frame) -> bool {
    !frame.outgoing
        && frame.bytes.get(23) == Some(&17)
        && frame.bytes.get(36..38) == Some(&4789_u16.to_be_bytes()[..])
}

#[test]
fn ping_tcp_and_udp_arrive_whole_and_were_stripped_before_tcx() {
    let topology = two_hosts_with_xdp();
    let (h1, h2) = (topology.h(1), topology.h(2));
    assert!(native_program(h1).is_some() && native_program(h2).is_some());
    let sniffers = [h1, h2].map(|host| Sniffer::on(&host.ns, UPLINK).unwrap());
    assert!(ping(&h1.c(1).ns, h2.c(1).ip, 5).unwrap().clean());
    for (from, to) in [(h1, h2), (h2, h1)] {
        transfer(end(from, 1), end(to, 1), 8 << 20).unwrap();
        transfer(end(from, 2), end(to, 1), 100_000).unwrap();
    }
    let report = probe(&topology, 3).join().unwrap();
    assert!(report.clean() && report.forth.sent > 2000, "{report}");
    for (sniffer, host) in sniffers.into_iter().zip([h1, h2]) {
        let frames = sniffer.finish().unwrap();
        let stripped = frames.iter().filter(|frame| is_stripped(frame, host)).count();
        let tunnel = frames.iter().filter(|frame| is_tunnel(frame)).count();
        assert!(stripped > 1000, "{stripped} stripped packets on {}", host.name);
        assert_eq!(tunnel, 0, "tunnel packets that XDP left to tcx on {}", host.name);
        assert_eq!(host.overlayd().drops().unwrap().len(), 0, "on {}", host.name);
    }
}

/// To the host itself, and from it; the very first packet to a container that nobody knows yet.
#[test]
fn hosts_and_unknown_containers_are_reached() {
    let topology = Topology::builder().containers(2).overlayd_args(&["--decap=xdp"]).up().unwrap();
    await_xdp(&topology);
    let (h1, h2) = (topology.h(1), topology.h(2));
    assert!(ping(&h1.c(1).ns, h2.bridge.ip, 3).unwrap().clean(), "to docker0 over there");
    assert!(ping(&h1.ns, h2.c(1).ip, 3).unwrap().clean(), "from the host");
    assert!(ping(&h1.ns, h2.bridge.ip, 3).unwrap().clean(), "from host to host");
}

/// Fragments of tunnel packets go to the kernel and its tunnel device, with XDP as without; inner fragments are
/// packets like others.
#[test]
fn fragments_are_put_together() {
    let topology = two_hosts_with_xdp();
    let (h1, h2) = (topology.h(1), topology.h(2));
    let large = ping_with(&h1.c(1).ns, h2.c(1).ip, 3, &["-s", "4000", "-M", "dont"]).unwrap();
    assert!(large.clean(), "{large:?}");
    assert_eq!(h2.overlayd().drops().unwrap().len(), 0);
}

/// A veth takes an XDP program without support of fragments only up to 3.5 kB of MTU.
#[test]
fn jumbo_frames_are_stripped() {
    let topology = Topology::builder()
        .containers(2)
        .uplink_mtu(9000)
        .container_mtu(8950)
        .overlayd_args(&["--decap=xdp"])
        .up()
        .unwrap();
    await_xdp(&topology);
    let (h1, h2) = (topology.h(1), topology.h(2));
    let large = ping_with(&h1.c(1).ns, h2.c(1).ip, 3, &["-s", "8922", "-M", "do"]).unwrap();
    assert!(large.clean(), "{large:?}");
    transfer(end(h1, 1), end(h2, 1), 4 << 20).unwrap();
    assert_eq!(h2.overlayd().drops().unwrap().len(), 0);
}
