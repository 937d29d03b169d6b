//! Where tunnel packets are decapsulated: in XDP or in tc, what changes between the two, and what does not.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails, in its helpers too")]

mod change;
mod choice;
mod refusals;
mod several;
mod traffic;

use std::time::Duration;

use harness::{
    Topology, eventually,
    host::Host,
    traffic::{Endpoint, Probe, ping},
};

/// How long anything may take on a busy machine: a trial is looked at every second.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// State and reason, as `overlayctl status` tells them.
pub(crate) fn decap(host: &Host) -> (String, String) {
    let status = host.overlayd().ctl(&["status", "-o", "json"]).unwrap();
    let text = |key: &str| status[key].as_str().unwrap().to_owned();
    (text("decap"), text("decap_reason"))
}

/// Two hosts that decapsulate in XDP, with endpoints known.
pub(crate) fn two_hosts_with_xdp() -> Topology {
    let topology = Topology::builder().containers(2).overlayd_args(&["--decap=xdp"]).up().unwrap();
    await_xdp(&topology);
    topology
}

/// Waits until every host has been through its trial: any packet will do for that.
pub(crate) fn await_xdp(topology: &Topology) {
    let (h1, h2) = (topology.h(1), topology.h(2));
    for number in [1, 2] {
        assert!(ping(&h1.c(number).ns, h2.c(number).ip, 2).unwrap().clean());
        eventually("the endpoint is known", SOON, || h1.knows(number) && h2.knows(number)).unwrap();
    }
    for host in [h1, h2] {
        eventually("XDP decapsulates", SOON, || decap(host).0 == "xdp").unwrap();
    }
}

/// A datagram each way every millisecond, between the first containers of the hosts.
pub(crate) fn probe(topology: &Topology, seconds: u64) -> Probe {
    let ends = [1, 2].map(|n| topology.h(n).c(1)).map(|c| Endpoint { ns: &c.ns, ip: c.ip });
    let probe = Probe::start(ends[0], ends[1], 1000, Duration::from_secs(seconds)).unwrap();
    flow(&probe, 100);
    probe
}

/// Lets traffic flow for a while, as the packets themselves tell it.
pub(crate) fn flow(probe: &Probe, packets: u64) {
    let until = probe.arrived() + packets;
    eventually("traffic flows", SOON, || probe.arrived() >= until || !probe.sending()).unwrap();
}

/// The id of the XDP program of the uplink in native mode, as `ip` tells it.
pub(crate) fn native_program(host: &Host) -> Option<u64> {
    let links = host.ns.exec(&["ip", "-d", "-j", "link", "show", "dev", harness::host::UPLINK]).unwrap();
    let links: serde_json::Value = serde_json::from_str(&links.stdout).unwrap();
    let xdp = &links[0]["xdp"];
    // XDP_ATTACHED_DRV.
    (xdp["mode"] == 1).then(|| xdp["prog"]["id"].as_u64()).flatten()
}
