//! The uplinks, and the ways through them to a peer.

use std::collections::BTreeMap;

use nix::net::if_::if_indextoname;
use overlay_common::{
    addr::MapIp,
    map::{DecapState, Hop, MAX_HOPS, Tunnel},
};
use serde::Serialize;

use super::report::address;
use crate::{
    datapath::{DatapathError, map::Maps},
    netlink::netns,
    status,
};

/// An uplink in `overlayctl status`.
#[derive(Debug, Serialize)]
pub struct Uplink {
    /// Its name; its index, as `#7`, where it is gone, or in another network namespace than overlayctl.
    pub name: String,
    /// Its index.
    pub ifindex: u32,
    /// Where its tunnel packets are decapsulated: `tc`, `xdp`, or `trial` for tc until XDP has proved itself.
    pub decap: &'static str,
    /// Why there.
    pub decap_reason: String,
}

/// A way to a peer in `overlayctl peers`.
#[derive(Debug, Serialize)]
pub struct Way {
    /// The uplink's name.
    pub uplink: String,
    /// Its neighbour that packets go to: a gateway, or the peer itself.
    pub next_hop: String,
    /// How many of eight flows take this way.
    pub share: usize,
}

/// Names by index.
pub(super) struct Names {
    here: bool,
    /// The first uplink, whose name the daemon has told.
    first: (u32, String),
}

impl Names {
    /// As far as they can be known.
    pub(super) fn of(maps: &Maps) -> Result<Self, DatapathError> {
        let told = maps.status()?;
        let here = netns::is_here(told.netns_cookie).unwrap_or_default();
        Ok(Self { here, first: (told.uplink, status::text(&told.uplink_name)) })
    }

    fn get(&self, index: u32) -> String {
        let (first, name) = &self.first;
        if *first == index && !name.is_empty() {
            return name.clone();
        }
        let found = self.here.then(|| if_indextoname(index).ok()).flatten();
        let found = found.and_then(|name| name.into_string().ok());
        found.unwrap_or_else(|| format!("#{index}"))
    }
}

/// The uplinks, the first first.
pub(super) fn all(maps: &Maps, names: &Names) -> Result<Vec<Uplink>, DatapathError> {
    let mut indexes: Vec<u32> = maps.uplinks()?.into_iter().map(|(index, _)| index).collect();
    indexes.sort_unstable_by_key(|index| (*index != names.first.0, *index));
    indexes.into_iter().map(|index| uplink(maps, names, index)).collect()
}

fn uplink(maps: &Maps, names: &Names, ifindex: u32) -> Result<Uplink, DatapathError> {
    let entry = maps.decap(ifindex)?;
    let state = entry.map_or(DecapState::Tc, |entry| DecapState::from_number(entry.state));
    let decap = match state {
        // What is left of XDP is for a moment, and nobody's concern.
        DecapState::Draining => DecapState::Tc.name(),
        state => state.name(),
    };
    let decap_reason = entry.map(|entry| status::text(&entry.reason)).unwrap_or_default();
    Ok(Uplink { name: names.get(ifindex), ifindex, decap, decap_reason })
}

/// The ways of a tunnel, the widest first.
pub(super) fn ways(tunnel: &Tunnel, names: &Names) -> Vec<Way> {
    let mut shares: BTreeMap<Hop, usize> = BTreeMap::new();
    for hop in tunnel.hops {
        *shares.entry(hop).or_default() += 1;
    }
    let mut ways: Vec<Way> = shares
        .into_iter()
        .map(|(hop, share)| Way { uplink: names.get(hop.uplink), next_hop: address(hop.next_hop), share })
        .collect();
    ways.sort_by_key(|way| std::cmp::Reverse(way.share));
    ways
}

/// `eth0`, `eth0 192.0.2.1` by a gateway, or `eth0 192.0.2.1 4/8, eth1 198.51.100.1 4/8`.
pub(super) fn describe(ways: &[Way], peer: &str) -> String {
    let words = ways.iter().map(|way| {
        let mut words = way.uplink.clone();
        if way.next_hop != peer {
            words = format!("{words} {}", way.next_hop);
        }
        if ways.len() > 1 { format!("{words} {}/{MAX_HOPS}", way.share) } else { words }
    });
    words.collect::<Vec<_>>().join(", ")
}

/// The address that stands first where one is asked for: IPv4, or else IPv6.
pub(super) fn first_address(v4: MapIp, v6: MapIp) -> String {
    address(if v4 == MapIp::default() { v6 } else { v4 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_are_told_shortly() {
        let way = |uplink: &str, next_hop: &str, share| Way {
            uplink: uplink.into(),
            next_hop: next_hop.into(),
            share,
        };
        assert_eq!(describe(&[way("eth0", "192.0.2.7", 8)], "192.0.2.7"), "eth0");
        assert_eq!(describe(&[way("eth0", "192.0.2.1", 8)], "192.0.2.7"), "eth0 192.0.2.1");
        let two = [way("eth0", "192.0.2.1", 5), way("eth1", "192.0.2.7", 3)];
        assert_eq!(describe(&two, "192.0.2.7"), "eth0 192.0.2.1 5/8, eth1 3/8");
    }
}
