//! One round: a store, a daemon, a start, a rest, and changes.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use harness::{Netns, Topology, Versions, topology::ETCD_PREFIX};

use super::{
    Plan,
    changes::{self, Latencies, Place},
    client,
    maps::Watched,
    peers::{Peer, Reached, Table},
    process::{Memory, Process},
    start::Start,
};

/// How long a start may take before the round is given up.
const LIMIT: Duration = Duration::from_secs(120);
/// What a start sets off is over after this time: the first look at netfilter, and 10 s after it the first time that all is
/// read back, after which that takes one part in 200 of a CPU at most.
const SETTLE: Duration = Duration::from_secs(15);

/// What came out.
pub(super) struct Round {
    /// Milliseconds from etcd's first answer to the last route in the maps.
    pub(super) cold_start: f64,
    pub(super) start: Start,
    pub(super) after_start: Memory,
    /// Percent of one CPU.
    pub(super) at_rest: f64,
    pub(super) latencies: Latencies,
    /// Percent of one CPU, while changes were made.
    pub(super) at_work: f64,
    pub(super) after_changes: Memory,
    /// MiB of the kernel's memory.
    pub(super) maps: f64,
}

pub(super) fn run(plan: Plan, table: Table) -> Result<Round> {
    let versions = if table == Table::Dual { Versions::Both } else { Versions::V4 };
    let lab = Topology::builder().hosts(1).containers(0).without_overlayd();
    let mut lab = lab.versions(versions, table == Table::Dual).up()?;
    lay_roads(&lab.h(1).ns, table)?;
    let peers: Vec<Peer> = (0..plan.peers).map(|number| Peer::new(table, number)).collect();
    let endpoint = lab.etcd().endpoint();
    let store = Netns::borrow(lab.wire.ns().context("a bridge has a namespace")?.path());
    client::inside(&store, async || client::fill(&endpoint, ETCD_PREFIX, &peers).await)?;
    let mut reached: Vec<Reached> = peers.iter().flat_map(|peer| peer.reached()).collect();
    reached.sort_by_key(|reached| reached.subnet);
    let config = lab.overlayd_config(0);

    let complete = thread::scope(|scope| {
        let watching =
            scope.spawn(|| Watched::await_maps(&config.pin_dir, LIMIT)?.await_all(&reached, LIMIT));
        let started = lab.start_overlayd(0);
        let complete = watching.join().map_err(|_| anyhow!("the watch of the maps panicked"))?;
        started.and(complete)
    })?;
    let log = fs::read_to_string(&config.log).context("cannot read the daemon's log")?;
    let start = Start::of(&log)?;
    Watched::open(&config.pin_dir)?.check(&reached)?;
    let daemon =
        lab.h(1).overlayd.as_ref().and_then(|overlayd| overlayd.pid()).context("the daemon has ended")?;
    let daemon = Process::new(daemon);

    thread::sleep(SETTLE);
    let after_start = daemon.memory()?;
    let at_rest = busy(daemon, || {
        thread::sleep(Duration::from_secs(plan.seconds.into()));
        Ok(())
    })?;
    let place = Place { ns: &store, endpoint: &endpoint, prefix: ETCD_PREFIX };
    let mut latencies = None;
    let at_work = busy(daemon, || {
        latencies = Some(changes::run(place, &config.pin_dir, table, plan.peers, plan.seconds)?);
        Ok(())
    })?;
    Ok(Round {
        cold_start: complete.duration_since(start.answered).unwrap_or_default().as_secs_f64() * 1e3,
        start,
        after_start,
        at_rest,
        latencies: latencies.context("no changes were made")?,
        at_work,
        after_changes: daemon.memory()?,
        maps: daemon.map_memory()?,
    })
}

/// The hosts of the peers, which are nowhere, are on the wire as far as this host knows.
fn lay_roads(host: &Netns, table: Table) -> Result<()> {
    host.ip("route add 198.18.0.0/15 dev eth0")?;
    if table == Table::Dual {
        host.ip("-6 route add fd00:198::/64 dev eth0")?;
    }
    Ok(())
}

/// Percent of one CPU that a process takes meanwhile.
fn busy(process: Process, work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let (before, began) = (process.cpu()?, Instant::now());
    work()?;
    let took = process.cpu()?.saturating_sub(before);
    Ok(100.0 * took.as_secs_f64() / began.elapsed().as_secs_f64())
}
