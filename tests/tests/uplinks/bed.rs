//! Two hosts whose uplinks are of one kind.

use std::time::Duration;

use harness::{
    Topology, eventually,
    host::{BRIDGE, Host},
    tables::Traffic,
    topology::StoreKind,
    traffic::{Endpoint, Probe, ping},
};
use serde_json::Value;

use crate::{
    SOON,
    expected::Case,
    kind::{Kind, Turn},
    lay::{Keep, lay},
};

/// Datagrams a second, at which an emulated CPU keeps up.
const RATE: u32 = 200;

pub(crate) struct Bed {
    pub(crate) case: Case,
    pub(crate) topology: Topology,
    _keep: Keep,
    // Last: the cards are free once the hosts are gone.
    _turn: Option<Turn>,
}

impl Bed {
    /// Two hosts with a container each; overlayd runs, and all endpoints are known.
    pub(crate) fn up(case: Case) -> Self {
        let turn = matches!(case.kind, Kind::Nic(_)).then(|| Turn::wait(case.kind.name()));
        let mode = format!("--decap={}", case.mode);
        let builder = Topology::builder().store(StoreKind::Peers).without_overlayd().overlayd_args(&[&mode]);
        let topology = builder.up().unwrap();
        let keep = lay(case.kind, &topology);
        let mut bed = Self { case, topology, _keep: keep, _turn: turn };
        for index in [0, 1] {
            bed.topology.start_overlayd(index).unwrap();
        }
        bed.topology.await_routes().unwrap();
        bed.warm_up();
        bed
    }

    /// Pings until the endpoints are known: from then on everything takes the fast path.
    fn warm_up(&self) {
        for (from, to) in self.ways() {
            // A card's link may come up late: the first may be lost.
            let arrives = || ping(&from.c(1).ns, to.c(1).ip, 1).unwrap().clean();
            eventually("a ping is answered", SOON, arrives).unwrap();
        }
        for host in &self.topology.hosts {
            eventually("the endpoint is known", SOON, || host.knows(1)).unwrap();
            let (place, why) = self.case.decap;
            eventually(&format!("{place} decapsulates"), SOON, || decap(host).0 == place).unwrap();
            assert_eq!(decap(host), (place.to_owned(), why.to_owned()), "on {}", host.name);
        }
    }

    /// Both ways.
    pub(crate) fn ways(&self) -> [(&Host, &Host); 2] {
        let (h1, h2) = (self.topology.h(1), self.topology.h(2));
        [(h1, h2), (h2, h1)]
    }

    pub(crate) fn probe(&self, duration: Duration) -> Probe {
        self.probe_at(RATE, duration)
    }

    pub(crate) fn probe_at(&self, rate: u32, duration: Duration) -> Probe {
        let [(h1, h2), _] = self.ways();
        let probe = Probe::start(end(h1), end(h2), rate, duration).unwrap();
        flow(&probe, 50);
        probe
    }

    /// What each host counts of its peer.
    pub(crate) fn traffic(&self) -> [Traffic; 2] {
        self.ways().map(|(host, peer)| host.overlayd().traffic(peer.ip).unwrap())
    }

    /// What the bridges themselves have carried: nothing of the fast path.
    pub(crate) fn bridged(&self) -> u64 {
        let of = |host: &Host| harness::counters::packets(&host.ns, BRIDGE).unwrap();
        self.topology.hosts.iter().map(of).map(|packets| packets.rx + packets.tx).sum()
    }

    pub(crate) fn assert_nothing_dropped(&self) {
        for host in &self.topology.hosts {
            assert_eq!(host.overlayd().drops().unwrap().len(), 0, "on {}", host.name);
        }
    }
}

/// A host's first container.
pub(crate) fn end(host: &Host) -> Endpoint<'_> {
    Endpoint { ns: &host.c(1).ns, ip: host.c(1).ip }
}

/// Lets traffic flow for a while, as the packets themselves tell it.
pub(crate) fn flow(probe: &Probe, packets: u64) {
    let until = probe.arrived() + packets;
    eventually("traffic flows", SOON, || probe.arrived() >= until || !probe.sending()).unwrap();
}

pub(crate) fn status(host: &Host) -> Value {
    host.overlayd().ctl(&["status", "-o", "json"]).unwrap()
}

/// Where tunnel packets are decapsulated, and why.
pub(crate) fn decap(host: &Host) -> (String, String) {
    let status = status(host);
    let text = |key: &str| status[key].as_str().unwrap().to_owned();
    (text("decap"), text("decap_reason"))
}
