//! What somebody else did to what overlayd had left: found where what was left is compared with what is there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    net::IpAddr,
};

use overlay_common::map::PeerKey;

use super::observe::Observed;
use crate::netlink::OverlayRule;

/// What is not as it was left, one line each. Other people's routes are theirs.
pub fn between(left: &Observed, found: &Observed) -> Vec<String> {
    let mut drift = Vec::new();
    compare(&left.routes, &found.routes, |key| format!("route {} in the map", key.prefix), &mut drift);
    compare(&left.tunnels, &found.tunnels, |id| format!("tunnel {id} in the map"), &mut drift);
    let peer = |key: &PeerKey| format!("peer {} in the map", IpAddr::from(key.ip));
    compare(&left.peers, &found.peers, peer, &mut drift);
    compare(
        &left.listen_ports,
        &found.listen_ports,
        |port| format!("UDP port {port} in the map"),
        &mut drift,
    );
    let route = |(table, prefix): &_| format!("route {prefix} in the kernel's table {table}");
    compare(&left.kernel_routes, &found.kernel_routes, route, &mut drift);
    let neighbour = |(bridge, ip): &_| format!("neighbour {ip} on interface {bridge}");
    compare(&there(&left.neighbours), &there(&found.neighbours), neighbour, &mut drift);
    let rule = |rule: &OverlayRule| format!("the rule for table {}", rule.table);
    compare(&there(&left.rules), &there(&found.rules), rule, &mut drift);
    drift
}

fn there<K: Ord + Clone>(set: &BTreeSet<K>) -> BTreeMap<K, ()> {
    set.iter().map(|key| (key.clone(), ())).collect()
}

/// Tells which entries are gone, others, or new.
pub fn compare<K: Ord, V: PartialEq>(
    left: &BTreeMap<K, V>,
    found: &BTreeMap<K, V>,
    name: impl Fn(&K) -> String,
    drift: &mut Vec<String>,
) {
    for (key, value) in left {
        match found.get(key) {
            None => drift.push(format!("{} was gone", name(key))),
            Some(other) if other != value => drift.push(format!("{} was changed", name(key))),
            Some(_) => {}
        }
    }
    let new = found.keys().filter(|key| !left.contains_key(*key));
    drift.extend(new.map(|key| format!("{} was somebody else's", name(key))));
}

/// How many lines the log takes at once.
const LINES: usize = 5;

/// One line for the log: the first few, and how many more.
pub fn line(drift: &[impl Display]) -> String {
    let mut words: Vec<String> = drift.iter().take(LINES).map(ToString::to_string).collect();
    if drift.len() > LINES {
        words.push(format!("and {} more", drift.len() - LINES));
    }
    words.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_changed_or_new_is_told_and_the_rest_is_not() {
        let left = BTreeMap::from([(1, 'a'), (2, 'b'), (3, 'c')]);
        let found = BTreeMap::from([(1, 'a'), (2, 'x'), (4, 'd')]);
        let mut drift = Vec::new();
        compare(&left, &found, |key| format!("entry {key}"), &mut drift);
        assert_eq!(drift, ["entry 2 was changed", "entry 3 was gone", "entry 4 was somebody else's"]);
        drift.clear();
        compare(&left, &left, |key| format!("entry {key}"), &mut drift);
        assert!(drift.is_empty());
    }

    #[test]
    fn a_log_line_has_an_end() {
        let drift: Vec<String> = (0..100).map(|n| format!("entry {n} was gone")).collect();
        assert!(line(&drift).ends_with("entry 4 was gone; and 95 more"));
        assert_eq!(line(&drift[..1]), "entry 0 was gone");
    }
}
