//! Keys and values folded into peers. A malformed value keeps its key's last good state in force; each
//! trouble is said once, however often the key is listed again.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use ipnet::Ipv4Net;

use crate::store::{PeerSubnet, Update, schema};

/// What was said about which key, for as long as it holds.
#[derive(Debug, Default)]
pub(super) struct Warnings(Mutex<HashMap<Vec<u8>, String>>);

impl Warnings {
    fn said(&self) -> MutexGuard<'_, HashMap<Vec<u8>, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, key: &[u8], trouble: String, effect: &str) {
        let known = self.said().insert(key.to_vec(), trouble.clone());
        if known.as_ref() != Some(&trouble) {
            tracing::warn!("etcd key {}: {trouble}; {effect}", shown(key));
        }
    }

    fn settle(&self, key: &[u8]) {
        if self.said().remove(key).is_some() {
            tracing::info!("etcd key {} is in order now", shown(key));
        }
    }

    fn forget(&self, key: &[u8]) {
        self.said().remove(key);
    }
}

/// A key for a message, control characters escaped.
fn shown(key: &[u8]) -> String {
    String::from_utf8_lossy(key).escape_debug().to_string()
}

/// The state that a run of events leads to.
pub(super) struct Fold<'a> {
    subnets: &'a str,
    warnings: &'a Warnings,
    /// The last good state of every key there is.
    good: BTreeMap<Vec<u8>, PeerSubnet>,
    /// What was reported. Two keys may name one subnet, with and without an IPv6 part: the first in byte
    /// order counts.
    peers: BTreeMap<Ipv4Net, PeerSubnet>,
}

impl<'a> Fold<'a> {
    /// Nothing known yet of the keys under `subnets`.
    pub(super) fn new(subnets: &'a str, warnings: &'a Warnings) -> Self {
        Self { subnets, warnings, good: BTreeMap::new(), peers: BTreeMap::new() }
    }

    /// Takes a complete list: keys that are not in it are gone.
    pub(super) fn replace(&mut self, pairs: Vec<(Vec<u8>, Vec<u8>)>) -> &BTreeMap<Ipv4Net, PeerSubnet> {
        {
            let present: HashSet<&[u8]> = pairs.iter().map(|(key, _)| key.as_slice()).collect();
            self.good.retain(|key, _| present.contains(key.as_slice()));
            self.warnings.said().retain(|key, _| present.contains(key.as_slice()));
        }
        for (key, value) in pairs {
            self.absorb(key, &value);
        }
        self.peers.clear();
        for peer in self.good.values() {
            self.peers.entry(peer.subnet).or_insert_with(|| peer.clone());
        }
        &self.peers
    }

    /// Takes a key that was written; what it changes, if anything.
    pub(super) fn put(&mut self, key: &[u8], value: &[u8]) -> Option<Update> {
        self.absorb(key.to_vec(), value);
        self.settle(key)
    }

    /// Takes a key that was deleted; what it changes, if anything.
    pub(super) fn delete(&mut self, key: &[u8]) -> Option<Update> {
        self.warnings.forget(key);
        self.good.remove(key);
        self.settle(key)
    }

    fn name<'k>(&self, key: &'k [u8]) -> Result<&'k str, String> {
        key.strip_prefix(self.subnets.as_bytes())
            .and_then(|name| str::from_utf8(name).ok())
            .ok_or_else(|| "the key is no UTF-8 text: a subnet like 10.5.52.0-24 is expected".into())
    }

    fn absorb(&mut self, key: Vec<u8>, value: &[u8]) {
        match self.name(&key).and_then(|name| schema::parse_lease(name, value)) {
            Ok(schema::Lease::Peer(peer)) => {
                self.warnings.settle(&key);
                self.good.insert(key, peer);
            }
            Ok(schema::Lease::Ignored(why)) => {
                self.good.remove(&key);
                self.warnings.say(&key, why, "the peer is ignored");
            }
            Err(why) => {
                let effect = match self.good.get(&key) {
                    Some(peer) => {
                        format!("its last good state, {} at {}, stays in force", peer.subnet, peer.public_ip)
                    }
                    None => "it is ignored until it is corrected or deleted".into(),
                };
                self.warnings.say(&key, why, &effect);
            }
        }
    }

    /// Compares what a key's subnet is now with what was reported of it.
    fn settle(&mut self, key: &[u8]) -> Option<Update> {
        let subnet = schema::parse_subnet_name(self.name(key).ok()?).ok()?;
        let base = [self.subnets.as_bytes(), format!("{}-{}", subnet.addr(), subnet.prefix_len()).as_bytes()]
            .concat();
        let peer = self
            .good
            .range(base.clone()..)
            .take_while(|(key, _)| key.starts_with(&base))
            .map(|(_, peer)| peer)
            .find(|peer| peer.subnet == subnet);
        match peer {
            Some(peer) if self.peers.get(&subnet) == Some(peer) => None,
            Some(peer) => {
                self.peers.insert(subnet, peer.clone());
                Some(Update::Put(peer.clone()))
            }
            None => self.peers.remove(&subnet).map(|_| Update::Delete(subnet)),
        }
    }
}

#[cfg(test)]
mod tests;
