//! The MTU of the way to each peer, where a router told that it is less than the uplink's (RFC 1191, RFC 8201): what
//! to believe of `PATH_MTUS`, and what to forget.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use overlay_common::{
    Encap, Mac, Vni,
    addr::MapIp,
    map::{MIN_PATH_MTU, MIN_PATH_MTU_V6, PATH_MTU_LIFETIME, PathMtu},
    parse::VXLAN_V4_OVERHEAD,
    template::{Ends, Headers, Macs, Shell, Underlay},
    wire::eth::ETHERTYPE_IPV4,
};

/// Bytes of outer headers that count towards the underlay's MTU, to a peer at this address.
pub fn overhead(encap: Encap, gre_key: Option<u32>, peer: IpAddr) -> u32 {
    let macs = Macs { src: Mac::default(), dst: Mac::default() };
    let Some(shell) = Shell::of(encap, Ends { port: 0, vni: Vni::DEFAULT, gre_key, macs }) else { return 0 };
    let underlay = match peer {
        IpAddr::V4(_) => Underlay::V4 { src: [0; 4], dst: [0; 4] },
        IpAddr::V6(_) => Underlay::V6 { src: [0; 16], dst: [0; 16] },
    };
    Headers { underlay, carries: ETHERTYPE_IPV4, shell }.compile().overhead() as u32
}

/// The least that a VXLAN tunnel's outer headers take, bytes: what any peer can be reached by.
pub const LEAST_OVERHEAD: u32 = VXLAN_V4_OVERHEAD;

/// The largest inner packet to a peer, bytes: `most`, what fits the uplinks, or less where the way to it carries less
/// than `overhead` and that.
pub fn inner(most: u32, path_mtu: Option<u32>, overhead: u32) -> u32 {
    path_mtu.map_or(most, |path| most.min(path.saturating_sub(overhead)))
}

/// What is made of `PATH_MTUS`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// The largest outer packet, by peer, where it is believed.
    pub believed: BTreeMap<IpAddr, u32>,
    /// Entries that are of no use any more.
    pub forgotten: BTreeSet<MapIp>,
}

/// Judges the entries of `PATH_MTUS` at the time `now` (nanoseconds of `CLOCK_MONOTONIC`). `most` tells the largest
/// inner packet to a peer that fits the uplinks, and the outer headers' bytes. A path MTU that leaves room for it lowers nothing: it is kept, since
/// an uplink's may rise, and not believed.
pub fn judge(
    entries: impl IntoIterator<Item = (MapIp, PathMtu)>,
    is_peer: impl Fn(IpAddr) -> bool,
    most: impl Fn(IpAddr) -> (u32, u32),
    now: u64,
) -> Judged {
    let mut judged = Judged::default();
    for (key, entry) in entries {
        let peer = IpAddr::from(key);
        let least = if peer.is_ipv4() { MIN_PATH_MTU } else { MIN_PATH_MTU_V6 };
        // A time that is far ahead nobody can have told: it would be believed for ever.
        let valid = now.abs_diff(entry.told) < PATH_MTU_LIFETIME && entry.mtu >= least;
        if !valid || !is_peer(peer) {
            judged.forgotten.insert(key);
            continue;
        }
        let (most, overhead) = most(peer);
        if inner(most, Some(entry.mtu), overhead) < most {
            judged.believed.insert(peer, entry.mtu);
        }
    }
    judged
}

/// A peer whose MTU is another now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shift {
    /// The peer.
    pub peer: IpAddr,
    /// The largest outer packet as believed now; `None` where it is the uplink's again.
    pub path_mtu: Option<u32>,
    /// The largest inner packet until now.
    pub before: u32,
    /// The largest inner packet from now on.
    pub after: u32,
}

/// The peers whose MTU the step from `old` to `new` makes another, given `most`, as [`judge`] takes it.
pub fn shifts(
    old: &BTreeMap<IpAddr, u32>,
    new: &BTreeMap<IpAddr, u32>,
    most: impl Fn(IpAddr) -> (u32, u32),
) -> Vec<Shift> {
    let peers: BTreeSet<IpAddr> = old.keys().chain(new.keys()).copied().collect();
    let shift = |peer: IpAddr| {
        let (most, overhead) = most(peer);
        let mtu = |path: Option<u32>| inner(most, path, overhead);
        let (before, path_mtu) = (mtu(old.get(&peer).copied()), new.get(&peer).copied());
        Shift { peer, path_mtu, before, after: mtu(path_mtu) }
    };
    peers.into_iter().map(shift).filter(|shift| shift.before != shift.after).collect()
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 16, 199, 27));
    const PEER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 27));
    const NOW: u64 = 5 * PATH_MTU_LIFETIME;

    fn vxlan(peer: IpAddr) -> u32 {
        overhead(Encap::Vxlan, None, peer)
    }

    #[test]
    fn what_each_kind_takes() {
        use Encap::*;
        let of = |encap| [None, Some(7)].map(|key| [PEER, PEER_V6].map(|peer| overhead(encap, key, peer)));
        let table = [Vxlan, Geneve, Gre, GreL3, Ipip, Direct].map(of);
        assert_eq!(
            table,
            [
                [[50, 70], [50, 70]],
                [[50, 70], [50, 70]],
                [[38, 58], [42, 62]],
                [[24, 44], [28, 48]],
                [[20, 40], [20, 40]],
                [[0, 0], [0, 0]],
            ]
        );
    }

    fn judge_one(ip: IpAddr, mtu: u32, told: u64, most: u32) -> (Option<u32>, bool) {
        let entry = (MapIp::from(ip), PathMtu { told, mtu, ..PathMtu::default() });
        let judged = judge([entry], |ip| [PEER, PEER_V6].contains(&ip), |ip| (most, vxlan(ip)), NOW);
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
        let [v4, v6]: [IpAddr; 2] = [[192, 0, 2, 1].into(), [0x20; 16].into()];
        assert_eq!([v4, v6].map(|ip| judge_one(ip, 1400, NOW, 1450)), [(None, true); 2]);
        for (peer, least) in [(PEER, MIN_PATH_MTU), (PEER_V6, MIN_PATH_MTU_V6)] {
            assert_eq!(judge_one(peer, least - 1, NOW, 1450), (None, true));
            assert_eq!(judge_one(peer, least, NOW, 1450), (Some(least), false));
        }
    }

    #[test]
    fn what_lowers_nothing_waits() {
        for mtu in [1500, 1501, 65_535] {
            assert_eq!(judge_one(PEER, mtu, NOW, 1450), (None, false));
        }
        assert_eq!(judge_one(PEER, 1499, NOW, 1450), (Some(1499), false));
        assert_eq!(judge_one(PEER, 1400, NOW, 1350), (None, false));
        assert_eq!(judge_one(PEER, 1500, NOW, 8950), (Some(1500), false));
        // The outer IPv6 header is 20 bytes longer.
        assert_eq!(judge_one(PEER_V6, 1500, NOW, 1430), (None, false));
        assert_eq!(judge_one(PEER_V6, 1499, NOW, 1430), (Some(1499), false));
    }

    #[test]
    fn mtus_fall_and_rise() {
        assert_eq!([None, Some(1400), Some(9000)].map(|path| inner(1450, path, 50)), [1450, 1350, 1450]);
        assert_eq!(inner(1430, Some(1400), 70), 1330);
        let believed = |mtu: Option<u32>| mtu.map(|mtu| (PEER, mtu)).into_iter().collect::<BTreeMap<_, _>>();
        let shift = |old, new| shifts(&believed(old), &believed(new), |_| (1450, 50));
        let one = |path_mtu, before, after| vec![Shift { peer: PEER, path_mtu, before, after }];
        assert_eq!(shift(None, Some(1400)), one(Some(1400), 1450, 1350));
        assert_eq!(shift(Some(1400), Some(1300)), one(Some(1300), 1350, 1250));
        assert_eq!(shift(Some(1400), None), one(None, 1350, 1450));
        assert_eq!(shift(Some(1400), Some(1400)), []);
    }
}
