//! What the kernel tells of our own doing: the overlay's routes and neighbours are changes that this daemon made itself,
//! as long as they are what it holds for true.

use overlay_common::Mac;
use tracing::warn;

use super::{Daemon, Dirty};
use crate::{
    exit,
    netlink::{Event, MAIN_TABLE, Neighbour, NudState, RouteChange},
    reconcile::{held::Held, observe::ROUTE_PROTOCOL, records::Records},
};

/// What an event is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// Ours, and as it should be.
    Ours,
    /// Ours, and somebody else changed it.
    Tampered,
    /// Somebody else's.
    Foreign,
}

/// Whose doing a route is.
pub(super) fn of_route(change: &RouteChange, held: &Held) -> Whose {
    if change.entry.protocol != ROUTE_PROTOCOL {
        return Whose::Foreign;
    }
    let known = held.observed().kernel_routes.get(&(change.table, change.entry.prefix));
    let as_known =
        if change.gone { known.is_none() } else { known.is_some() && known == change.route.as_ref() };
    if as_known { Whose::Ours } else { Whose::Tampered }
}

/// Whose doing a neighbour is.
pub(super) fn of_neighbour(neighbour: &Neighbour, gone: bool, held: &Held) -> Whose {
    let known = held.observed().neighbours.contains(&(neighbour.ifindex, neighbour.ip));
    let overlays = neighbour.state == NudState::Permanent && neighbour.mac == Some(Mac::OVERLAY_NEIGHBOUR);
    match (known, overlays && !gone) {
        (true, true) => Whose::Ours,
        (true, false) => Whose::Tampered,
        (false, _) if neighbour.mac == Some(Mac::OVERLAY_NEIGHBOUR) && gone => Whose::Ours,
        (false, true) => Whose::Tampered,
        (false, false) => Whose::Foreign,
    }
}

impl Daemon {
    /// A neighbour changed: ours, or one that says where an endpoint lives.
    pub(super) fn take_neighbour(&mut self, neighbour: &Neighbour, gone: bool, dirty: &mut Dirty) {
        let whose = self.reconciler.held().map_or(Whose::Foreign, |held| of_neighbour(neighbour, gone, held));
        if whose == Whose::Tampered {
            self.reconciler.resync();
        }
        let bridges = &self.local.bridges;
        dirty.endpoints |= whose == Whose::Foreign
            && bridges
                .iter()
                .any(|bridge| bridge.index == neighbour.ifindex && bridge.contains(neighbour.ip));
    }

    /// A route changed: ours, or one that may lead to peers, or one to a peer's subnet.
    pub(super) fn take_route(&mut self, change: &RouteChange, dirty: &mut Dirty) {
        let whose = self.reconciler.held().map_or(Whose::Foreign, |held| of_route(change, held));
        match whose {
            Whose::Ours => return,
            Whose::Tampered => return self.reconciler.resync(),
            Whose::Foreign => {}
        }
        let prefix = change.entry.prefix;
        self.underlay.forget_in(prefix);
        dirty.touched.addresses.extend(self.records.iter().flat_map(|records| records.addresses_in(prefix)));
        if change.table != MAIN_TABLE || change.entry.protocol == ROUTE_PROTOCOL {
            return;
        }
        if !change.gone {
            self.reconciler.note_foreign(prefix);
        }
        // What we would not do because of it, or undo, can be done now or has to be.
        let known = |records: &Records| records.by_subnet().contains_key(&prefix);
        if self.records.as_ref().is_some_and(known) {
            self.reconciler.resync();
        }
    }

    /// Clears the tunnels that nobody can be reading any more.
    pub(super) async fn clear_idle(&mut self) {
        if let Err(error) = self.reconciler.clear(&mut self.maps, &self.netlink).await {
            warn!("{}", exit::one_line(&error.into()));
        }
    }

    /// Takes in what the kernel has told of the changes made so far: tens of thousands would fill the socket.
    pub(super) fn absorb(&mut self) {
        let Some(held) = self.reconciler.held() else { return };
        self.monitor.absorb(|event| {
            let whose = match event {
                Event::Route(change) => of_route(change, held),
                Event::Neighbour(neighbour) => of_neighbour(neighbour, false, held),
                Event::NeighbourGone(neighbour) => of_neighbour(neighbour, true, held),
                _ => Whose::Foreign,
            };
            whose == Whose::Ours
        });
    }
}
