//! What the daemon should make of the keys, by the documentation and not by the code: docs/operations.md, "Keys in etcd".

use std::collections::{BTreeMap, BTreeSet};

use overlay_common::Encap;

use crate::step::{NAMES, Value};

/// A row of `overlayctl routes`, behind its prefix.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Row {
    pub(crate) vni: u32,
    pub(crate) peer: String,
    pub(crate) encap: String,
}

/// What a key says now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Good(Value),
    /// It cannot be read.
    Spoiled,
}

/// A key that is there.
#[derive(Clone, Copy, Debug)]
struct Key {
    said: Said,
    /// Keys that were created earlier count where several claim a subnet.
    created: u64,
}

/// The keys, and what the daemon may have seen of them.
#[derive(Debug, Default)]
pub(crate) struct Model {
    keys: BTreeMap<usize, Key>,
    clock: u64,
    /// The last good value of each key, where nothing can have kept the daemon from seeing it.
    last_good: BTreeMap<usize, Value>,
    /// All values of each key that the daemon can have seen since it started.
    seen: BTreeMap<usize, Vec<Value>>,
    /// Whether it can have missed some of them.
    disturbed: bool,
}

impl Model {
    pub(crate) fn put(&mut self, name: usize, value: Value) {
        self.write(name, Said::Good(value));
        self.seen.entry(name).or_default().push(value);
        if value.encap.is_some() {
            self.last_good.insert(name, value);
        } else {
            // A peer of another network is none, and never was.
            self.last_good.remove(&name);
        }
    }

    pub(crate) fn spoil(&mut self, name: usize) {
        self.write(name, Said::Spoiled);
    }

    fn write(&mut self, name: usize, said: Said) {
        self.clock += 1;
        let created = self.clock;
        self.keys.entry(name).or_insert(Key { said, created }).said = said;
    }

    pub(crate) fn delete(&mut self, name: usize) {
        self.keys.remove(&name);
        self.last_good.remove(&name);
    }

    /// From now on the daemon may miss what happens in between.
    pub(crate) fn disturb(&mut self) {
        self.disturbed = true;
    }

    /// The daemon starts: it knows nothing that is not there.
    pub(crate) fn begin(&mut self) {
        self.seen.clear();
        self.last_good.clear();
        for (name, key) in &self.keys {
            if let Said::Good(value) = key.said {
                self.seen.insert(*name, vec![value]);
                self.last_good.insert(*name, value);
            }
        }
    }

    /// All that each subnet may lead to: one thing, unless the daemon may have missed something.
    pub(crate) fn allowed(&self) -> BTreeMap<String, BTreeSet<Option<Row>>> {
        let all = (0..NAMES.len()).flat_map(subnets);
        all.map(|subnet| (subnet.clone(), self.outcomes(&subnet))).collect()
    }

    fn outcomes(&self, subnet: &str) -> BTreeSet<Option<Row>> {
        let mut claimants: Vec<(usize, Key)> = self.keys.iter().map(|(name, key)| (*name, *key)).collect();
        claimants.retain(|(name, _)| subnets(*name).any(|claimed| claimed == subnet));
        claimants.sort_by_key(|(_, key)| key.created);
        let mut outcomes = BTreeSet::new();
        for (name, key) in claimants {
            match key.said {
                Said::Good(Value { encap: None, .. }) => {}
                Said::Good(value) => {
                    outcomes.insert(row(subnet, value));
                    return outcomes;
                }
                Said::Spoiled if self.disturbed => {
                    let seen = self.seen.get(&name).into_iter().flatten();
                    outcomes.extend(seen.map(|value| row(subnet, *value)));
                }
                Said::Spoiled => {
                    if let Some(value) = self.last_good.get(&name) {
                        outcomes.insert(row(subnet, *value));
                        return outcomes;
                    }
                }
            }
        }
        outcomes.insert(None);
        outcomes
    }
}

/// The subnets that a key names.
pub(crate) fn subnets(name: usize) -> impl Iterator<Item = String> {
    NAMES[name].split('&').map(|subnet| subnet.replace('-', "/"))
}

/// What comes of a value; nothing where it names the daemon's own host, or a backend that is not served.
fn row(subnet: &str, value: Value) -> Option<Row> {
    let encap = value.encap.filter(|_| value.host != Value::OURS)?;
    // Hosts are on one link and speak IPv4 there: what is not of that version needs a tunnel.
    let tunnel = encap == Encap::Direct && subnet.contains(':');
    let encap = if tunnel { Encap::Vxlan } else { encap };
    let peer = format!("172.16.199.{}", value.host);
    Some(Row { vni: value.vni.unwrap_or(1), peer, encap: encap.name().to_owned() })
}
