//! `overlayctl drops --follow` tells IPv6, outside and inside.

use std::{fs, path::PathBuf};

use harness::{
    Topology, Versions, binaries,
    container::docker_mac,
    eventually,
    frame::{self, Ipv6},
    host::BRIDGE,
    process::Background,
    traffic::Injector,
};
use serde_json::Value;

use crate::{
    bed::{self, SOON, Version},
    spoof_wire::from_a_stranger,
};

struct Listener {
    _process: Background,
    log: PathBuf,
}

impl Listener {
    fn start(topology: &Topology) -> Self {
        let (h1, log) = (topology.h(1), topology.scope.dir().join("samples"));
        let cmd = h1.ns.cmd(binaries::find("overlayctl").unwrap());
        let cmd = cmd.arg(format!("--pin-dir={}", h1.overlayd().config.pin_dir.display()));
        Self { _process: cmd.args(["drops", "--follow", "-o", "json"]).spawn(&log).unwrap(), log }
    }

    /// Sends a frame again and again until a sample of it comes.
    fn hears(&self, injector: &Injector, frame: &[u8], like: impl Fn(&Value) -> bool) -> Value {
        let found = || {
            let text = fs::read_to_string(&self.log).unwrap();
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            whole.lines().map(|line| serde_json::from_str(line).unwrap()).find(&like)
        };
        eventually("it is sampled", SOON, || {
            injector.send(frame).unwrap();
            found().is_some()
        })
        .unwrap();
        found().unwrap()
    }
}

#[test]
fn drops_are_told_with_their_addresses() {
    let topology = bed::builder(Versions::Both).containers(2).up().unwrap();
    bed::settle(&topology);
    let (h1, h2) = (topology.h(1), topology.h(2));
    let probes = bed::Probes::start(&topology);
    let listener = Listener::start(&topology);

    let wire = Injector::open(topology.wire.ns().unwrap(), "h1").unwrap();
    for (outer, stranger) in [(Version::V4, "172.16.199.99"), (Version::V6, "fd00:199::99")] {
        for version in [Version::V4, Version::V6] {
            let inner = version.nobody(h2).to_string();
            let packet = from_a_stranger(&topology, outer, version, stranger);
            let row = listener.hears(&wire, &packet, |row| {
                row["tunnel"]["src"] == stranger && row["ip"]["src"] == inner.as_str()
            });
            assert_eq!(row["reason"], "unknown_peer", "{row}");
            assert_eq!(row["tunnel"]["dst"], outer.underlay(h1).to_string(), "{row}");
            assert_eq!(row["ip"]["dst"], version.ip(h1.c(1)).to_string(), "{row}");
            assert_eq!((&row["ip"]["src_port"], &row["ip"]["dst_port"]), (&40_001.into(), &40_002.into()));
        }
    }

    let container = Injector::open(&h1.c(2).ns, "eth0").unwrap();
    let (own, mac) = (h1.c(2).ip_v6.unwrap(), frame::mac(&docker_mac(h1.c(2).ip)));
    let gateway = h1.bridge.ip_v6.unwrap();
    let claim = Ipv6::advertisement(own, h1.c(1).ip_v6.unwrap(), gateway, mac);
    let claim = frame::eth(h1.mac(BRIDGE).unwrap(), mac, frame::IPV6, &claim.bytes());
    let row = listener.hears(&container, &claim, |row| row["reason"] == "gateway_claimed");
    assert_eq!(row["neighbour"]["target"], gateway.to_string(), "{row}");
    assert_eq!((&row["neighbour"]["icmp_type"], &row["ip"]["protocol"]), (&136.into(), &58.into()), "{row}");
    assert_eq!(row["interface"], h1.c(2).port.as_str(), "{row}");
    assert_eq!(row["ip"]["src"], own.to_string(), "{row}");
    probes.clean();
}
