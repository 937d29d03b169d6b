//! The ways through the underlay to each peer: what the kernel's routes offer, and what is made of it.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    ops::Bound,
};

use futures::{StreamExt, stream};
use ipnet::IpNet;

use overlay_common::map::{Hop, MAX_HOPS};
use tracing::info;

use crate::{
    datapath::{DatapathError, map::Maps},
    hops::{self, Slots, Way},
    local::{Local, Uplink},
    netlink::{Netlink, NextHop},
};

/// Questions that are put to the kernel before the first is answered.
const AT_ONCE: usize = 64;

/// How many addresses are asked for again at each resync.
const DOUBTED: usize = 256;

/// The slots to an address: of most peers all of them are one way.
#[derive(Debug)]
enum Held {
    One(Hop),
    Many(Box<Slots>),
}

impl From<Slots> for Held {
    fn from(slots: Slots) -> Self {
        let [first, others @ ..] = slots;
        if others.iter().all(|hop| *hop == first) { Self::One(first) } else { Self::Many(Box::new(slots)) }
    }
}

impl Held {
    fn slots(&self) -> Slots {
        match self {
            Self::One(hop) => [*hop; MAX_HOPS],
            Self::Many(slots) => **slots,
        }
    }
}

/// The slots to each peer's address.
#[derive(Debug, Default)]
pub(super) struct Ways {
    /// Those in force. They stay so while the kernel has no route, as between an uplink's going down and its
    /// routes' coming back: what was right before is more likely to be so again than that the peer has moved next door.
    slots: HashMap<IpAddr, Held>,
    /// Addresses to which the kernel was asked the way since a route or a link changed.
    asked: BTreeSet<IpAddr>,
    /// Up to this one they were asked for again last.
    doubted: Option<IpAddr>,
}

impl Ways {
    /// Begins with what the tunnels say, so that a start moves no flow.
    pub(super) fn adopt(maps: &Maps) -> Result<Self, DatapathError> {
        let mut slots = HashMap::new();
        maps.each_tunnel(|_, tunnel| drop(slots.insert(tunnel.remote.into(), tunnel.hops.into())))?;
        Ok(Self { slots, ..Self::default() })
    }

    /// Routes may be others: all are asked for again.
    pub(super) fn forget(&mut self) {
        self.asked.clear();
    }

    /// Routes to what lies in a prefix may be others: that is asked for again.
    pub(super) fn forget_in(&mut self, prefix: IpNet) {
        self.asked.retain(|ip| !prefix.contains(ip));
    }

    /// Forgets what the kernel said of a few of them, others each time: so that in the long run nothing is believed that
    /// the kernel changed without a word.
    pub(super) fn forget_some(&mut self) {
        let some: Vec<IpAddr> = match self.doubted {
            Some(after) => {
                self.asked.range((Bound::Excluded(after), Bound::Unbounded)).take(DOUBTED).copied().collect()
            }
            None => self.asked.iter().take(DOUBTED).copied().collect(),
        };
        // Those at the end were fewer: the next time begins at the front.
        self.doubted = some.last().copied().filter(|_| some.len() == DOUBTED);
        self.asked.retain(|ip| some.binary_search(ip).is_err());
    }

    /// Forgets all addresses but those of peers.
    pub(super) fn keep(&mut self, is_peer: impl Fn(IpAddr) -> bool) {
        self.asked.retain(|ip| is_peer(*ip));
        self.slots.retain(|ip, _| is_peer(*ip));
    }

    /// How many addresses the host has a route to.
    pub(super) fn known(&self) -> usize {
        self.asked.len()
    }

    /// The ways to an address.
    pub(super) fn to(&self, peer: IpAddr, local: &Local) -> Slots {
        self.slots.get(&peer).map(Held::slots).unwrap_or_else(|| on_link(peer, None, local))
    }

    /// Asks the kernel for the ways to each of these, as far as they are not known, and forgets those of `addresses`
    /// that are peers no more. Returns what is wrong with some, one line each; these are asked for again each time.
    pub(super) async fn find(
        &mut self,
        peers: &BTreeSet<IpAddr>,
        addresses: &BTreeSet<IpAddr>,
        local: &Local,
        netlink: &Netlink,
    ) -> BTreeSet<String> {
        for ip in addresses.difference(peers) {
            self.asked.remove(ip);
            self.slots.remove(ip);
        }
        let mut troubles = BTreeSet::new();
        let unknown: Vec<IpAddr> = peers.iter().copied().filter(|ip| !self.asked.contains(ip)).collect();
        let answers = stream::iter(unknown)
            .map(async |peer| (peer, netlink.next_hops(peer).await.map_err(|error| error.to_string())))
            .buffered(AT_ONCE);
        let mut answers = std::pin::pin!(answers);
        while let Some((peer, found)) = answers.next().await {
            match found.and_then(|found| judge(peer, &found, local)) {
                Ok(ways) => match hops::fill(&ways, self.slots.get(&peer).map(Held::slots).as_ref()) {
                    Some(slots) => {
                        self.take(peer, slots, local);
                        self.asked.insert(peer);
                    }
                    // A cable that was pulled is no trouble of ours.
                    None => self.make_do(peer, local, netlink).await,
                },
                Err(trouble) => {
                    self.make_do(peer, local, netlink).await;
                    troubles.insert(trouble);
                }
            }
        }
        troubles
    }

    /// Without a route through an uplink: what was in force, as far as that leads through one, and through one that is up
    /// if there is any; else the first uplink.
    async fn make_do(&mut self, peer: IpAddr, local: &Local, netlink: &Netlink) {
        let before = self.slots.get(&peer).map(Held::slots);
        let through = |is_fit: fn(&Uplink) -> bool| {
            let hops = before.iter().flatten().filter(|hop| local.uplink(hop.uplink).is_some_and(is_fit));
            let ways: Vec<Way> = hops.map(|hop| Way { hop: *hop, weight: 1 }).collect();
            hops::fill(&ways, before.as_ref())
        };
        if let Some(slots) = through(|uplink| uplink.up).or_else(|| through(|_| true)) {
            self.take(peer, slots, local);
            return;
        }
        let first = local.first_uplink().map(|uplink| uplink.index);
        let through = netlink.next_hop(peer, first).await.ok();
        let gateway = through.filter(|hop| Some(hop.ifindex) == first).and_then(|hop| hop.gateway);
        self.slots.insert(peer, on_link(peer, gateway, local).into());
    }

    fn take(&mut self, peer: IpAddr, slots: Slots, local: &Local) {
        let before = self.slots.insert(peer, slots.into());
        if before.is_some_and(|before| before.slots() != slots) {
            info!("peer {peer} is reached {} now", describe(peer, &slots, local));
        }
    }
}

/// All slots over the first uplink.
fn on_link(peer: IpAddr, gateway: Option<IpAddr>, local: &Local) -> Slots {
    let uplink = local.first_uplink().map_or(0, |uplink| uplink.index);
    [Hop { uplink, next_hop: gateway.unwrap_or(peer).into() }; MAX_HOPS]
}

/// The ways that lead through uplinks of ours, or why there are none; no ways where the route has none that lives.
fn judge(peer: IpAddr, found: &[NextHop], local: &Local) -> Result<Vec<Way>, String> {
    if found.iter().any(|hop| hop.local) {
        return Err(format!("peer {peer} is an address of this host: packets to it go nowhere"));
    }
    let ours = found.iter().filter(|hop| local.uplink(hop.ifindex).is_some());
    let ways: Vec<Way> = ours
        .map(|hop| {
            let next_hop = hop.gateway.unwrap_or(peer).into();
            Way { hop: Hop { uplink: hop.ifindex, next_hop }, weight: hop.weight.max(1) }
        })
        .collect();
    if !ways.is_empty() || found.is_empty() {
        return Ok(ways);
    }
    let which = if local.uplinks.len() > 1 { "any of the uplinks" } else { "the uplink" };
    Err(format!(
        "the host's route to peer {peer} does not lead through {which} {}: packets to it are sent there all the \
         same; correct the route, or choose another --iface",
        local.uplink_names()
    ))
}

/// `through eth0 (4 of 8 flows, via 192.0.2.1) and eth1 (4 of 8 flows)`.
fn describe(peer: IpAddr, slots: &Slots, local: &Local) -> String {
    let mut hops: Vec<Hop> = slots.to_vec();
    hops.sort_unstable();
    hops.dedup();
    let words = hops.iter().map(|hop| {
        let name = local.uplink(hop.uplink).map_or("?", |uplink| uplink.name.as_str());
        let next_hop = IpAddr::from(hop.next_hop);
        let via = if next_hop == peer { "directly".to_owned() } else { format!("via {next_hop}") };
        let share = slots.iter().filter(|slot| *slot == hop).count();
        let share = if hops.len() > 1 { format!(", {share} of {MAX_HOPS} flows") } else { String::new() };
        format!("through {name} {via}{share}")
    });
    words.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::tests::{local, uplink};

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(172, 16, 199, 27));

    fn hop(ifindex: u32, gateway: Option<[u8; 4]>) -> NextHop {
        NextHop { ifindex, gateway: gateway.map(IpAddr::from), weight: 1, source: None, local: false }
    }

    fn two_uplinks() -> Local {
        Local { uplinks: vec![uplink(2, 0, 1500), uplink(5, 1, 1400)], ..local() }
    }

    #[test]
    fn only_ways_through_uplinks_of_ours_count() {
        let local = two_uplinks();
        let found = [hop(2, None), hop(5, Some([192, 0, 2, 1])), hop(9, Some([192, 0, 2, 9]))];
        let ways = judge(PEER, &found, &local).unwrap();
        let hops: Vec<_> = ways.iter().map(|way| (way.hop.uplink, IpAddr::from(way.hop.next_hop))).collect();
        assert_eq!(hops, [(2, PEER), (5, [192, 0, 2, 1].into())]);
        let trouble = judge(PEER, &found[2..], &local).unwrap_err();
        assert!(trouble.contains("does not lead through any of the uplinks eth0, eth1"), "{trouble}");
        assert_eq!(judge(PEER, &[], &local), Ok(Vec::new()), "no carrier anywhere");
        let trouble = judge(PEER, &[NextHop { local: true, ..hop(1, None) }], &local).unwrap_err();
        assert!(trouble.contains("address of this host"), "{trouble}");
    }

    #[test]
    fn the_mtu_is_that_of_the_smallest_uplink_on_the_way() {
        let local = two_uplinks();
        let slots = |found: &[NextHop]| hops::fill(&judge(PEER, found, &local).unwrap(), None).unwrap();
        let mtu = |slots| local.mtu_over(&slots, 50);
        assert_eq!(mtu(slots(&[hop(2, None)])), 1450);
        assert_eq!(mtu(slots(&[hop(2, None), hop(5, None)])), 1350);
        assert_eq!(mtu(on_link(PEER, None, &local)), 1450);
    }

    #[test]
    fn ways_in_words() {
        let local = two_uplinks();
        let found = [hop(2, None), hop(5, Some([192, 0, 2, 1]))];
        let slots = hops::fill(&judge(PEER, &found, &local).unwrap(), None).unwrap();
        assert_eq!(
            describe(PEER, &slots, &local),
            "through eth0 directly, 4 of 8 flows; through eth1 via 192.0.2.1, 4 of 8 flows"
        );
    }
}
