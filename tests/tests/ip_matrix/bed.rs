//! Hosts with both versions of IP inside, and what the tests ask of them.

use std::{net::IpAddr, time::Duration};

use harness::{
    Topology, Versions,
    container::Container,
    eventually,
    host::Host,
    topology::{Builder, StoreKind},
    traffic::{Endpoint, Probe, ping},
};

/// How long anything may take on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// Datagrams a second, each way, for each version of IP.
const RATE: u32 = 500;

/// A version of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V4,
    V6,
}

/// Both of them.
pub(crate) const VERSIONS: [Version; 2] = [Version::V4, Version::V6];

impl Version {
    pub(crate) fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// A container's address.
    pub(crate) fn ip(self, container: &Container) -> IpAddr {
        match self {
            Self::V4 => container.ip.into(),
            Self::V6 => container.ip_v6.unwrap().into(),
        }
    }

    /// The containers' gateway on a host.
    pub(crate) fn gateway(self, host: &Host) -> IpAddr {
        match self {
            Self::V4 => host.bridge.ip.into(),
            Self::V6 => host.bridge.ip_v6.unwrap().into(),
        }
    }

    /// A host's address on the wire, whether it speaks that version there or not.
    pub(crate) fn underlay(self, host: &Host) -> IpAddr {
        match self {
            Self::V4 => host.ip.into(),
            Self::V6 => host.ip_v6.into(),
        }
    }

    /// The containers' subnet of a host.
    pub(crate) fn subnet(self, host: &Host) -> String {
        match self {
            Self::V4 => host.bridge.subnet(),
            Self::V6 => host.bridge.subnet_v6().unwrap(),
        }
    }

    /// An address in a host's subnet that no container has.
    pub(crate) fn nobody(self, host: &Host) -> IpAddr {
        match self {
            Self::V4 => host.bridge.container_ip(200).into(),
            Self::V6 => host.bridge.container_ip_v6(200).unwrap().into(),
        }
    }

    /// Whether a host knows behind which port a container's address lives.
    pub(crate) fn is_known(self, host: &Host, container: u32) -> bool {
        match self {
            Self::V4 => host.knows(container),
            Self::V6 => host.knows_v6(container),
        }
    }
}

/// Hosts over such an underlay, with both versions inside.
pub(crate) fn builder(underlay: Versions) -> Builder {
    Topology::builder().store(StoreKind::Peers).versions(underlay, true)
}

/// The same, decapsulating in XDP.
pub(crate) fn builder_with_xdp(underlay: Versions) -> Builder {
    builder(underlay).overlayd_args(&["--decap=xdp"])
}

/// Waits until every host has been through its trial, for which [`settle`] has sent what it takes.
pub(crate) fn await_xdp(topology: &Topology) {
    for host in [topology.h(1), topology.h(2)] {
        let decap = || host.overlayd().ctl(&["status", "-o", "json"]).is_ok_and(|s| s["decap"] == "xdp");
        eventually(&format!("XDP decapsulates on {}", host.name), SOON, decap).unwrap();
    }
}

/// Waits until the containers of the first two hosts have talked in both versions, pair by pair, and are known. By
/// then the underlay's own addresses are past duplicate detection too.
pub(crate) fn settle(topology: &Topology) {
    settle_in(topology, &VERSIONS);
}

/// [`settle`], in the versions that are served.
pub(crate) fn settle_in(topology: &Topology, versions: &[Version]) {
    let (h1, h2) = (topology.h(1), topology.h(2));
    for &version in versions {
        for number in (1..).take(h1.containers.len()) {
            let (from, to) = (h1.c(number), version.ip(h2.c(number)));
            let answers = || ping(&from.ns, to, 1).is_ok_and(|ping| ping.clean());
            eventually(&format!("{version:?}: container {number} of h2 answers"), SOON, answers).unwrap();
            let known = || version.is_known(h1, number) && version.is_known(h2, number);
            eventually(&format!("{version:?}: endpoints {number} are known"), SOON, known).unwrap();
        }
    }
}

/// A container as an end of traffic.
pub(crate) fn end(host: &Host, number: u32, version: Version) -> Endpoint<'_, IpAddr> {
    let container = host.c(number);
    Endpoint { ns: &container.ns, ip: version.ip(container) }
}

/// Datagrams both ways in both versions, between the first containers of the first two hosts.
pub(crate) struct Probes([Probe; 2]);

impl Probes {
    pub(crate) fn start(topology: &Topology) -> Self {
        Self(VERSIONS.map(|version| {
            let (a, b) = (end(topology.h(1), 1, version), end(topology.h(2), 1, version));
            Probe::start(a, b, RATE, Duration::from_secs(120)).unwrap()
        }))
    }

    /// Everything has arrived, once. Returns how much: from the first host to the second and back, by version.
    pub(crate) fn clean(self) -> [(u64, u64); 2] {
        for probe in &self.0 {
            // However fast all else was, traffic ran for a while, and runs still.
            let until = probe.arrived() + 200;
            eventually("valid traffic flows", SOON, || probe.arrived() >= until).unwrap();
        }
        let reports = self.0.map(|probe| probe.finish().unwrap());
        for (report, version) in reports.iter().zip(VERSIONS) {
            assert!(report.forth.sent > 100 && report.clean(), "valid traffic, {version:?}: {report}");
        }
        reports.map(|report| (report.forth.sent, report.back.sent))
    }
}

/// No host has dropped anything.
pub(crate) fn no_drops(topology: &Topology) {
    for host in &topology.hosts {
        let drops = host.overlayd().drops().unwrap();
        assert!(drops.is_empty(), "on {}: {drops:?}", host.name);
    }
}

/// The MTU of the kernel's route to a subnet, as the slow path has it.
pub(crate) fn route_mtu(host: &Host, subnet: &str) -> Option<u64> {
    let family = if subnet.contains(':') { "-6" } else { "-4" };
    let said = host.ns.ip(&format!("{family} -j route show {subnet} proto 79")).unwrap().stdout;
    let routes: serde_json::Value = serde_json::from_str(&said).ok()?;
    routes[0]["metrics"][0]["mtu"].as_u64()
}
