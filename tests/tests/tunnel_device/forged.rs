//! What comes to the device from those who may not send, and from those who may: nothing unchecked gets in,
//! while everything that is right arrives.

use std::{
    net::{Ipv4Addr, UdpSocket},
    time::Duration,
};

use harness::{Netns, Topology, eventually, topology::StoreKind};
use overlay_common::Mac;

use crate::{SOON, forge::Forged, probe};

const PORT: u16 = 9999;
const ROUNDS: u16 = 20;
/// A third of the packet's length: the first fragment has all headers, and then one that has not.
const FRAGMENTS: [Option<usize>; 3] = [None, Some(96), Some(16)];

/// Sockets on which whatever gets in is heard.
struct Ears(Vec<(String, UdpSocket)>);

impl Ears {
    fn on(all: &[(&str, &Netns)]) -> Self {
        let ear = |(name, ns): &(&str, &Netns)| {
            let socket = ns.run(|| UdpSocket::bind(("0.0.0.0", PORT)).unwrap()).unwrap();
            socket.set_nonblocking(true).unwrap();
            ((*name).to_owned(), socket)
        };
        Self(all.iter().map(ear).collect())
    }

    /// What was heard since the last call: who, and the first word of what.
    fn heard(&self) -> Vec<String> {
        let mut heard = Vec::new();
        let mut bytes = [0; 2048];
        for (name, socket) in &self.0 {
            while let Ok((length, _)) = socket.recv_from(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
                heard.push(format!("{name} {}", text.split(' ').next().unwrap_or_default()));
            }
        }
        heard
    }
}

/// A packet from host 2's container to host 1's, as host 2 would send it.
fn right(topology: &Topology) -> Forged {
    let (h1, h2) = (topology.h(1), topology.h(2));
    let status = h1.overlayd().ctl(&["status", "-o", "json"]).unwrap();
    Forged {
        outer_source: h2.ip,
        outer_destination: h1.ip,
        vni: 1,
        vtep_mac: status["vtep_mac"].as_str().unwrap().parse::<Mac>().unwrap(),
        source: h2.c(1).ip,
        destination: h1.c(1).ip,
        port: PORT,
        payload: format!("right {}", "x".repeat(200)).into_bytes(),
    }
}

/// What must not get in: its name, who sends it, the packet, and the reason under which it is counted.
fn wrong(topology: &Topology) -> Vec<(&'static str, &Netns, Forged, &'static str)> {
    let (h1, h2, h3) = (topology.h(1), topology.h(2), topology.h(3));
    let right = right(topology);
    let stranger = Forged { outer_source: h3.ip, ..right.clone() };
    // The socket hears every address of the host; the uplink's program looks at one.
    let elsewhere = Forged { outer_destination: h1.bridge.ip, ..right.clone() };
    let to_host = |forged: &Forged, destination: Ipv4Addr| Forged { destination, ..forged.clone() };
    vec![
        ("stranger", &h3.ns, stranger.clone(), "unknown_peer"),
        ("stranger-to-bridge", &h3.ns, to_host(&stranger, h1.bridge.ip), "unknown_peer"),
        ("stranger-to-uplink", &h3.ns, to_host(&stranger, h1.ip), "unknown_peer"),
        ("wrong-vni", &h2.ns, Forged { vni: 2, ..right.clone() }, "wrong_vni"),
        ("stranger-wrong-vni", &h3.ns, Forged { vni: 424_242, ..stranger.clone() }, "unknown_peer"),
        ("anothers-source", &h2.ns, Forged { source: h3.c(1).ip, ..right.clone() }, "inner_source"),
        ("our-source", &h2.ns, Forged { source: h1.c(1).ip, ..right.clone() }, "inner_source"),
        ("to-uplink", &h2.ns, to_host(&right, h1.ip), "not_local"),
        ("to-another-address", &h2.ns, elsewhere, "not_from_uplink"),
        // Past the uplink: a mark is believed, not an address.
        ("own-container", &h1.c(1).ns, right.clone(), "not_from_uplink"),
        ("own-container-to-bridge", &h1.c(1).ns, to_host(&right, h1.bridge.ip), "not_from_uplink"),
        ("own-host", &h1.ns, Forged { outer_source: h1.ip, ..right }, "not_from_uplink"),
    ]
}

fn bed() -> Topology {
    let builder = Topology::builder().hosts(3).store(StoreKind::Peers).without_overlayd();
    let mut topology = builder.up().unwrap();
    // Hosts 1 and 2 are each other's peers; host 3 is nobody's.
    for (index, peer) in [(0, 1), (1, 0)] {
        let peer = &topology.hosts[peer];
        let text = format!("[[peer]]\nsubnet = \"{}\"\nhost = \"{}\"\n", peer.bridge.subnet(), peer.ip);
        std::fs::write(topology.peers_file(index), text).unwrap();
        topology.start_overlayd(index).unwrap();
    }
    let (to, through) = (topology.h(1).bridge.ip, topology.h(1).ip);
    topology.h(2).ns.ip(&format!("route add {to}/32 via {through}")).unwrap();
    topology
}

#[test]
fn nothing_forged_gets_in_and_everything_right_does() {
    let topology = bed();
    let (h1, h2) = (topology.h(1), topology.h(2));
    let ears = Ears::on(&[("container", &h1.c(1).ns), ("host", &h1.ns)]);
    let (right, wrong) = (right(&topology), wrong(&topology));
    let probe = probe(&topology, 60);
    let (mut id, mut expected) = (1000, 0);
    let mut heard = Vec::new();
    for (name, ns, forged, reason) in wrong {
        let before = h1.overlayd().drops().unwrap().get(reason).copied().unwrap_or(0);
        for _ in 0..ROUNDS {
            for fragment in FRAGMENTS {
                id += 1;
                let payload = format!("{name} {}", "x".repeat(200)).into_bytes();
                Forged { payload, ..forged.clone() }.send(ns, id, fragment);
                right.send(&h2.ns, id.wrapping_add(20_000), fragment);
                expected += 1;
                // At once: a socket's buffer holds some dozens.
                heard.extend(ears.heard());
            }
        }
        let counted = || h1.overlayd().drops().unwrap().get(reason).copied().unwrap_or(0) - before;
        let all = u64::from(ROUNDS) * FRAGMENTS.len() as u64;
        let arrived = eventually(&format!("{name} is counted"), SOON, || counted() >= all);
        assert!(arrived.is_ok(), "{name}: {} of {all} as {reason}: {:?}", counted(), h1.overlayd().drops());
    }
    std::thread::sleep(Duration::from_millis(300));
    heard.extend(ears.heard());
    let got = heard.iter().filter(|line| *line == "container right").count();
    let others: Vec<&String> = heard.iter().filter(|line| *line != "container right").collect();
    assert!(others.is_empty(), "{others:?}");
    assert_eq!(got, expected, "packets that were right");
    let report = probe.finish().unwrap();
    assert!(report.clean(), "{report}");
}
