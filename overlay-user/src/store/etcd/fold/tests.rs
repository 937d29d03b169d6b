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

fn host(update: Option<Update>) -> Option<u8> {
    match update {
        Some(Update::Put(peer)) => Some(peer.public_ip.octets()[3]),
        Some(other) => panic!("{other:?}"),
        None => None,
    }
}

#[test]
fn a_bad_edit_keeps_the_last_good_state_and_a_delete_ends_it() {
    let warnings = Warnings::default();
    let mut fold = Fold::new(SUBNETS, &warnings);
    assert_eq!(host(fold.put(&key("10.9.0.0-24"), &value(7))), Some(7));
    assert_eq!(fold.put(&key("10.9.0.0-24"), b"{"), None);
    assert_eq!(fold.replace(vec![(key("10.9.0.0-24"), b"{".to_vec())]).len(), 1);
    assert_eq!(fold.put(&key("10.9.0.0-24"), &value(7)), None);
    assert_eq!(host(fold.put(&key("10.9.0.0-24"), &value(8))), Some(8));
    assert_eq!(fold.delete(&key("10.9.0.0-24")), Some(Update::Delete("10.9.0.0/24".parse().unwrap())));
    assert_eq!(fold.delete(&key("10.9.0.0-24")), None);
}

#[test]
fn another_backend_is_no_peer_any_more() {
    let warnings = Warnings::default();
    let mut fold = Fold::new(SUBNETS, &warnings);
    fold.put(&key("10.9.0.0-24"), &value(7));
    let other = br#"{"PublicIP":"192.0.2.7","BackendType":"host-gw"}"#;
    assert_eq!(fold.put(&key("10.9.0.0-24"), other), Some(Update::Delete("10.9.0.0/24".parse().unwrap())));
}

#[test]
fn two_keys_of_one_subnet() {
    let warnings = Warnings::default();
    let mut fold = Fold::new(SUBNETS, &warnings);
    assert_eq!(host(fold.put(&key("10.9.0.0-24&fc00::-64"), &value(1))), Some(1));
    assert_eq!(host(fold.put(&key("10.9.0.0-2"), &value(9))), None, "10.9.0.0/2 has host bits");
    assert_eq!(host(fold.put(&key("10.9.0.0-24"), &value(2))), Some(2));
    assert_eq!(host(fold.put(&key("10.9.0.0-24&fc00::-64"), &value(3))), None);
    assert_eq!(host(fold.delete(&key("10.9.0.0-24"))), Some(3));
}

#[test]
fn trouble_is_said_once() {
    let warnings = Warnings::default();
    let said = || warnings.said().clone();
    let mut fold = Fold::new(SUBNETS, &warnings);
    fold.put(&key("nonsense"), &value(1));
    fold.put(&key("10.9.0.0-24"), b"[]");
    let first = said();
    assert_eq!(first.len(), 2);
    fold.replace(vec![(key("nonsense"), value(2)), (key("10.9.0.0-24"), b"[]".to_vec())]);
    assert_eq!(said(), first);
    fold.put(&key("10.9.0.0-24"), &value(1));
    fold.delete(&key("nonsense"));
    assert!(said().is_empty());
}

#[derive(Clone, Debug)]
enum Step {
    Put(String, Vec<u8>),
    Delete(String),
    Relist,
}

fn step() -> impl Strategy<Value = Step> {
    let name = prop_oneof![
        (0u8..4).prop_map(|n| format!("10.{n}.0.0-16")),
        (0u8..4).prop_map(|n| format!("10.{n}.0.0-16&fc00::-64")),
        Just("odd".to_owned()),
    ];
    let value = prop_oneof![(1u8..5).prop_map(value), Just(b"{".to_vec()), Just(b"{}".to_vec())];
    prop_oneof![
        4 => (name.clone(), value).prop_map(|(name, value)| Step::Put(name, value)),
        2 => name.prop_map(Step::Delete),
        1 => Just(Step::Relist),
    ]
}

proptest! {
    /// Whoever applies the updates one by one holds what a snapshot at the end would say.
    #[test]
    fn updates_add_up_to_the_snapshot(steps in proptest::collection::vec(step(), 0..40)) {
        let warnings = Warnings::default();
        let mut fold = Fold::new(SUBNETS, &warnings);
        let mut etcd: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let mut receiver: BTreeMap<Ipv4Net, PeerSubnet> = BTreeMap::new();
        for step in steps {
            let update = match step {
                Step::Put(name, value) => {
                    etcd.insert(key(&name), value.clone());
                    fold.put(&key(&name), &value)
                }
                Step::Delete(name) => {
                    etcd.remove(&key(&name));
                    fold.delete(&key(&name))
                }
                Step::Relist => Some(Update::Snapshot(fold.replace(etcd.clone().into_iter().collect()).clone())),
            };
            match update {
                Some(Update::Put(peer)) => drop(receiver.insert(peer.subnet, peer)),
                Some(Update::Delete(subnet)) => drop(receiver.remove(&subnet)),
                Some(Update::Snapshot(all)) => receiver = all,
                Some(Update::Health(_)) | None => {}
            }
        }
        prop_assert_eq!(&receiver, fold.replace(etcd.into_iter().collect()));
    }
}
