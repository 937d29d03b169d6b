//! Two hosts of one setting, with the containers of all pairs.

use std::{net::Ipv4Addr, time::Duration};

use harness::{
    Netns, Topology, container::Container, eventually, tcx, topology::StoreKind, traffic::ping,
    wire::WireKind,
};

use crate::expected::{PAIRS, Row, Setting, row_of};

const SOON: Duration = Duration::from_secs(10);

/// The hosts.
pub(crate) struct Bed {
    pub(crate) setting: Setting,
    pub(crate) topology: Topology,
}

/// From one container to another on the other host.
pub(crate) struct Lane<'a> {
    pub(crate) name: String,
    pub(crate) row: Row,
    pub(crate) from: &'a Container,
    pub(crate) to: &'a Container,
    /// Who speaks up when a packet is too large.
    pub(crate) gateway: Ipv4Addr,
}

impl Bed {
    pub(crate) fn up(setting: Setting) -> Self {
        let wire = setting.router.map_or(WireKind::Bridge, |narrow| WireKind::Routed { narrow });
        let builder = Topology::builder().store(StoreKind::Peers).wire(wire).uplink_mtu(setting.uplink);
        let mut topology = builder.containers(0).up().unwrap();
        for (number, (first, second)) in (1..).zip(PAIRS) {
            topology.h_mut(1).start_container(number, first).unwrap();
            topology.h_mut(2).start_container(number, second).unwrap();
        }
        let bed = Self { setting, topology };
        if setting.cut {
            bed.cut();
        }
        bed.settle();
        bed
    }

    /// All pairs, both ways.
    pub(crate) fn lanes(&self) -> Vec<Lane<'_>> {
        let both = |number| [(1, 2), (2, 1)].map(|(here, there)| self.lane(number, here, there));
        (1..).zip(PAIRS).flat_map(|(number, _)| both(number)).collect()
    }

    /// From the container of this number on one host to its partner.
    pub(crate) fn lane(&self, number: u32, here: usize, there: usize) -> Lane<'_> {
        let (first, second) = PAIRS[number as usize - 1];
        let (from_mtu, to_mtu) = if here == 1 { (first, second) } else { (second, first) };
        let (from, to) = (self.topology.h(here), self.topology.h(there));
        Lane {
            name: format!("{}, container {from_mtu} on h{here} to {to_mtu}", self.setting.name),
            row: row_of(&self.setting, from_mtu, to_mtu),
            from: from.c(number),
            to: to.c(number),
            gateway: from.bridge.ip,
        }
    }

    /// The wire's namespace.
    pub(crate) fn wire(&self) -> &Netns {
        self.topology.wire.ns().unwrap()
    }

    /// Uplinks as those without offloads: packets on the wire instead of aggregates, put together again on arrival.
    fn cut(&self) {
        let off = ["tso", "off", "gso", "off", "tx-udp_tnl-segmentation", "off", "gro", "on"];
        for host in &self.topology.hosts {
            host.ns.cmd("ethtool").args(["-K", "eth0"]).args(off).check().unwrap();
        }
    }

    /// Every port has its program, and every pair has talked, in packets that fit everywhere.
    fn settle(&self) {
        for host in &self.topology.hosts {
            let attached = |all: &[tcx::Attachment], port: &str| all.iter().any(|a| a.ifname == port);
            let all_attached = || {
                let all = tcx::attachments_in(&host.ns).unwrap_or_default();
                host.containers.iter().all(|c| attached(&all, &c.port))
            };
            eventually("every port has its program", SOON, all_attached).unwrap();
        }
        for lane in self.lanes() {
            let answers = || ping(&lane.from.ns, lane.to.ip, 1).is_ok_and(|ping| ping.clean());
            eventually(&format!("{}: a ping is answered", lane.name), SOON, answers).unwrap();
        }
        let known = |host: &harness::host::Host| {
            let known = |c: &Container| matches!(host.overlayd().endpoint(c.ip), Ok(Some(_)));
            host.containers.iter().all(known)
        };
        for host in &self.topology.hosts {
            eventually("every endpoint is known", SOON, || known(host)).unwrap();
        }
    }

    /// Packets that overlayd dropped, by host and reason.
    pub(crate) fn drops(&self) -> Vec<String> {
        let of = |host: &harness::host::Host| {
            let drops = host.overlayd().drops().unwrap();
            let line = |(reason, count): (String, u64)| {
                format!("{}, {}: {count} packets dropped as {reason}", self.setting.name, host.name)
            };
            drops.into_iter().map(line).collect::<Vec<_>>()
        };
        self.topology.hosts.iter().flat_map(of).collect()
    }
}

impl Lane<'_> {
    /// The sender forgets what it was told of any path's MTU.
    pub(crate) fn forget(&self) {
        for container in [self.from, self.to] {
            container.ns.sysctl("ipv4/route/flush", "1").unwrap();
        }
    }
}
