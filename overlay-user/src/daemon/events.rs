//! What the store, the kernel and the programs tell, and what it touches.

use overlay_common::event::{ENDPOINT_MOVED, Event as ProgramEvent};
use tracing::{info, warn};

use super::{Aspect, Daemon, dirty::Dirty};
use crate::{
    endpoints, memory,
    netlink::Event,
    reconcile::records::Touched,
    status,
    store::{Health, Update},
};

impl Daemon {
    /// Takes in what the store tells.
    pub(super) fn take_update(&mut self, update: Update, touched: &mut Touched) {
        match update {
            Update::Snapshot(records) => {
                self.local.take_kinds(records.values());
                match &mut self.records {
                    Some(known) => known.replace(records, touched),
                    None => {
                        self.records = Some(records.into());
                        touched.all = true;
                    }
                }
                self.store_synced = status::now();
                memory::give_back();
            }
            Update::Put(record) => {
                self.local.take_kinds([&record]);
                self.records.get_or_insert_default().put(record, touched);
            }
            Update::Delete(subnet) => {
                self.records.get_or_insert_default().delete(subnet, touched);
            }
            Update::Contested(contests) => self.take_contests(contests),
            Update::Health(health) => {
                // What is wrong the store has told the log already.
                if health != self.health && health == Health::Ok {
                    info!("the store is in step");
                }
                self.health = health;
            }
        }
    }

    /// Takes in what the kernel tells.
    pub(super) fn take_event(&mut self, event: &Event, dirty: &mut Dirty) {
        let ours = |index: u32| {
            self.local.uplink(index).is_some()
                || self.local.bridges.iter().any(|bridge| bridge.index == index)
        };
        // One that is missing may be any link until it has its name, and its address comes later still.
        let missing = self.troubles.contains_key(&Aspect::Local);
        match event {
            Event::Link(link) => {
                dirty.links = true;
                let named =
                    self.config.ifaces.contains(&link.name) || self.config.bridges.contains(&link.name);
                dirty.local |= missing || named || ours(link.index);
                // A carrier that goes or comes back takes or brings hops; routes say nothing of it.
                dirty.next_hops |= self.local.uplink(link.index).is_some();
            }
            Event::LinkGone { index, .. } => {
                dirty.links = true;
                dirty.local |= ours(*index);
            }
            Event::Neighbour(neighbour) => self.take_neighbour(neighbour, false, dirty),
            Event::NeighbourGone(neighbour) => self.take_neighbour(neighbour, true, dirty),
            Event::Fdb(_) | Event::FdbGone(_) => dirty.endpoints = true,
            Event::Address { ifindex, .. } => dirty.local |= missing || ours(*ifindex),
            Event::Route(change) => self.take_route(change, dirty),
            Event::Routing => {
                dirty.next_hops = true;
                // It may be a rule of ours that somebody took away.
                self.reconciler.resync();
            }
            Event::Overrun => {
                *dirty = Dirty::all();
                self.reconciler.resync();
            }
        }
    }

    /// Has endpoints asked that the programs saw elsewhere.
    pub(super) async fn ask_about_moves(&mut self, told: &[ProgramEvent]) {
        for event in told.iter().filter(|event| event.kind == ENDPOINT_MOVED) {
            let (maps, netlink) = (&mut self.maps, &self.netlink);
            let asked = endpoints::confirm_move(&self.local, event.ip, event.ifindex, maps, netlink).await;
            if let Err(error) = asked {
                warn!("cannot ask who has an address: {error}");
            }
        }
    }
}
