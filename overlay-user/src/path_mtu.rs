//! The MTU of the way to each peer, where a router told that it is less than the uplink's (RFC 1191): what to
//! believe of `PATH_MTUS`, and what to forget.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use overlay_common::{
    Encap,
    addr::MapIp,
    map::{MIN_PATH_MTU, PATH_MTU_LIFETIME, PathMtu},
    parse::VXLAN_V4_OVERHEAD,
};

/// Bytes of outer headers that count towards the underlay's MTU.
pub const fn overhead(encap: Encap) -> u32 {
    match encap {
        Encap::Vxlan => VXLAN_V4_OVERHEAD,
    }
}

/// The largest inner packet to a peer, bytes: the overlay's MTU, or less where the way to it carries less.
pub fn inner(overlay_mtu: u32, path_mtu: Option<u32>, encap: Encap) -> u32 {
    path_mtu.map_or(overlay_mtu, |path| overlay_mtu.min(path.saturating_sub(overhead(encap))))
}

/// What is made of `PATH_MTUS`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// The largest outer packet, by peer, where it is believed.
    pub believed: BTreeMap<Ipv4Addr, u32>,
    /// Entries that are of no use any more.
    pub forgotten: BTreeSet<MapIp>,
}

/// Judges the entries of `PATH_MTUS` at the time `now` (nanoseconds of `CLOCK_MONOTONIC`). A path MTU that leaves
/// room for the overlay's MTU lowers nothing: it is kept, since the uplink's may rise, and not believed.
pub fn judge(
    entries: impl IntoIterator<Item = (MapIp, PathMtu)>,
    peers: &BTreeSet<Ipv4Addr>,
    overlay_mtu: u32,
    now: u64,
) -> Judged {
    let mut judged = Judged::default();
    for (key, entry) in entries {
        // A time that is far ahead nobody can have told: it would be believed for ever.
        let valid = now.abs_diff(entry.told) < PATH_MTU_LIFETIME && entry.mtu >= MIN_PATH_MTU;
        match key.to_v4().filter(|ip| valid && peers.contains(ip)) {
            None => drop(judged.forgotten.insert(key)),
            Some(ip) if inner(overlay_mtu, Some(entry.mtu), Encap::Vxlan) < overlay_mtu => {
                judged.believed.insert(ip, entry.mtu);
            }
            Some(_) => {}
        }
    }
    judged
}

/// A peer whose MTU is another now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shift {
    /// The peer.
    pub peer: Ipv4Addr,
    /// The largest outer packet as believed now; `None` where it is the uplink's again.
    pub path_mtu: Option<u32>,
    /// The largest inner packet until now.
    pub before: u32,
    /// The largest inner packet from now on.
    pub after: u32,
}

/// The peers whose MTU the step from `old` to `new` makes another.
pub fn shifts(old: &BTreeMap<Ipv4Addr, u32>, new: &BTreeMap<Ipv4Addr, u32>, overlay_mtu: u32) -> Vec<Shift> {
    let peers: BTreeSet<Ipv4Addr> = old.keys().chain(new.keys()).copied().collect();
    let mtu = |path: Option<u32>| inner(overlay_mtu, path, Encap::Vxlan);
    let shift = |peer: Ipv4Addr| {
        let (before, path_mtu) = (mtu(old.get(&peer).copied()), new.get(&peer).copied());
        Shift { peer, path_mtu, before, after: mtu(path_mtu) }
    };
    peers.into_iter().map(shift).filter(|shift| shift.before != shift.after).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: Ipv4Addr = Ipv4Addr::new(172, 16, 199, 27);
    const NOW: u64 = 5 * PATH_MTU_LIFETIME;

    fn judge_one(ip: Ipv4Addr, mtu: u32, told: u64, overlay_mtu: u32) -> (Option<u32>, bool) {
        let entry = (MapIp::from(ip), PathMtu { told, mtu, ..PathMtu::default() });
        let judged = judge([entry], &[PEER].into(), overlay_mtu, NOW);
        (judged.believed.get(&ip).copied(), judged.forgotten.contains(&entry.0))
    }

    #[test]
    fn a_peers_path_mtu_is_believed_for_its_lifetime() {
        assert_eq!(judge_one(PEER, 1400, NOW, 1450), (Some(1400), false));
        assert_eq!(judge_one(PEER, 1400, NOW - PATH_MTU_LIFETIME + 1, 1450), (Some(1400), false));
        assert_eq!(judge_one(PEER, 1400, NOW - PATH_MTU_LIFETIME, 1450), (None, true));
        // The program's clock is read a moment after ours.
        assert_eq!(judge_one(PEER, 1400, NOW + 1_000, 1450), (Some(1400), false));
        assert_eq!(judge_one(PEER, 1400, u64::MAX, 1450), (None, true));
    }

    #[test]
    fn strangers_and_starving_mtus_are_forgotten() {
        assert_eq!(judge_one([192, 0, 2, 1].into(), 1400, NOW, 1450), (None, true));
        assert_eq!(judge_one(PEER, MIN_PATH_MTU - 1, NOW, 1450), (None, true));
        assert_eq!(judge_one(PEER, MIN_PATH_MTU, NOW, 1450), (Some(MIN_PATH_MTU), false));
        let v6 = MapIp { bytes: [0x20; 16] };
        let judged =
            judge([(v6, PathMtu { told: NOW, mtu: 1400, ..PathMtu::default() })], &[PEER].into(), 1450, NOW);
        assert_eq!(judged.forgotten, [v6].into());
    }

    #[test]
    fn what_lowers_nothing_waits() {
        for mtu in [1500, 1501, 65_535] {
            assert_eq!(judge_one(PEER, mtu, NOW, 1450), (None, false));
        }
        assert_eq!(judge_one(PEER, 1499, NOW, 1450), (Some(1499), false));
        assert_eq!(judge_one(PEER, 1400, NOW, 1350), (None, false));
        assert_eq!(judge_one(PEER, 1500, NOW, 8950), (Some(1500), false));
    }

    #[test]
    fn mtus_fall_and_rise() {
        assert_eq!(
            [None, Some(1400), Some(9000)].map(|path| inner(1450, path, Encap::Vxlan)),
            [1450, 1350, 1450]
        );
        let believed = |mtu: Option<u32>| mtu.map(|mtu| (PEER, mtu)).into_iter().collect::<BTreeMap<_, _>>();
        let shift = |old, new| shifts(&believed(old), &believed(new), 1450);
        let one = |path_mtu, before, after| vec![Shift { peer: PEER, path_mtu, before, after }];
        assert_eq!(shift(None, Some(1400)), one(Some(1400), 1450, 1350));
        assert_eq!(shift(Some(1400), Some(1300)), one(Some(1300), 1350, 1250));
        assert_eq!(shift(Some(1400), None), one(None, 1350, 1450));
        assert_eq!(shift(Some(1400), Some(1400)), []);
    }
}
