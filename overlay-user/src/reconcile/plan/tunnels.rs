//! Which id a tunnel has: that of an equal one, or a new one.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
};

use overlay_common::map::Tunnel;

use super::{
    super::{change::Change, kept::Kept},
    ids::Ids,
};

/// The tunnels that there are, and those that are to be. Equal ones share an id, so they are of one peer: by that they
/// are looked up.
pub(super) struct Tunnels<'a> {
    observed: HashMap<u32, Vec<(u32, &'a Kept)>>,
    fresh: HashMap<u32, Vec<usize>>,
    changes: Vec<(u32, Box<Tunnel>)>,
    ids: Ids,
}

impl<'a> Tunnels<'a> {
    pub(super) fn new(observed: &'a BTreeMap<u32, Kept>, ids: Ids) -> Self {
        let mut by_peer: HashMap<u32, Vec<(u32, &Kept)>> = HashMap::new();
        for (id, tunnel) in observed {
            by_peer.entry(tunnel.get().peer).or_default().push((*id, tunnel));
        }
        Self { observed: by_peer, fresh: HashMap::new(), changes: Vec::new(), ids }
    }

    /// The id of a tunnel, `held` where that is an equal one; `None` where none is free.
    pub(super) fn id(&mut self, tunnel: Tunnel, held: Option<u32>) -> Option<u32> {
        let observed = self.observed.get(&tunnel.peer).into_iter().flatten();
        let equal = observed.filter(|(_, known)| known.get() == tunnel).map(|(id, _)| *id);
        if let Some(id) = equal.max_by_key(|id| (Some(*id) == held, Reverse(*id))) {
            return Some(id);
        }
        let fresh = self.fresh.entry(tunnel.peer).or_default();
        if let Some(at) = fresh.iter().find(|at| *self.changes[**at].1 == tunnel) {
            return Some(self.changes[*at].0);
        }
        let id = self.ids.take()?;
        fresh.push(self.changes.len());
        self.changes.push((id, Box::new(tunnel)));
        Some(id)
    }

    /// The tunnels to be written.
    pub(super) fn into_changes(self) -> impl Iterator<Item = Change> {
        self.changes.into_iter().map(|(id, tunnel)| Change::PutTunnel(id, tunnel))
    }
}
