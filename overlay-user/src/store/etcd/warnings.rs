//! What was said about etcd's keys, so that each trouble is said once, however often the keys are listed.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use ipnet::IpNet;

/// What was said of what, for as long as it holds.
#[derive(Debug, Default)]
pub(super) struct Warnings(Mutex<Said>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// Keys that cannot be read, or not be used.
    pub(super) keys: HashMap<Vec<u8>, String>,
    /// Subnets that several keys claim.
    pub(super) contests: HashMap<IpNet, String>,
}

impl Warnings {
    pub(super) fn said(&self) -> MutexGuard<'_, Said> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn say(&self, key: &[u8], trouble: String, effect: &str) {
        let known = self.said().keys.insert(key.to_vec(), trouble.clone());
        if known.as_ref() != Some(&trouble) {
            tracing::warn!("etcd key {}: {trouble}; {effect}", shown(key));
        }
    }

    pub(super) fn settle(&self, key: &[u8]) {
        if self.said().keys.remove(key).is_some() {
            tracing::info!("etcd key {} is in order now", shown(key));
        }
    }

    pub(super) fn forget(&self, key: &[u8]) {
        self.said().keys.remove(key);
    }

    /// Forgets all keys but these.
    pub(super) fn keep(&self, present: &HashSet<&[u8]>) {
        self.said().keys.retain(|key, _| present.contains(&key[..]));
    }

    /// Several keys claim a subnet; or, with `None`, no longer.
    pub(super) fn contest(&self, subnet: IpNet, trouble: Option<String>) {
        match trouble {
            Some(trouble) => {
                let known = self.said().contests.insert(subnet, trouble.clone());
                if known.as_ref() != Some(&trouble) {
                    tracing::warn!("{trouble}");
                }
            }
            None => {
                if self.said().contests.remove(&subnet).is_some() {
                    tracing::info!("subnet {subnet} is claimed by one etcd key at most now");
                }
            }
        }
    }

    /// What was said of them.
    pub(super) fn contests(&self) -> BTreeSet<String> {
        self.said().contests.values().cloned().collect()
    }

    /// The subnets that were said to be contested.
    pub(super) fn contested(&self) -> Vec<IpNet> {
        self.said().contests.keys().copied().collect()
    }
}

/// A key for a message, control characters escaped.
pub(super) fn shown(key: &[u8]) -> String {
    String::from_utf8_lossy(key).escape_debug().to_string()
}
