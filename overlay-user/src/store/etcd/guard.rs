//! The guard against mass deletion. An etcd that was wiped, restored or emptied by mistake says of most subnets at once
//! that they are gone, and its hosts announce them again within seconds: until then they stay in force.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use ipnet::IpNet;
use tokio::time::Instant;

use crate::store::{PeerSubnet, Update};

/// Fewer subnets than this go at once without suspicion.
const FEWEST: usize = 4;

/// What is known, what of it etcd says is gone, and until when that is not believed.
pub(super) struct Guard {
    /// How long it takes to be believed; zero believes at once.
    delay: Duration,
    known: BTreeMap<IpNet, PeerSubnet>,
    held: BTreeMap<IpNet, Instant>,
    /// When the last subnets went, one by one.
    gone: VecDeque<Instant>,
    /// At the start: how many subnets were in force before, and until when fewer than half of them are not believed.
    awaited: Option<(usize, Option<Instant>)>,
}

impl Guard {
    /// Nothing is known yet; `in_force` subnets were when this daemon started.
    pub(super) fn new(delay: Duration, in_force: usize) -> Self {
        let awaited = (!delay.is_zero() && in_force >= FEWEST).then_some((in_force, None));
        Self { delay, known: BTreeMap::new(), held: BTreeMap::new(), gone: VecDeque::new(), awaited }
    }

    /// How many subnets are in force.
    pub(super) fn known(&self) -> usize {
        self.known.len()
    }

    /// Whether a list tells of something that is not known.
    pub(super) fn differs(&self, now: &BTreeMap<IpNet, PeerSubnet>) -> bool {
        let known = self.known.iter().filter(|(subnet, _)| !self.held.contains_key(subnet));
        !now.iter().eq(known)
    }

    /// Takes a complete list. What is missing in it stays where too much is; nothing is told while what was in force
    /// before this daemon is better.
    pub(super) fn replace(&mut self, mut now: BTreeMap<IpNet, PeerSubnet>, at: Instant) -> Option<Update> {
        if let Some((_, until)) = &mut self.awaited {
            until.get_or_insert(at + self.delay);
            self.known = now;
            return self.awaited(at);
        }
        let missing: Vec<IpNet> =
            self.known.keys().filter(|subnet| !now.contains_key(subnet)).copied().collect();
        let suspicious = self.is_suspicious(missing.len(), 0);
        self.held.retain(|subnet, _| !now.contains_key(subnet));
        for subnet in missing {
            if suspicious {
                self.held.entry(subnet).or_insert(at + self.delay);
            }
            if self.held.contains_key(&subnet)
                && let Some(peer) = self.known.remove(&subnet)
            {
                now.insert(subnet, peer);
            }
        }
        self.known.clone_from(&now);
        Some(Update::Snapshot(now))
    }

    /// Everything, once it is to be believed at the start.
    fn awaited(&mut self, at: Instant) -> Option<Update> {
        let (in_force, until) = self.awaited?;
        if self.known.len() * 2 < in_force && until.is_none_or(|until| at < until) {
            return None;
        }
        self.awaited = None;
        Some(Update::Snapshot(self.known.clone()))
    }

    /// Takes what one message changes; what of it is to be believed.
    pub(super) fn pass(&mut self, updates: Vec<Update>, at: Instant) -> Vec<Update> {
        if self.awaited.is_some() {
            for update in updates {
                match update {
                    Update::Put(peer) => drop(self.known.insert(peer.subnet, peer)),
                    Update::Delete(subnet) => drop(self.known.remove(&subnet)),
                    Update::Snapshot(_) | Update::Contested(_) | Update::Health(_) => {}
                }
            }
            return self.awaited(at).into_iter().collect();
        }
        let deleted = updates.iter().filter(|update| matches!(update, Update::Delete(_))).count();
        while self.gone.front().is_some_and(|then| at.duration_since(*then) > self.delay) {
            self.gone.pop_front();
        }
        let before = self.gone.len();
        let suspicious = deleted > 0 && self.is_suspicious(deleted + self.held.len(), before);
        updates.into_iter().filter_map(|update| self.judge(update, suspicious, at)).collect()
    }

    fn judge(&mut self, update: Update, suspicious: bool, at: Instant) -> Option<Update> {
        match &update {
            Update::Put(peer) => {
                self.held.remove(&peer.subnet);
                let known = self.known.insert(peer.subnet, peer.clone());
                // It is back as it was.
                return (known.as_ref() != Some(peer)).then_some(update);
            }
            Update::Delete(subnet) if suspicious => {
                self.held.insert(*subnet, at + self.delay);
                return None;
            }
            Update::Delete(subnet) => {
                self.known.remove(subnet);
                self.gone.push_back(at);
            }
            Update::Snapshot(_) | Update::Contested(_) | Update::Health(_) => {}
        }
        Some(update)
    }

    /// Whether so many, and those that went just before, are more than half of what was known.
    fn is_suspicious(&self, missing: usize, before: usize) -> bool {
        let all = self.known.len() + before;
        !self.delay.is_zero() && all >= FEWEST && (missing + before) * 2 > all
    }

    /// What has been missing for long enough.
    pub(super) fn due(&mut self, at: Instant) -> Vec<Update> {
        if self.awaited.is_some_and(|(_, until)| until.is_some_and(|until| until <= at)) {
            return self.awaited(at).into_iter().collect();
        }
        let due: Vec<IpNet> =
            self.held.iter().filter(|(_, until)| **until <= at).map(|(subnet, _)| *subnet).collect();
        for subnet in &due {
            self.held.remove(subnet);
            self.known.remove(subnet);
        }
        due.into_iter().map(Update::Delete).collect()
    }

    /// When the next of them is believed to be gone.
    pub(super) fn next(&self) -> Option<Instant> {
        let awaited = self.awaited.and_then(|(_, until)| until);
        self.held.values().min().copied().into_iter().chain(awaited).min()
    }

    /// What is to be known of it.
    pub(super) fn trouble(&self) -> Option<String> {
        if let Some((in_force, Some(_))) = self.awaited {
            return Some(format!(
                "etcd has less than half of the {in_force} subnets that were in force when overlayd started: their routes \
                 stay for {} s unless more come back: was it emptied or restored by mistake?",
                self.delay.as_secs()
            ));
        }
        // Without numbers: it is one trouble, however many come back.
        (!self.held.is_empty()).then(|| {
            format!(
                "most subnets vanished from etcd at once; their routes stay for {} s unless they come back: was it \
                 emptied or restored by mistake?",
                self.delay.as_secs()
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use overlay_common::Encap;

    use super::*;

    const DELAY: Duration = Duration::from_secs(60);

    fn peer(n: u8) -> PeerSubnet {
        PeerSubnet {
            subnet: format!("10.{n}.0.0/24").parse().unwrap(),
            host: std::net::Ipv4Addr::new(192, 0, 2, n).into(),
            encap: Encap::Vxlan,
            vni: None,
            port: None,
            gre_key: None,
            vtep_mac: None,
            bridge: None,
            src_ips: Vec::new(),
            routed: false,
            zero_checksum: false,
        }
    }

    fn peers(numbers: impl IntoIterator<Item = u8>) -> BTreeMap<IpNet, PeerSubnet> {
        numbers.into_iter().map(peer).map(|peer| (peer.subnet, peer)).collect()
    }

    fn guard(count: u8, at: Instant) -> Guard {
        let mut guard = Guard::new(DELAY, 0);
        assert_eq!(guard.replace(peers(1..=count), at), snapshot(1..=count));
        guard
    }

    fn snapshot(numbers: impl IntoIterator<Item = u8>) -> Option<Update> {
        Some(Update::Snapshot(peers(numbers)))
    }

    fn deletes(numbers: impl IntoIterator<Item = u8>) -> Vec<Update> {
        numbers.into_iter().map(|n| Update::Delete(peer(n).subnet)).collect()
    }

    #[test]
    fn a_list_without_most_changes_nothing_for_a_while() {
        let at = Instant::now();
        let mut guard = guard(6, at);
        assert_eq!(guard.replace(peers([1, 2]), at), snapshot(1..=6));
        assert_eq!(guard.next(), Some(at + DELAY));
        assert!(guard.trouble().unwrap().starts_with("most subnets vanished"));
        // Listed again meanwhile, they do not get another minute.
        let later = at + DELAY / 2;
        assert_eq!(guard.replace(peers([1, 2, 3]), later), snapshot(1..=6));
        assert_eq!(guard.due(later), []);
        assert_eq!(guard.due(at + DELAY), deletes([4, 5, 6]));
        assert_eq!((guard.trouble(), guard.next()), (None, None));
        assert_eq!(guard.replace(peers([1, 2, 3]), at + DELAY), snapshot([1, 2, 3]));
    }

    #[test]
    fn what_was_in_force_before_is_better_than_less_than_half_of_it() {
        let at = Instant::now();
        let start = |in_force| Guard::new(DELAY, in_force);
        assert_eq!(start(8).replace(peers(1..=4), at), snapshot(1..=4));
        assert_eq!(start(3).replace(peers([]), at), snapshot([]));
        let mut emptied = start(8);
        assert_eq!(emptied.replace(peers([]), at), None);
        assert!(emptied.trouble().unwrap().contains("less than half of the 8 subnets"));
        assert_eq!(emptied.pass(vec![Update::Put(peer(1)), Update::Put(peer(2))], at), []);
        assert_eq!((emptied.due(at), emptied.next()), (vec![], Some(at + DELAY)));
        let mut others = emptied;
        assert_eq!(others.replace(peers(1..=3), at + DELAY / 2), None);
        assert_eq!(others.pass(vec![Update::Put(peer(4))], at + DELAY / 2), [snapshot(1..=4).unwrap()]);
        assert_eq!(others.trouble(), None);
        let mut gone = start(8);
        assert_eq!(gone.replace(peers([1]), at), None);
        assert_eq!(gone.due(at + DELAY), [snapshot([1]).unwrap()]);
    }

    #[test]
    fn few_go_at_once() {
        let at = Instant::now();
        assert_eq!(guard(6, at).replace(peers([1, 2, 3]), at), snapshot([1, 2, 3]));
        assert_eq!(guard(3, at).replace(peers([]), at), snapshot([]));
        let mut without = Guard::new(Duration::ZERO, 9);
        without.replace(peers(1..=9), at);
        assert_eq!(without.replace(peers([]), at), snapshot([]));
    }

    #[test]
    fn many_deletions_in_one_message_or_in_many_are_held() {
        let at = Instant::now();
        let mut at_once = guard(6, at);
        assert_eq!(at_once.pass(deletes(1..=4), at), []);
        assert_eq!(at_once.due(at + DELAY), deletes(1..=4));
        let mut one_by_one = guard(6, at);
        let passed: Vec<_> = (1..=6).flat_map(|n| one_by_one.pass(deletes([n]), at)).collect();
        assert_eq!(passed, deletes(1..=3));
        assert_eq!(one_by_one.due(at + DELAY), deletes(4..=6));
        // Spread over time they are what they seem.
        let mut slowly = guard(6, at);
        for n in 1..=6 {
            assert_eq!(slowly.pass(deletes([n]), at + 2 * DELAY * u32::from(n)), deletes([n]));
        }
    }

    #[test]
    fn what_comes_back_is_as_if_it_had_not_gone() {
        let at = Instant::now();
        let mut guard = guard(6, at);
        guard.pass(deletes(1..=6), at);
        let moved = PeerSubnet { host: std::net::Ipv4Addr::new(192, 0, 2, 99).into(), ..peer(2) };
        let back = guard.pass(vec![Update::Put(peer(1)), Update::Put(moved.clone())], at);
        assert_eq!(back, [Update::Put(moved)]);
        assert_eq!(guard.due(at + DELAY), deletes(3..=6));
    }

    mod model {
        use proptest::prelude::*;

        use super::*;

        #[derive(Clone, Debug)]
        enum Step {
            List(Vec<u8>),
            Put(u8),
            Delete(u8),
            Wait(u64),
        }

        fn step() -> impl Strategy<Value = Step> {
            prop_oneof![
                proptest::collection::vec(1..12_u8, 0..12).prop_map(Step::List),
                (1..12_u8).prop_map(Step::Put),
                (1..12_u8).prop_map(Step::Delete),
                (0..90_u64).prop_map(Step::Wait),
            ]
        }

        proptest! {
            /// Whatever happens: who follows the updates knows all that etcd has, and once the delay is over nothing else.
            #[test]
            fn it_ends_with_what_etcd_has(steps in proptest::collection::vec(step(), 0..40)) {
                let mut at = Instant::now();
                let (mut guard, mut etcd, mut told) = (Guard::new(DELAY, 0), peers([]), peers([]));
                let follow = |told: &mut BTreeMap<IpNet, PeerSubnet>, updates: Vec<Update>| {
                    for update in updates {
                        match update {
                            Update::Snapshot(all) => *told = all,
                            Update::Put(peer) => drop(told.insert(peer.subnet, peer)),
                            Update::Delete(subnet) => drop(told.remove(&subnet)),
                            Update::Contested(_) | Update::Health(_) => {}
                        }
                    }
                };
                for step in steps {
                    let updates = match step {
                        Step::List(numbers) => {
                            etcd = peers(numbers);
                            guard.replace(etcd.clone(), at).into_iter().collect()
                        }
                        Step::Put(n) if etcd.insert(peer(n).subnet, peer(n)).is_none() => {
                            guard.pass(vec![Update::Put(peer(n))], at)
                        }
                        Step::Delete(n) if etcd.remove(&peer(n).subnet).is_some() => guard.pass(deletes([n]), at),
                        Step::Wait(seconds) => {
                            at += Duration::from_secs(seconds);
                            guard.due(at)
                        }
                        Step::Put(_) | Step::Delete(_) => Vec::new(),
                    };
                    follow(&mut told, updates);
                    prop_assert!(etcd.iter().all(|entry| told.get(entry.0) == Some(entry.1)));
                }
                follow(&mut told, guard.due(at + DELAY));
                prop_assert_eq!(told, etcd);
            }
        }
    }
}
