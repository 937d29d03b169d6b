//! What iptables-save and nft print, jumps in circles included: it is followed to an end, and told in lines.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};

use libfuzzer_sys::fuzz_target;
use overlay_user::netfilter::{Bridge, Reading, Surroundings, look};

fuzz_target!(|text: &str| {
    let ports = BTreeSet::from(["veth1".to_owned(), "veth2".to_owned()]);
    let address = "172.17.0.1/16".parse().unwrap();
    let bridge = Bridge { name: "docker0".to_owned(), address, ports };
    let peers = vec!["172.27.0.0/16".parse().unwrap()];
    let bridges = BTreeMap::from([(3, bridge)]);
    let around = Surroundings { bridges, uplink: "eth0".to_owned(), peers, mtu: 1450 };
    let findings = look(&Reading::printed(text), &around);
    assert!(findings.notes.iter().all(|note| !note.contains('\n')), "{:?}", findings.notes);
});
