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

/// A key as etcd tells of it.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
    /// The revision at which the key came to be.
    pub(super) created: i64,
}

impl From<KeyValue> for Entry {
    fn from(pair: KeyValue) -> Self {
        let created = pair.create_revision();
        let (key, value) = pair.into_key_value();
        Self { key, value, created }
    }
}

/// What happened to a key.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Put(Entry),
    Delete(Vec<u8>),
}

impl Event {
    pub(super) fn of(event: &etcd_client::Event) -> Option<Self> {
        let pair = event.kv()?;
        Some(match event.event_type() {
            EventType::Put => Self::Put(pair.clone().into()),
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
    prefix: &'a str,
    warnings: &'a Warnings,
    good: BTreeMap<Arc<[u8]>, Claim>,
    /// Who claims each subnet, by age; keys of one transaction are of one age. One set of all: a set for each would be
    /// most of what this takes.
    claimants: BTreeSet<(IpNet, i64, Arc<[u8]>)>,
    /// What was reported.
    peers: BTreeMap<IpNet, PeerSubnet>,
}

impl<'a> Fold<'a> {
    /// Nothing known yet of the keys under `prefix`.
    pub(super) fn new(prefix: &'a str, warnings: &'a Warnings) -> Self {
        let (good, claimants, peers) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
        Self { prefix, warnings, good, claimants, peers }
    }

    /// Takes a complete list: keys that are not in it are gone.
    pub(super) fn replace(&mut self, entries: Vec<Entry>) -> &BTreeMap<IpNet, PeerSubnet> {
        let present: HashSet<&[u8]> = entries.iter().map(|entry| &entry.key[..]).collect();
        let gone: Vec<_> = self.good.keys().filter(|key| !present.contains(&key[..])).cloned().collect();
        let mut touched: BTreeSet<IpNet> = self.warnings.contested().into_iter().collect();
        for key in gone {
            self.remove(&key, &mut touched);
        }
        self.warnings.keep(&present);
        for entry in entries {
            self.absorb(entry, &mut touched);
        }
        for subnet in touched {
            self.settle(subnet);
        }
        &self.peers
    }

    /// Takes what one message tells; what it changes, if anything. A host that replaces its key with another
    /// does so in one transaction, and its events come in one message: only where they lead to counts.
    pub(super) fn apply(&mut self, events: impl IntoIterator<Item = Event>) -> Vec<Update> {
        let mut touched = BTreeSet::new();
        for event in events {
            match event {
                Event::Put(entry) => self.absorb(entry, &mut touched),
                Event::Delete(key) => {
                    self.warnings.forget(&key);
                    self.remove(&key, &mut touched);
                }
            }
        }
        touched.into_iter().filter_map(|subnet| self.settle(subnet)).collect()
    }

    fn name<'k>(&self, key: &'k [u8]) -> Result<&'k str, String> {
        key.strip_prefix(self.prefix.as_bytes())
            .and_then(|name| str::from_utf8(name).ok())
            .ok_or_else(|| "the key is no UTF-8 text: a subnet like 10.5.52.0-24 is expected".into())
    }

    fn absorb(&mut self, entry: Entry, touched: &mut BTreeSet<IpNet>) {
        let Entry { key, value, created } = entry;
        match self.name(&key).and_then(|name| schema::parse_lease(name, &value)) {
            Ok(schema::Lease::Peer(peers)) => {
                self.warnings.settle(&key);
                self.remove(&key, touched);
                let key: Arc<[u8]> = key.into();
                for peer in &peers {
                    touched.insert(peer.subnet);
                    self.claimants.insert((peer.subnet, created, Arc::clone(&key)));
                }
                self.good.insert(key, Claim { created, peers: peers.into() });
            }
            Ok(schema::Lease::Ignored(why)) => {
                self.remove(&key, touched);
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

    fn remove(&mut self, key: &[u8], touched: &mut BTreeSet<IpNet>) {
        let Some((key, Claim { created, peers })) = self.good.remove_entry(key) else { return };
        for PeerSubnet { subnet, .. } in peers {
            touched.insert(subnet);
            self.claimants.remove(&(subnet, created, Arc::clone(&key)));
        }
    }

    /// The keys that claim a subnet, the oldest first.
    fn claimants(&self, subnet: IpNet) -> impl Iterator<Item = &[u8]> {
        let first = (subnet, i64::MIN, Arc::from([]));
        let of_subnet = self.claimants.range(first..).take_while(move |(of, ..)| *of == subnet);
        of_subnet.map(|(.., key)| &key[..])
    }

    /// Compares what a subnet is now with what was reported of it.
    fn settle(&mut self, subnet: IpNet) -> Option<Update> {
        self.warnings.contest(subnet, self.contest(subnet));
        let peer = self.claimants(subnet).next().and_then(|key| self.peer(key, subnet)).cloned();
        match peer {
            Some(peer) if self.peers.get(&subnet) == Some(&peer) => None,
            Some(peer) => {
                self.peers.insert(subnet, peer.clone());
                Some(Update::Put(peer))
            }
            None => self.peers.remove(&subnet).map(|_| Update::Delete(subnet)),
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
