//! Two hosts under a probe, and what has to be in order on the one whose daemon is killed.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::PathBuf,
    time::Duration,
};

use harness::{
    Topology, binaries, eventually,
    host::Host,
    process::Cmd,
    tcx::{self, Attachment},
    topology::ETCD_PREFIX,
    traffic::{Endpoint, Probe, ping},
    two_hosts,
};
use overlay_user::datapath::pin::Pins;

pub(crate) const SOON: Duration = Duration::from_secs(10);

/// The steps of a start, in their order.
pub(crate) const STEPS: [&str; 20] = [
    "host",
    "network",
    "subnets",
    "survey",
    "programs",
    "node",
    "settings",
    "links",
    "tunnels",
    "ports",
    "decap",
    "takeover",
    "claim",
    "observe",
    "ways",
    "maps",
    "kernel routes",
    "routes",
    "surroundings",
    "announced",
];

/// Where the next build is, if it was made.
pub(crate) fn next() -> Option<PathBuf> {
    env::var_os(binaries::NEXT_DIR_VARIABLE).map(PathBuf::from)
}

/// Links by device and hook.
type Links = BTreeSet<(String, tcx::Direction, u32)>;

pub(crate) struct Bed {
    pub(crate) topology: Topology,
    /// Host 1's links, as they were first: they are given new programs and never replaced.
    links: Links,
    /// The keys of peers nobody is behind.
    peers: BTreeSet<u8>,
}

impl Bed {
    pub(crate) fn up() -> Self {
        let topology = two_hosts().unwrap();
        assert!(ping(&topology.h(1).c(1).ns, topology.h(2).c(1).ip, 2).unwrap().clean());
        let links = links(topology.h(1));
        Self { topology, links, peers: BTreeSet::new() }
    }

    pub(crate) fn probe(&self) -> Probe {
        let ends = [1, 2].map(|n| {
            let container = self.topology.h(n).c(1);
            Endpoint { ns: &container.ns, ip: container.ip }
        });
        Probe::start(ends[0], ends[1], 1000, Duration::from_secs(300)).unwrap()
    }

    /// A peer comes, or goes where it was there.
    pub(crate) fn toggle(&mut self, n: u8) {
        let key = format!("{ETCD_PREFIX}/subnets/10.50.{n}.0-24");
        if self.peers.remove(&n) {
            self.topology.etcd().del(&key).unwrap();
        } else {
            let value = format!(r#"{{"PublicIP":"172.16.199.{}","BackendType":"vxlan"}}"#, 100 + n % 100);
            self.topology.etcd().put(&key, &value).unwrap();
            self.peers.insert(n);
        }
    }

    /// Has the daemon of host 1 be of this build, and die after this step.
    pub(crate) fn prepare(&mut self, build: Option<PathBuf>, dies_after: Option<&str>) {
        let config = &mut self.topology.h_mut(1).overlayd_mut().config;
        config.build = build;
        config.env =
            dies_after.map(|step| ("OVERLAYD_DIE_AFTER".to_owned(), step.to_owned())).into_iter().collect();
    }

    /// Starts the daemon, and waits until it has died of itself.
    pub(crate) fn start_and_die(&mut self, step: &str) {
        let daemon = self.topology.h_mut(1).overlayd_mut();
        daemon.launch().unwrap();
        eventually(&format!("it dies after step `{step}`"), SOON, || !daemon.running())
            .unwrap_or_else(|error| panic!("{error}\n{}", daemon.log_tail(20)));
        assert!(daemon.kill9().is_some_and(|status| !status.success()), "it died of itself after `{step}`");
    }

    /// Starts the daemon and waits until it is ready: then everything is as it should be.
    pub(crate) fn start(&mut self) {
        self.topology.h_mut(1).overlayd_mut().start_again().unwrap();
        self.is_in_order();
    }

    pub(crate) fn is_in_order(&self) {
        let host = self.topology.h(1);
        let mut wanted: BTreeSet<String> = self.peers.iter().map(|n| format!("10.50.{n}.0/24")).collect();
        wanted.insert(self.topology.h(2).bridge.subnet());
        let known = || BTreeSet::from_iter(host.overlayd().routes().unwrap_or_default());
        eventually("its routes are those of the store", SOON, || known() == wanted)
            .unwrap_or_else(|error| panic!("{error}: {:?}", host.overlayd().routes()));
        assert_eq!(links(host), self.links, "links were replaced or left over");
        let (pinned, attached) = (pins(host).pinned_links().unwrap().len(), attachments(host).len());
        let layouts: Vec<_> = fs::read_dir(pins(host).root()).unwrap().flatten().collect();
        assert_eq!(layouts.len(), 1, "layouts are left: {layouts:?}");
        // The tests themselves are of this build's layout.
        if pins(host).is_here() {
            assert_eq!(pinned, attached, "pins of links");
        }
        assert_eq!(host.overlayd().drops().unwrap(), BTreeMap::new(), "nothing was dropped");
    }
}

pub(crate) fn pins(host: &Host) -> Pins {
    Pins::new(&host.overlayd().config.pin_dir)
}

pub(crate) fn attachments(host: &Host) -> Vec<Attachment> {
    tcx::attachments_in(&host.ns).unwrap()
}

fn links(host: &Host) -> Links {
    attachments(host).into_iter().map(|a| (a.ifname, a.direction, a.link)).collect()
}

/// The programs that were attached are gone, soon after others took their place.
pub(crate) fn are_gone(programs: impl IntoIterator<Item = u32>) {
    for program in programs {
        let gone = || {
            let shown = Cmd::new("bpftool").args(["prog", "show", "id", &program.to_string()]).run();
            shown.is_ok_and(|shown| shown.code != Some(0))
        };
        eventually(&format!("program {program} is gone"), SOON, gone).unwrap();
    }
}
