//! Changes of the store, a hundred a second, and how long each takes into the maps.

use std::{
    path::Path,
    sync::mpsc::{self, Receiver, Sender, TryRecvError},
    thread::{self, sleep},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use etcd_client::Client;
use harness::Netns;
use tokio::{task::JoinSet, time::sleep_until};

use super::{
    client,
    maps::{LOOK, Watched},
    peers::{Peer, Reached, Table},
};

/// Between two changes.
const EVERY: Duration = Duration::from_millis(10);
/// A change that is not in the maps after this time is lost.
const LIMIT: Duration = Duration::from_secs(30);

/// What is done to a key.
#[derive(Clone, Copy, Debug)]
struct Change {
    peer: Peer,
    gone: bool,
}

/// A change that etcd has taken.
struct Taken {
    change: Change,
    answered: Instant,
}

/// Where the store is.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) ns: &'a Netns,
    pub(super) endpoint: &'a str,
    pub(super) prefix: &'a str,
}

/// What came of the changes.
pub(super) struct Latencies {
    /// Milliseconds from etcd's answer to the maps, in order; 0 where the maps were first.
    pub(super) sorted: Vec<f64>,
    /// Changes a second, as etcd took them.
    pub(super) rate: f64,
}

impl Latencies {
    /// The latency that this share of the changes does not exceed.
    pub(super) fn quantile(&self, share: f64) -> f64 {
        let rank = (self.sorted.len() as f64 * share).ceil() as usize;
        self.sorted.get(rank.max(1) - 1).copied().unwrap_or(f64::NAN)
    }
}

/// Makes changes for so many seconds.
pub(super) fn run(
    place: Place<'_>,
    pin_dir: &Path,
    table: Table,
    peers: u32,
    seconds: u32,
) -> Result<Latencies> {
    let changes = changes(table, peers, seconds * 100);
    let maps = Watched::open(pin_dir)?;
    let (taken, looks) = mpsc::channel();
    thread::scope(|scope| {
        let watching = scope.spawn(move || watch(&maps, &looks));
        let rate = client::inside(place.ns, async || make(place, changes, taken).await);
        let sorted = watching.join().map_err(|_| anyhow::anyhow!("the watch of the maps panicked"))??;
        Ok(Latencies { sorted, rate: rate? })
    })
}

/// New peers, other MAC addresses, subnets that move to another peer, peers that go. No key twice: each change is seen
/// for itself.
fn changes(table: Table, peers: u32, count: u32) -> Vec<Change> {
    let scattered = |number: u32| (number * 7919) % peers;
    let change = |number: u32| {
        let peer = Peer::new(table, scattered(number));
        match number % 4 {
            0 => Change { peer: Peer::new(table, peers + number), gone: false },
            1 => Change { peer: Peer { mac: 1, ..peer }, gone: false },
            2 => Change { peer: Peer { host: scattered(number + count), ..peer }, gone: false },
            _ => Change { peer, gone: true },
        }
    };
    (0..count).map(change).collect()
}

/// Makes the changes at their times; tells of each when etcd has answered. Returns the rate.
async fn make(place: Place<'_>, changes: Vec<Change>, taken: Sender<Taken>) -> Result<f64> {
    let client = client::connect(place.endpoint).await?;
    let (count, began) = (changes.len(), tokio::time::Instant::now());
    let mut under_way = JoinSet::new();
    for (number, change) in (0..).zip(changes) {
        harness::interrupt::check()?;
        sleep_until(began + EVERY * number).await;
        under_way.spawn(one(client.clone(), change, change.peer.key(place.prefix), taken.clone()));
    }
    while let Some(done) = under_way.join_next().await {
        done.context("a change panicked")??;
    }
    Ok(count as f64 / began.elapsed().as_secs_f64())
}

async fn one(mut client: Client, change: Change, key: String, taken: Sender<Taken>) -> Result<()> {
    if change.gone {
        client.delete(key, None).await.context("cannot delete a key")?;
    } else {
        client.put(key, change.peer.value(), None).await.context("cannot put a key")?;
    }
    // Who watches ends only with an error of its own, which is told.
    let _ = taken.send(Taken { change, answered: Instant::now() });
    Ok(())
}

/// Looks until all changes that are told of are seen.
fn watch(maps: &Watched, taken: &Receiver<Taken>) -> Result<Vec<f64>> {
    let (mut waiting, mut latencies): (Vec<Taken>, _) = (Vec::new(), Vec::new());
    loop {
        let over = loop {
            match taken.try_recv() {
                Ok(change) => waiting.push(change),
                Err(TryRecvError::Empty) => break false,
                Err(TryRecvError::Disconnected) => break true,
            }
        };
        let mut left = Vec::new();
        for change in waiting {
            if is_seen(maps, change.change)? {
                latencies.push(change.answered.elapsed().as_secs_f64() * 1e3);
            } else if change.answered.elapsed() > LIMIT {
                bail!("{:?} is not in the maps after {LIMIT:?}", change.change);
            } else {
                left.push(change);
            }
        }
        waiting = left;
        if over && waiting.is_empty() {
            latencies.sort_by(f64::total_cmp);
            return Ok(latencies);
        }
        sleep(LOOK);
    }
}

fn is_seen(maps: &Watched, change: Change) -> Result<bool> {
    let mut all = true;
    for reached in change.peer.reached() {
        let seen = |reached: &Reached| if change.gone { maps.is_gone(reached) } else { maps.leads(reached) };
        all &= seen(&reached)?;
    }
    Ok(all)
}
