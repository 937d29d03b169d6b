//! Keeps up with the host's netfilter: looks whenever the kernel says that its rules are others, and whenever bridges,
//! ports or peers are.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net};
use tokio::{
    task::{JoinError, JoinHandle},
    time::Instant,
};

use super::{Daemon, Dirty, notes::Source};
use crate::{
    netfilter::{Bridge, Findings, Kernel, Reading, Sign, Surroundings, look, read},
    netlink::Link,
};

/// How often the rules are read where the kernel does not tell that they have changed: the older ip_tables and ebtables.
const LEGACY: Duration = Duration::from_secs(10);

/// What is known of netfilter.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// `None` until it is needed, and where the kernel has no nfnetlink.
    kernel: Option<Kernel>,
    /// The state of the kernel that `reading` is of.
    sign: Option<Sign>,
    read_at: Option<Instant>,
    reading: Reading,
    around: Surroundings,
    /// The names of the ports of each bridge.
    ports: BTreeMap<u32, BTreeSet<String>>,
    /// Whether `around` may be another by now.
    stale: bool,
    /// A look that goes on.
    looking: Option<JoinHandle<Result<(Reading, Findings), JoinError>>>,
    /// The bridges between whose ports packets may go directly.
    local: BTreeSet<u32>,
}

impl Watch {
    /// The bridges between whose ports nothing filters or rewrites.
    pub(super) fn local(&self) -> &BTreeSet<u32> {
        &self.local
    }

    /// Links, bridges or peers may be others.
    pub(super) fn surroundings_changed(&mut self) {
        self.stale = true;
    }

    /// Notes whose ports there are.
    pub(super) fn follow(&mut self, links: &[Link]) {
        self.ports.clear();
        for link in links {
            if let Some(master) = link.master {
                self.ports.entry(master).or_default().insert(link.name.clone());
            }
        }
    }

    /// Begins to look where something has changed. Reads the rules only where they may be others.
    fn begin(&mut self, around: Option<Surroundings>) {
        if self.kernel.is_none() {
            self.kernel = Kernel::open().ok();
        }
        let sign = self.kernel.as_ref().map(Kernel::sign);
        let legacy = sign.as_ref().is_none_or(Sign::is_blind);
        let old = self.read_at.is_none_or(|at| at.elapsed() >= LEGACY);
        let reread = self.read_at.is_none() || sign != self.sign || (legacy && old);
        let moved = around.as_ref().is_some_and(|around| *around != self.around);
        if !reread && !moved {
            return;
        }
        self.around = around.unwrap_or_else(|| std::mem::take(&mut self.around));
        let reading = if reread { None } else { Some(self.reading.clone()) };
        if reread {
            // The sign is of before: what changes while the tools run is another sign the next time.
            (self.sign, self.read_at) = (sign, Some(Instant::now()));
        }
        self.looking = Some(tokio::spawn(investigate(reading, self.around.clone())));
    }

    fn is_looking(&self) -> bool {
        self.looking.is_some()
    }

    /// Waits until a look is over; for ever where none goes on.
    pub(super) async fn finished(&mut self) -> Option<Findings> {
        let Some(task) = self.looking.as_mut() else { return std::future::pending().await };
        let result = task.await;
        self.looking = None;
        match result {
            Ok(Ok((reading, findings))) => {
                self.reading = reading;
                Some(findings)
            }
            // It panicked or was ended: everything is looked at again.
            Ok(Err(_)) | Err(_) => {
                self.read_at = None;
                None
            }
        }
    }
}

async fn investigate(
    reading: Option<Reading>,
    around: Surroundings,
) -> Result<(Reading, Findings), JoinError> {
    let reading = match reading {
        Some(reading) => reading,
        None => read().await,
    };
    // Thousands of rules and peers take a while.
    let looked = tokio::task::spawn_blocking(move || {
        let findings = look(&reading, &around);
        (reading, findings)
    });
    looked.await
}

impl Daemon {
    /// Looks where something may have changed.
    pub(super) fn watch_netfilter(&mut self) {
        if !self.netfilter.is_looking() {
            let around = std::mem::take(&mut self.netfilter.stale).then(|| self.surroundings());
            self.netfilter.begin(around);
        }
    }

    /// Takes in what a look has found.
    pub(super) fn take_findings(&mut self, findings: Option<Findings>, dirty: &mut Dirty) {
        let Some(findings) = findings else { return };
        self.note(Source::Netfilter, findings.notes);
        if self.netfilter.local != findings.local {
            self.netfilter.local = findings.local;
            dirty.links = true;
        }
    }

    fn surroundings(&self) -> Surroundings {
        let bridge = |bridge: &crate::local::Bridge| {
            let ports = self.netfilter.ports.get(&bridge.index).cloned().unwrap_or_default();
            (bridge.index, Bridge { name: bridge.name.clone(), address: bridge.address, ports })
        };
        Surroundings {
            bridges: self.local.bridges.iter().map(bridge).collect(),
            uplinks: self.local.uplinks.iter().map(|uplink| uplink.name.clone()).collect(),
            peers: self.peer_subnets(),
            mtu: self.local.mtu,
        }
    }

    /// Of all peers, those with one prefix in common as one.
    fn peer_subnets(&self) -> Vec<Ipv4Net> {
        let own: BTreeSet<Ipv4Net> = self.local.bridges.iter().map(|bridge| bridge.address.trunc()).collect();
        let subnets = self.records.iter().flat_map(|records| records.by_subnet().keys());
        let subnets = subnets.filter_map(|subnet| match subnet {
            IpNet::V4(subnet) => Some(*subnet),
            IpNet::V6(_) => None,
        });
        Ipv4Net::aggregate(&subnets.filter(|subnet| !own.contains(subnet)).collect())
    }
}
