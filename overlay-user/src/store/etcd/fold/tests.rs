//! The fold against the rules, and against a plain replay of the same events.

use proptest::prelude::*;

use super::*;

const SUBNETS: &str = "/n/subnets/";

fn key(name: &str) -> Vec<u8> {
    format!("{SUBNETS}{name}").into_bytes()
}

fn value(last: u8) -> Vec<u8> {
    format!(r#"{{"PublicIP":"192.0.2.{last}","BackendType":"vxlan"}}"#).into_bytes()
}

fn entry(name: &str, created: i64, value: impl Into<Vec<u8>>) -> Entry {
    Entry::read(SUBNETS, key(name), &value.into(), created)
}

fn put(name: &str, created: i64, value: impl Into<Vec<u8>>) -> Event {
    Event::Put(entry(name, created, value))
}

fn delete(name: &str) -> Event {
    Event::Delete(key(name))
}

fn gone(subnet: &str) -> Update {
    Update::Delete(subnet.parse().unwrap())
}

/// `subnet=host` for each change, `subnet gone` for each end.
fn told(updates: Vec<Update>) -> Vec<String> {
    let tell = |update| match update {
        Update::Put(peer) => format!("{}={}", peer.subnet, peer.host),
        Update::Delete(subnet) => format!("{subnet} gone"),
        other => panic!("{other:?}"),
    };
    updates.into_iter().map(tell).collect()
}

#[test]
fn a_bad_edit_keeps_the_last_good_state_and_a_delete_ends_it() {
    let warnings = Warnings::default();
    let mut fold = Fold::new(&warnings);
    assert_eq!(told(fold.apply([put("10.9.0.0-24", 1, value(7))])), ["10.9.0.0/24=192.0.2.7"]);
    assert_eq!(fold.apply([put("10.9.0.0-24", 1, "{")]), []);
    assert_eq!(fold.replace(vec![entry("10.9.0.0-24", 1, "{")]).len(), 1);
    assert_eq!(fold.apply([put("10.9.0.0-24", 1, value(7))]), []);
    assert_eq!(told(fold.apply([put("10.9.0.0-24", 1, value(8))])), ["10.9.0.0/24=192.0.2.8"]);
    assert_eq!(fold.apply([delete("10.9.0.0-24")]), [gone("10.9.0.0/24")]);
    assert_eq!(fold.apply([delete("10.9.0.0-24")]), []);
}

#[test]
fn another_backend_is_no_peer_any_more() {
    let warnings = Warnings::default();
    let mut fold = Fold::new(&warnings);
    fold.apply([put("10.9.0.0-24", 1, value(7))]);
    let other = r#"{"PublicIP":"192.0.2.7","BackendType":"wireguard"}"#;
    assert_eq!(fold.apply([put("10.9.0.0-24", 1, other)]), [gone("10.9.0.0/24")]);
}

#[test]
fn one_key_two_subnets() {
    let warnings = Warnings::default();
    let mut fold = Fold::new(&warnings);
    let both = fold.apply([put("10.9.0.0-24&fd00:9::-64", 1, value(1))]);
    assert_eq!(told(both), ["10.9.0.0/24=192.0.2.1", "fd00:9::/64=192.0.2.1"]);
    let both = fold.apply([delete("10.9.0.0-24&fd00:9::-64")]);
    assert_eq!(both, [gone("10.9.0.0/24"), gone("fd00:9::/64")]);
}

#[test]
fn the_key_that_was_there_first_counts_until_it_is_gone() {
    let warnings = Warnings::default();
    let contests = || warnings.said().contests.values().cloned().collect::<Vec<_>>();
    let mut fold = Fold::new(&warnings);
    fold.apply([put("10.9.0.0-24&fd00:9::-64", 5, value(1))]);
    assert_eq!(fold.apply([put("10.9.0.0-24", 6, value(2))]), [], "nobody's route changes");
    assert_eq!(fold.apply([put("10.8.0.0-24&fd00:9::-64", 7, value(3))]).len(), 1, "10.8.0.0/24 alone");
    let said = contests();
    assert!(said.len() == 2, "{said:?}");
    let [v4] = &said.iter().filter(|line| line.contains("10.9.0.0/24")).collect::<Vec<_>>()[..] else {
        panic!("{said:?}")
    };
    assert!(
        v4.contains("/n/subnets/10.9.0.0-24&fd00:9::-64 of host 192.0.2.1 was there first")
            && v4.contains("/n/subnets/10.9.0.0-24 of host 192.0.2.2 waits"),
        "{v4}"
    );
    assert_eq!(fold.apply([put("10.9.0.0-24", 6, value(4))]), [], "the one that waits may change");
    let after = fold.apply([delete("10.9.0.0-24&fd00:9::-64")]);
    assert_eq!(told(after), ["10.9.0.0/24=192.0.2.4", "fd00:9::/64=192.0.2.3"], "the others take over");
    assert!(contests().is_empty());
    assert_eq!(fold.apply([put("10.9.0.0-24&fd00:9::-64", 9, value(1))]), [], "and keep it");
    assert_eq!(contests().len(), 2);
    assert_eq!(fold.replace(Vec::new()).len(), 0);
    assert!(contests().is_empty());
}

#[test]
fn a_list_and_its_events_agree_on_who_was_first() {
    let warnings = Warnings::default();
    let entries =
        [("10.9.0.0-24", 9, 1), ("10.9.0.0-24&fd00:9::-64", 3, 2), ("10.9.0.0-24&fd00:8::-64", 9, 3)]
            .map(|(name, created, host)| entry(name, created, value(host)));
    let mut listed = Fold::new(&warnings);
    let listed = listed.replace(entries.to_vec());
    assert_eq!(listed[&"10.9.0.0/24".parse().unwrap()].host.to_string(), "192.0.2.2");
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let mut fold = Fold::new(&warnings);
        for n in order {
            fold.apply([Event::Put(entries[n].clone())]);
        }
        assert_eq!(fold.peers(), listed);
    }
}

#[test]
fn a_key_replaced_in_one_transaction_is_never_gone_nor_contested() {
    let warnings = Warnings::default();
    let mut fold = Fold::new(&warnings);
    fold.apply([put("10.9.0.0-24", 1, value(1))]);
    let handover = [delete("10.9.0.0-24"), put("10.9.0.0-24&fd00:9::-64", 2, value(1))];
    assert_eq!(told(fold.apply(handover)), ["fd00:9::/64=192.0.2.1"]);
    let back = [put("10.9.0.0-24", 3, value(1)), delete("10.9.0.0-24&fd00:9::-64")];
    assert_eq!(fold.apply(back), [gone("fd00:9::/64")]);
    assert_eq!(*warnings.said(), Default::default());
}

#[test]
fn trouble_is_said_once() {
    let warnings = Warnings::default();
    let said = || warnings.said().keys.clone();
    let mut fold = Fold::new(&warnings);
    fold.apply([put("nonsense", 1, value(1)), put("10.9.0.0-24", 1, "[]")]);
    let first = said();
    assert_eq!(first.len(), 2);
    fold.replace(vec![entry("nonsense", 1, value(2)), entry("10.9.0.0-24", 1, "[]")]);
    assert_eq!(said(), first);
    fold.apply([put("10.9.0.0-24", 1, value(1)), delete("nonsense")]);
    assert!(said().is_empty());
}

#[derive(Clone, Debug)]
enum Step {
    Put(String, Vec<u8>),
    Delete(String),
    /// The first name's key is replaced with the second one's, in one transaction.
    Replace(String, String, Vec<u8>),
    Relist,
}

fn step() -> impl Strategy<Value = Step> {
    let name = prop_oneof![
        (0u8..4).prop_map(|n| format!("10.{n}.0.0-16")),
        (0u8..4, 0u8..3).prop_map(|(n, m)| format!("10.{n}.0.0-16&fd00:{m}::-64")),
        Just("odd".to_owned()),
    ];
    let value = prop_oneof![(1u8..5).prop_map(value), Just(b"{".to_vec()), Just(b"{}".to_vec())];
    prop_oneof![
        4 => (name.clone(), value.clone()).prop_map(|(name, value)| Step::Put(name, value)),
        2 => name.clone().prop_map(Step::Delete),
        1 => (name.clone(), name, value).prop_map(|(old, new, value)| Step::Replace(old, new, value)),
        1 => Just(Step::Relist),
    ]
}

/// What etcd would hold, and say.
#[derive(Default)]
struct Model {
    revision: i64,
    keys: BTreeMap<Vec<u8>, Entry>,
}

impl Model {
    fn put(&mut self, name: &str, value: Vec<u8>) -> Event {
        let created = self.keys.get(&key(name)).map_or(self.revision, |entry| entry.created);
        let entry = entry(name, created, value);
        self.keys.insert(key(name), entry.clone());
        Event::Put(entry)
    }

    fn delete(&mut self, name: &str) -> Event {
        self.keys.remove(&key(name));
        delete(name)
    }

    fn events(&mut self, step: Step) -> Vec<Event> {
        self.revision += 1;
        match step {
            Step::Put(name, value) => vec![self.put(&name, value)],
            Step::Delete(name) => vec![self.delete(&name)],
            // etcd refuses a transaction that writes a key twice.
            Step::Replace(old, new, value) if old == new => vec![self.put(&new, value)],
            Step::Replace(old, new, value) => vec![self.delete(&old), self.put(&new, value)],
            Step::Relist => Vec::new(),
        }
    }

    fn list(&self) -> Vec<Entry> {
        self.keys.values().cloned().collect()
    }
}

proptest! {
    /// Whoever applies the updates one by one holds what a snapshot at the end would say.
    #[test]
    fn updates_add_up_to_the_snapshot(steps in proptest::collection::vec(step(), 0..40)) {
        let warnings = Warnings::default();
        let mut fold = Fold::new(&warnings);
        let mut etcd = Model::default();
        let mut receiver: BTreeMap<IpNet, PeerSubnet> = BTreeMap::new();
        for step in steps {
            let relist = matches!(step, Step::Relist);
            let events = etcd.events(step);
            let updates = if relist {
                vec![Update::Snapshot(fold.replace(etcd.list()))]
            } else {
                fold.apply(events)
            };
            for update in updates {
                match update {
                    Update::Put(peer) => drop(receiver.insert(peer.subnet, peer)),
                    Update::Delete(subnet) => prop_assert!(receiver.remove(&subnet).is_some()),
                    Update::Snapshot(all) => receiver = all,
                    Update::Contested(_) | Update::Health(_) => {}
                }
            }
        }
        prop_assert_eq!(receiver.clone(), fold.replace(etcd.list()));
    }

    /// However the keys came, whoever lists them afresh agrees with whoever watched, as long as no value is bad.
    #[test]
    fn who_watched_agrees_with_who_lists(steps in proptest::collection::vec(step(), 0..40)) {
        let (warnings, fresh) = (Warnings::default(), Warnings::default());
        let mut fold = Fold::new(&warnings);
        let mut etcd = Model::default();
        for step in steps {
            let bad = |value: &Vec<u8>| value.len() < 3;
            if matches!(&step, Step::Put(_, value) | Step::Replace(_, _, value) if bad(value)) {
                continue;
            }
            let events = etcd.events(step);
            fold.apply(events);
        }
        let mut lister = Fold::new(&fresh);
        prop_assert_eq!(fold.peers(), lister.replace(etcd.list()));
        prop_assert_eq!(&*warnings.said(), &*fresh.said());
    }
}
