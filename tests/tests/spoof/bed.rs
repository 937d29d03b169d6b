//! Hosts under attack, with valid traffic, and the account of what was dropped.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

pub(crate) use harness::account::{Account, assert_none};
use harness::{
    Topology,
    counters::Netfilter,
    eventually,
    frame::{self, Ipv4, Mac, Tunnel},
    host::{BRIDGE, Host, UPLINK},
    traffic::{Endpoint, Frame, Injector, Probe, Sniffer, ping},
};

/// How long anything may take on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(5);

/// In the payload of all that is forged.
pub(crate) const FORGED: &[u8] = b"forged by a test";

/// In the payload of what is valid, and as long.
pub(crate) const VALID: &[u8] = b"valid, by a test";

/// The inner UDP ports: nobody listens on them.
pub(crate) const PORTS: [u16; 2] = [40_001, 40_002];

pub(crate) const VNI: u32 = 1;
pub(crate) const PORT: u16 = 4789;

/// Hosts with two containers each, all endpoints of them known on the first.
pub(crate) fn hosts(count: usize) -> Topology {
    let topology = Topology::builder().hosts(count).containers(2).up().unwrap();
    let (h1, h2) = (topology.h(1), topology.h(2));
    for number in [1, 2] {
        assert!(ping(&h1.c(number).ns, h2.c(number).ip, 2).unwrap().clean());
        eventually("the endpoint is known", SOON, || h1.knows(number) && h2.knows(number)).unwrap();
    }
    topology
}

/// A datagram each way every millisecond, between the first containers of the first two hosts.
pub(crate) fn probe(topology: &Topology) -> Probe {
    let ends = [topology.h(1), topology.h(2)].map(|host| Endpoint { ns: &host.c(1).ns, ip: host.c(1).ip });
    Probe::start(ends[0], ends[1], 1000, Duration::from_secs(60)).unwrap()
}

/// Everything the probe sent has arrived, once.
pub(crate) fn clean(probe: Probe) {
    // However fast all else was, traffic ran for a while, and runs still.
    let until = probe.arrived() + 200;
    eventually("valid traffic flows", SOON, || probe.arrived() >= until).unwrap();
    let report = probe.finish().unwrap();
    assert!(report.forth.sent > 100 && report.clean(), "valid traffic: {report}");
}

/// The MAC address that a host's VTEP answers to.
pub(crate) fn vtep(host: &Host) -> Mac {
    let status = host.overlayd().ctl(&["status", "-o", "json"]).unwrap();
    frame::mac(status["vtep_mac"].as_str().unwrap())
}

/// A UDP packet as a container sends it.
pub(crate) fn inner(src: Ipv4Addr, dst: Ipv4Addr, payload: &[u8]) -> Ipv4 {
    Ipv4::udp(SocketAddrV4::new(src, PORTS[0]), SocketAddrV4::new(dst, PORTS[1]), payload)
}

/// A tunnel packet from host 2 to the first container of host 1, as valid as can be.
pub(crate) fn tunnel(topology: &Topology, payload: &[u8]) -> Tunnel {
    let (h1, h2) = (topology.h(1), topology.h(2));
    Tunnel {
        eth_dst: h1.mac(UPLINK).unwrap(),
        eth_src: h2.mac(UPLINK).unwrap(),
        tos: 0,
        src: h2.ip,
        dst: h1.ip,
        src_port: 50_000,
        port: PORT,
        flags: [8, 0, 0, 0],
        vni: VNI,
        reserved: 0,
        inner_dst: vtep(h1),
        inner_src: vtep(h2),
        inner_ethertype: frame::IPV4,
        inner: inner(nobody(h2), h1.c(1).ip, payload).bytes(),
    }
}

/// An address in a host's subnet that no container has.
pub(crate) fn nobody(host: &Host) -> Ipv4Addr {
    host.bridge.container_ip(200)
}

/// Where frames come to host 1 from.
pub(crate) fn from_the_wire(topology: &Topology) -> Injector {
    Injector::open(topology.wire.ns().unwrap(), "h1").unwrap()
}

/// Eyes on host 1: its two containers, its own stack, and its end of the wire.
pub(crate) struct Watch<'a> {
    containers: [Sniffer; 2],
    host: Sniffer,
    wire: Sniffer,
    netfilter: Netfilter<'a>,
    uplink: u32,
}

impl<'a> Watch<'a> {
    pub(crate) fn start(topology: &'a Topology) -> Self {
        let h1 = topology.h(1);
        let udp = format!("-p udp -d {} --dport {PORT} -m length --length 28:65535", h1.ip);
        Self {
            containers: [1, 2].map(|n| Sniffer::everywhere(&h1.c(n).ns).unwrap()),
            host: Sniffer::everywhere(&h1.ns).unwrap(),
            wire: Sniffer::on(topology.wire.ns().unwrap(), "h1").unwrap(),
            // What the tunnel programs leave alone would come by here. Half a UDP header is nobody's.
            netfilter: Netfilter::count(&h1.ns, &udp).unwrap(),
            uplink: h1.ifindex(UPLINK).unwrap(),
        }
    }

    /// Valid packets, last in the queue: once they are there, so is all that was sent before.
    pub(crate) fn flush(&self, topology: &Topology, injector: &Injector) {
        let valid = tunnel(topology, VALID).bytes();
        for _ in 0..10 {
            injector.send(&valid).unwrap();
        }
        let seen = |f: &Frame| !f.outgoing && f.contains(VALID);
        self.containers[0].await_count("valid packets arrive", 10, SOON, seen).unwrap();
        assert_eq!(self.containers[0].count(seen), 10, "valid packets arrive once");
    }

    /// Nothing of what was forged has come past the uplink's programs, nor has anybody answered it.
    pub(crate) fn nothing_passed(self, forged: impl Fn(&Frame) -> bool) {
        for (sniffer, place) in self.containers.into_iter().zip(["container 1", "container 2"]) {
            assert_none(place, sniffer.finish().unwrap(), &forged);
        }
        let host: Vec<Frame> = self.host.finish().unwrap();
        let inside = host.into_iter().filter(|f| f.ifindex != self.uplink || f.outgoing).collect();
        assert_none("host 1, behind its uplink", inside, &forged);
        let answers = self.wire.finish().unwrap().into_iter().filter(|f| !f.outgoing).collect();
        assert_none("host 1's answers on the wire", answers, &forged);
        assert_eq!(self.netfilter.seen().unwrap(), [], "tunnel packets reached the host's stack");
    }
}

/// The bridge's MAC address: the containers' gateway.
pub(crate) fn gateway_mac(host: &Host) -> Mac {
    host.mac(BRIDGE).unwrap()
}
