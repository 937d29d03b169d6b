//! Containers that route for others, and a gateway that sends nobody elsewhere.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails, in its helpers too")]

use std::{net::Ipv4Addr, time::Duration};

use harness::{
    Netns, Topology, eventually,
    frame::ICMP,
    host::BRIDGE,
    traffic::{DatagramSocket, Endpoint, Frame, Probe, Sniffer, ping, ping_with, transfer},
};

const SOON: Duration = Duration::from_secs(5);

/// The network behind the router, and who lives there.
const BEHIND: &str = "10.50.0.0/24";
const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 50, 0, 1);
const RESIDENT: Ipv4Addr = Ipv4Addr::new(10, 50, 0, 2);

/// The first container of host 1 routes for a network behind it; the second one knows.
struct Bed {
    resident: Netns,
    topology: Topology,
}

impl Bed {
    fn up() -> Self {
        let topology = Topology::builder().containers(2).up().unwrap();
        let resident = Netns::create(&topology.scope.netns_name("behind")).unwrap();
        let (h1, far) = (topology.h(1), resident.path().display().to_string());
        let (router, neighbour) = (h1.c(1), h1.c(2));
        router
            .ns
            .ip_batch(&[
                format!("link add lan type veth peer name eth0 netns {far}"),
                format!("addr add {ROUTER}/24 dev lan"),
                "link set lan up".to_owned(),
            ])
            .unwrap();
        router.ns.sysctl("ipv4/ip_forward", "1").unwrap();
        for device in ["all", "eth0"] {
            // It sends its neighbours' packets back the way they came, and is not to tell them so.
            router.ns.sysctl(&format!("ipv4/conf/{device}/send_redirects"), "0").unwrap();
        }
        resident
            .ip_batch(&[
                format!("addr add {RESIDENT}/24 dev eth0"),
                "link set eth0 up".to_owned(),
                format!("route add default via {ROUTER}"),
            ])
            .unwrap();
        neighbour.ns.ip(&format!("route add {BEHIND} via {}", router.ip)).unwrap();
        let bed = Self { resident, topology };
        for number in [1, 2] {
            let (near, far) = (bed.topology.h(1).c(number), bed.topology.h(2).c(number));
            assert!(ping(&near.ns, far.ip, 2).unwrap().clean());
            eventually("the endpoint is known", SOON, || bed.topology.h(1).knows(number)).unwrap();
        }
        bed
    }

    /// Valid traffic of the router's own, to the other host.
    fn probe(&self) -> Probe {
        let ends = [1, 2].map(|n| self.topology.h(n).c(1)).map(|c| Endpoint { ns: &c.ns, ip: c.ip });
        Probe::start(ends[0], ends[1], 1000, Duration::from_secs(30)).unwrap()
    }

    /// The router gives what it forwards out of eth0 its own address.
    fn masquerade(&self) {
        let args =
            ["-t", "nat", "-A", "POSTROUTING", "-o", "eth0", "-d", "172.16.0.0/12", "-j", "MASQUERADE"];
        self.topology.h(1).c(1).ns.cmd("iptables").args(args).check().unwrap();
    }

    fn spoofed(&self) -> u64 {
        let drops = self.topology.h(1).overlayd().drops().unwrap();
        assert!(drops.keys().all(|reason| reason == "source_spoofed"), "{drops:?}");
        drops.get("source_spoofed").copied().unwrap_or(0)
    }
}

fn clean(probe: Probe) {
    let until = probe.arrived() + 200;
    eventually("traffic flows", SOON, || probe.arrived() >= until).unwrap();
    let report = probe.finish().unwrap();
    assert!(report.clean(), "{report}");
}

#[test]
fn what_a_container_forwards_to_its_neighbour_passes() {
    let bed = Bed::up();
    let (probe, neighbour) = (bed.probe(), bed.topology.h(1).c(2));
    let (near, far) =
        (Endpoint { ns: &neighbour.ns, ip: neighbour.ip }, Endpoint { ns: &bed.resident, ip: RESIDENT });
    for (from, to) in [(near, far), (far, near)] {
        assert!(ping(from.ns, to.ip, 3).unwrap().clean());
        transfer(from, to, 1_000_000).unwrap();
    }
    let datagrams = Probe::start(near, far, 1000, Duration::from_millis(500)).unwrap().join().unwrap();
    assert!(datagrams.clean(), "{datagrams}");
    clean(probe);
    assert_eq!(bed.spoofed(), 0);
    assert_eq!(bed.topology.h(1).overlayd().endpoint(RESIDENT).unwrap(), None);
}

/// A frame for the router's MAC address is the router's, wherever the packet in it goes.
#[test]
fn what_a_container_routes_for_another_is_not_taken_from_it() {
    let bed = Bed::up();
    let (h1, h2) = (bed.topology.h(1), bed.topology.h(2));
    let (router, neighbour, target) = (h1.c(1), h1.c(2), h2.c(1));
    neighbour.ns.ip(&format!("route add {} via {}", h2.bridge.subnet(), router.ip)).unwrap();
    let (probe, sniffer) = (bed.probe(), Sniffer::on(&router.ns, "eth0").unwrap());
    // As themselves neither the neighbour nor the resident may speak through the router's port.
    for (from, count) in [(&neighbour.ns, 3), (&bed.resident, 6)] {
        let refused = ping_with(from, target.ip, 3, &["-W", "0.2"]).unwrap();
        assert_eq!(refused.received, 0, "{}", refused.text);
        assert_eq!(bed.spoofed(), count);
    }
    bed.masquerade();
    for from in [&neighbour.ns, &bed.resident] {
        let passed = ping(from, target.ip, 3).unwrap();
        // One hop more than the overlay's own.
        assert!(passed.clean() && passed.text.contains("ttl=62"), "{}", passed.text);
    }
    let there = Endpoint { ns: &target.ns, ip: target.ip };
    let here = DatagramSocket::bind(&neighbour.ns, neighbour.ip, 0).unwrap();
    let far = DatagramSocket::bind(there.ns, there.ip, 0).unwrap();
    for _ in 0..100 {
        here.send(far.address(), b"by way of the router").unwrap();
        let arrived = far.receive(SOON).unwrap().unwrap();
        assert_eq!((arrived.from.ip(), arrived.ttl), (&router.ip, 62));
    }
    let passed = |f: &Frame| f.contains(b"by way of the router");
    for (way, outgoing) in [("in", false), ("and out again", true)] {
        let like = |f: &Frame| passed(f) && f.outgoing == outgoing;
        sniffer.await_count(way, 100, SOON, like).unwrap();
        assert_eq!(sniffer.count(like), 100, "{way}");
    }
    clean(probe);
    assert_eq!(bed.spoofed(), 6);
    assert!(h1.knows(1) && h1.knows(2));
}

/// Packets for peers enter the host through docker0 and leave through it: what a router would call a detour.
#[test]
fn nobody_is_redirected() {
    let topology = Topology::builder().containers(2).up().unwrap();
    let (h1, h2) = (topology.h(1), topology.h(2));
    for host in [h1, h2] {
        for device in ["all", BRIDGE] {
            let key = format!("net.ipv4.conf.{device}.send_redirects");
            assert_eq!(host.ns.exec(&["sysctl", "-n", &key]).unwrap().stdout.trim(), "0", "{key}");
        }
    }
    let sniffers = [h1, h2].map(|host| Sniffer::everywhere(&host.c(1).ns).unwrap());
    for (from, to) in [(h1, h2), (h2, h1)] {
        // Fragments, and packets with options, go by the kernel.
        for options in [&["-s", "3000", "-M", "dont"][..], &["-R"], &["-s", "20000", "-M", "dont"]] {
            let slow = ping_with(&from.c(1).ns, to.c(1).ip, 5, options).unwrap();
            assert!(slow.clean() && !slow.text.contains("edirect"), "{}", slow.text);
        }
        // Not so silent as to say nothing at all.
        let expired = ping_with(&from.c(1).ns, to.c(1).ip, 2, &["-t", "1"]).unwrap();
        assert!(expired.text.contains("Time to live exceeded"), "{}", expired.text);
        let learned = from.c(1).ns.ip(&format!("route get {}", to.c(1).ip)).unwrap().stdout;
        assert!(!learned.contains("redirected"), "{learned}");
    }
    for sniffer in sniffers {
        let frames = sniffer.finish().unwrap();
        let icmp = |kind| move |f: &&Frame| f.bytes.len() > 34 && f.bytes[23] == ICMP && f.bytes[34] == kind;
        assert!(frames.iter().filter(icmp(0)).count() >= 15, "echo replies");
        assert_eq!(frames.iter().filter(icmp(5)).count(), 0, "redirects");
    }
}
