//! Keys and values folded into peers. A malformed value keeps its key's last good state in force. Where
//! several keys claim a subnet, the one that was created first has it: every host sees the same order, and
//! nobody who comes later takes a route away.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use etcd_client::{EventType, KeyValue};
use ipnet::IpNet;

use super::warnings::{Warnings, shown};
use crate::{
    store::{PeerSubnet, Update, schema},
    underlay::Underlay,
};

/// A key as etcd tells of it, its value read: ten thousand of them are less so than as text.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: Vec<u8>,
    lease: Result<schema::Lease, String>,
    /// The revision at which the key came to be.
    created: i64,
}

impl Entry {
    /// Reads a key under `prefix`.
    pub(super) fn read(prefix: &str, key: Vec<u8>, value: &[u8], created: i64) -> Self {
        let name = key.strip_prefix(prefix.as_bytes()).and_then(|name| str::from_utf8(name).ok());
        let name = name.ok_or("the key is no UTF-8 text: a subnet like 10.5.52.0-24 is expected");
        let lease = name.map_err(str::to_owned).and_then(|name| schema::parse_lease(name, value));
        Self { key, lease, created }
    }

    /// As [`Self::read`], as it stands in an answer.
    pub(super) fn of(prefix: &str, pair: KeyValue) -> Self {
        let created = pair.create_revision();
        let (key, value) = pair.into_key_value();
        Self::read(prefix, key, &value, created)
    }
}

/// What happened to a key.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Put(Entry),
    Delete(Vec<u8>),
}

impl Event {
    pub(super) fn of(prefix: &str, event: &etcd_client::Event) -> Option<Self> {
        let pair = event.kv()?;
        Some(match event.event_type() {
            EventType::Put => Self::Put(Entry::of(prefix, pair.clone())),
            EventType::Delete => Self::Delete(pair.key().to_vec()),
        })
    }
}

/// The last good state of a key: one or two subnets of one host.
struct Claim {
    created: i64,
    peers: Box<[PeerSubnet]>,
}

/// The state that a run of events leads to.
pub(super) struct Fold<'a> {
    warnings: &'a Warnings,
    good: BTreeMap<Arc<[u8]>, Claim>,
    /// Who claims each subnet, by age; keys of one transaction are of one age. One set of all: a set for each would be
    /// most of what this takes.
    claimants: BTreeSet<(IpNet, i64, Arc<[u8]>)>,
}

/// The subnets that changes may concern, with what was so before.
type Before = BTreeMap<IpNet, Option<PeerSubnet>>;

impl<'a> Fold<'a> {
    /// Nothing known yet.
    pub(super) fn new(warnings: &'a Warnings) -> Self {
        Self { warnings, good: BTreeMap::new(), claimants: BTreeSet::new() }
    }

    /// Takes a complete list: keys that are not in it are gone. Returns what is so now.
    pub(super) fn replace(&mut self, entries: Vec<Entry>) -> BTreeMap<IpNet, PeerSubnet> {
        let present: HashSet<&[u8]> = entries.iter().map(|entry| &entry.key[..]).collect();
        let gone: Vec<_> = self.good.keys().filter(|key| !present.contains(&key[..])).cloned().collect();
        let mut before = Before::new();
        for subnet in self.warnings.contested() {
            self.touch(subnet, &mut before);
        }
        for key in gone {
            self.remove(&key, &mut before);
        }
        self.warnings.keep(&present);
        for entry in entries {
            self.absorb(entry, &mut before);
        }
        for subnet in before.into_keys() {
            self.warnings.contest(subnet, self.contest(subnet));
        }
        self.peers()
    }

    /// Takes what one message tells; what it changes, if anything. A host that replaces its key with another
    /// does so in one transaction, and its events come in one message: only where they lead to counts.
    pub(super) fn apply(&mut self, events: impl IntoIterator<Item = Event>) -> Vec<Update> {
        let mut before = Before::new();
        for event in events {
            match event {
                Event::Put(entry) => self.absorb(entry, &mut before),
                Event::Delete(key) => {
                    self.warnings.forget(&key);
                    self.remove(&key, &mut before);
                }
            }
        }
        before.into_iter().filter_map(|(subnet, before)| self.settle(subnet, before)).collect()
    }

    fn absorb(&mut self, entry: Entry, before: &mut Before) {
        let Entry { key, lease, created } = entry;
        match lease {
            Ok(schema::Lease::Peer(peers)) => {
                self.warnings.settle(&key);
                let known = self.good.get(&key[..]);
                if known.is_some_and(|known| known.created == created && *known.peers == *peers) {
                    return;
                }
                self.remove(&key, before);
                let key: Arc<[u8]> = key.into();
                for peer in &peers {
                    self.touch(peer.subnet, before);
                    self.claimants.insert((peer.subnet, created, Arc::clone(&key)));
                }
                self.good.insert(key, Claim { created, peers: peers.into() });
            }
            Ok(schema::Lease::Reserved) => {
                self.warnings.settle(&key);
                self.remove(&key, before);
            }
            Ok(schema::Lease::Ignored(why)) => {
                self.remove(&key, before);
                self.warnings.say(&key, why, "the peer is ignored");
            }
            Err(why) => {
                let effect = match self.good.get(&key[..]).and_then(|claim| claim.peers.split_first()) {
                    Some((first, more)) => {
                        let subnets = more
                            .iter()
                            .fold(first.subnet.to_string(), |text, peer| format!("{text}, {}", peer.subnet));
                        format!("its last good state, {subnets} at {}, stays in force", first.host)
                    }
                    None => "it is ignored until it is corrected or deleted".into(),
                };
                self.warnings.say(&key, why, &effect);
            }
        }
    }

    fn remove(&mut self, key: &[u8], before: &mut Before) {
        let Some(claim) = self.good.get(key) else { return };
        let subnets: Vec<IpNet> = claim.peers.iter().map(|peer| peer.subnet).collect();
        subnets.iter().for_each(|subnet| self.touch(*subnet, before));
        let Some((key, Claim { created, .. })) = self.good.remove_entry(key) else { return };
        for subnet in subnets {
            self.claimants.remove(&(subnet, created, Arc::clone(&key)));
        }
    }

    /// Notes what is so, before it changes.
    fn touch(&self, subnet: IpNet, before: &mut Before) {
        before.entry(subnet).or_insert_with(|| self.first(subnet).cloned());
    }

    /// The keys that claim a subnet, the oldest first.
    fn claimants(&self, subnet: IpNet) -> impl Iterator<Item = &[u8]> {
        let first = (subnet, i64::MIN, Arc::from([]));
        let of_subnet = self.claimants.range(first..).take_while(move |(of, ..)| *of == subnet);
        of_subnet.map(|(.., key)| &key[..])
    }

    /// Who has a subnet.
    fn first(&self, subnet: IpNet) -> Option<&PeerSubnet> {
        self.claimants(subnet).next().and_then(|key| self.peer(key, subnet))
    }

    /// Who has each subnet.
    fn peers(&self) -> BTreeMap<IpNet, PeerSubnet> {
        let mut peers = BTreeMap::new();
        for (subnet, _, key) in &self.claimants {
            // The first is the oldest.
            if let Some(peer) = self.peer(key, *subnet).filter(|_| !peers.contains_key(subnet)) {
                peers.insert(*subnet, peer.clone());
            }
        }
        peers
    }

    /// Compares what a subnet is now with what was so before.
    fn settle(&self, subnet: IpNet, before: Option<PeerSubnet>) -> Option<Update> {
        self.warnings.contest(subnet, self.contest(subnet));
        match self.first(subnet) {
            peer if peer == before.as_ref() => None,
            Some(peer) => Some(Update::Put(peer.clone())),
            None => Some(Update::Delete(subnet)),
        }
    }

    fn peer(&self, key: &[u8], subnet: IpNet) -> Option<&PeerSubnet> {
        self.good.get(key)?.peers.iter().find(|peer| peer.subnet == subnet)
    }

    /// What is wrong where more than one key claims a subnet.
    fn contest(&self, subnet: IpNet) -> Option<String> {
        let mut claimants = self.claimants(subnet).filter_map(|key| {
            let host: Underlay = self.peer(key, subnet)?.host;
            Some(format!("{} of host {host}", shown(key)))
        });
        let first = claimants.next()?;
        let others: Vec<String> = claimants.collect();
        (!others.is_empty()).then(|| {
            format!(
                "subnet {subnet} is claimed by several etcd keys: {first} was there first and counts, {} waits; \
                 delete the one that is wrong",
                others.join(" and ")
            )
        })
    }
}

#[cfg(test)]
mod tests;
