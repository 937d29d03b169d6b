//! What every cell of the matrix must show: reasoned out, and written down before it was run.
//!
//! The overlay MTU is the uplink's less 50 (outer IPv4 20, UDP 8, VXLAN 8, inner Ethernet 14), and behind a router
//! that takes less, the router's less 50. A packet's size is that of its IP packet, header included.
//!
//! | traffic | what the application sees |
//! |---|---|
//! | TCP | all bytes arrive, both ways, in [`TRANSFER_DEADLINE`]; the MSS in a SYN is clamped on the way, so that no segment needs an ICMP message |
//! | UDP with DF (`IP_PMTUDISC_DO`) | up to `path` it arrives; larger than the container's MTU: EMSGSIZE at once; in between it is lost, once: within [`TOLD_DEADLINE`] the gateway's ICMP makes the socket fail with EMSGSIZE and `IP_MTU` tell `path`, and then `path` arrives |
//! | UDP as Linux sends it by default (`IP_PMTUDISC_WANT`) | the same, but what is larger than the known path MTU is fragmented by the sender, and arrives |
//! | UDP without DF (`IP_PMTUDISC_DONT`) | every size arrives whole, at the first attempt: the gateway fragments what is larger than the overlay MTU |
//! | UDP GSO, segments that fit | all segments arrive, with their sizes; also where the aggregate has more than 65,535 bytes with the outer headers and therefore goes through the tunnel device, and at 65,507 bytes, which the sender's own kernel cuts (a device takes less than 65,536 with the Ethernet header) |
//! | UDP GSO, segments larger than `path`, no larger than the container's MTU | with DF as UDP with DF; by default without DF (the kernel sets it by the whole aggregate's size, which exceeds every MTU), so each segment is fragmented by the gateway and arrives |
//! | UDP GSO, segments larger than the container's MTU | refused by the sender's kernel: EMSGSIZE, before 6.14 EINVAL |
//! | ping with DF | up to `path` it is answered; one byte more: the container's own error, or "Frag needed … mtu = `path`" from the gateway |
//! | ping without DF | every size is answered |
//!
//! A receiver whose MTU is less than the overlay's takes what comes: an MTU limits what a device sends, and delivery
//! is straight into the container. So a sender is told nothing of it; TCP knows by its peer's MSS.
//!
//! On the underlay: every tunnel packet carries DF, none is larger than the uplink's MTU, and the largest of each
//! pair is its `path` + 50, so the MTU there is, is used. No packet is counted as dropped.

use std::time::Duration;

/// Bytes that a TCP transfer moves in each direction.
pub(crate) const TRANSFER: usize = 1 << 20;

/// No stall: a retransmission timer (1 s before a round-trip time is known) may run out on a busy machine, not more.
pub(crate) const TRANSFER_DEADLINE: Duration = Duration::from_secs(10);

/// Until then a sender of too large packets knows the path MTU. On an idle machine it takes a millisecond.
pub(crate) const TOLD_DEADLINE: Duration = Duration::from_secs(5);

/// How the hosts are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) name: &'static str,
    /// The MTU of both uplinks.
    pub(crate) uplink: u32,
    /// The MTU of the link between two routers on the way, where there are routers. The first packets that are too large for it are
    /// lost, and the hosts are told; the rows hold from then on, as without a router.
    pub(crate) router: Option<u32>,
    /// Whether the hosts cut aggregates into packets themselves, as for a device without offloads.
    pub(crate) cut: bool,
    /// The overlay MTU, with a router once the hosts know of it.
    pub(crate) overlay: u32,
}

pub(crate) const UPLINK_1400: Setting =
    Setting { name: "uplink 1400", uplink: 1400, router: None, cut: false, overlay: 1350 };
pub(crate) const UPLINK_1500: Setting =
    Setting { name: "uplink 1500", uplink: 1500, router: None, cut: false, overlay: 1450 };
pub(crate) const UPLINK_1500_CUT: Setting =
    Setting { name: "uplink 1500 without offloads", uplink: 1500, router: None, cut: true, overlay: 1450 };
pub(crate) const UPLINK_9000: Setting =
    Setting { name: "uplink 9000", uplink: 9000, router: None, cut: false, overlay: 8950 };
pub(crate) const ROUTER_1400: Setting =
    Setting { name: "router 1400", uplink: 1500, router: Some(1400), cut: false, overlay: 1350 };

/// Who tells a sender that a packet with DF is too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Teller {
    /// Its own kernel: the container's MTU is the limit.
    Own,
    /// The gateway, by ICMP: the overlay MTU is the limit.
    Gateway,
}
use Teller::{Gateway, Own};

/// What is true from one container to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// The overlay MTU.
    pub(crate) overlay: u32,
    /// The sender's MTU, and the receiver's.
    pub(crate) here: u32,
    pub(crate) there: u32,
    /// The largest packet with DF.
    pub(crate) path: u32,
    /// Who speaks up at one byte more.
    pub(crate) teller: Teller,
    /// The MSS option of the sender's SYN, as the receiver gets it.
    pub(crate) mss: u32,
    /// What the sender puts into a TCP segment from the start: the lesser MSS of the two, less 12 for timestamps.
    pub(crate) payload: u32,
}

#[rustfmt::skip]
pub(crate) const ROWS: [Row; 18] = [
    row(1350, 1280, 1280,  1280, Own,      1240, 1228),
    row(1350, 1450, 1450,  1350, Gateway,  1310, 1298),
    row(1350, 1500, 1500,  1350, Gateway,  1310, 1298),
    row(1350, 9000, 9000,  1350, Gateway,  1310, 1298),
    row(1350, 1500, 1280,  1350, Gateway,  1310, 1228),
    row(1350, 1280, 1500,  1280, Own,      1240, 1228),

    row(1450, 1280, 1280,  1280, Own,      1240, 1228),
    row(1450, 1450, 1450,  1450, Own,      1410, 1398),
    row(1450, 1500, 1500,  1450, Gateway,  1410, 1398),
    row(1450, 9000, 9000,  1450, Gateway,  1410, 1398),
    row(1450, 1500, 1280,  1450, Gateway,  1410, 1228),
    row(1450, 1280, 1500,  1280, Own,      1240, 1228),

    row(8950, 1280, 1280,  1280, Own,      1240, 1228),
    row(8950, 1450, 1450,  1450, Own,      1410, 1398),
    row(8950, 1500, 1500,  1500, Own,      1460, 1448),
    row(8950, 9000, 9000,  8950, Gateway,  8910, 8898),
    row(8950, 1500, 1280,  1500, Own,      1460, 1228),
    row(8950, 1280, 1500,  1280, Own,      1240, 1228),
];

const fn row(overlay: u32, here: u32, there: u32, path: u32, teller: Teller, mss: u32, payload: u32) -> Row {
    Row { overlay, here, there, path, teller, mss, payload }
}

/// The MTUs of the containers of the first host, and of their partners on the second.
pub(crate) const PAIRS: [(u32, u32); 5] =
    [(1280, 1280), (1450, 1450), (1500, 1500), (9000, 9000), (1500, 1280)];

/// The row of a setting and a pair.
pub(crate) fn row_of(setting: &Setting, here: u32, there: u32) -> Row {
    let fits = |row: &&Row| (row.overlay, row.here, row.there) == (setting.overlay, here, there);
    *ROWS.iter().find(fits).unwrap_or_else(|| panic!("no row for {} {here} -> {there}", setting.name))
}

/// What a sender sets in `IP_MTU_DISCOVER`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Df {
    /// `IP_PMTUDISC_DO`
    Always,
    /// `IP_PMTUDISC_WANT`, the default
    Default,
    /// `IP_PMTUDISC_DONT`
    Never,
}

/// What is sent once. Sizes are those of the IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shot {
    Udp {
        df: Df,
        size: u32,
    },
    /// `total` bytes of payload, cut by the kernel into packets of `size`.
    Gso {
        df: Df,
        size: u32,
        total: u32,
    },
    Ping {
        df: Df,
        size: u32,
    },
}

/// What becomes of it, with nothing known of the path before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// At the first attempt, whole, with the right content; a ping is answered.
    Arrives,
    /// The sender's kernel refuses it; it knows this MTU.
    Refused { mtu: u32 },
    /// Lost, the gateway tells this MTU; what is sent according to it then arrives.
    Told { mtu: u32 },
}
use Outcome::{Arrives, Refused, Told};

/// The largest IPv4 packet.
const MOST: u32 = 65_535;
/// The most that a UDP datagram, or an aggregate of them, carries. The sender's kernel cuts such an aggregate.
const MOST_PAYLOAD: u32 = MOST - 28;
/// The most that leaves a container whole: 65,535 bytes with the Ethernet header. With outer headers it is more than
/// an IPv4 packet can be: this needs the tunnel device.
const WHOLE_PAYLOAD: u32 = MOST - 14 - 28;
/// An aggregate that still fits with outer headers.
const LARGE_PAYLOAD: u32 = 60_000;

/// Everything that is sent once from one container to another.
pub(crate) fn shots(row: &Row) -> Vec<(Shot, Outcome)> {
    let Row { here, path, .. } = *row;
    let larger = if row.teller == Own { Refused { mtu: here } } else { Told { mtu: path } };
    let mut shots = Vec::new();
    let udp = |df, size| Shot::Udp { df, size };
    let ping = |df, size| Shot::Ping { df, size };
    for size in [100, path] {
        shots.extend([Df::Always, Df::Default, Df::Never].map(|df| (udp(df, size), Arrives)));
        shots.extend([Df::Always, Df::Never].map(|df| (ping(df, size), Arrives)));
    }
    shots.extend([(udp(Df::Always, path + 1), larger), (ping(Df::Always, path + 1), larger)]);
    shots.push((udp(Df::Always, here + 1), Refused { mtu: here }));
    for size in [path + 1, here, here + 1, 20_028, MOST] {
        // What the sender's own kernel cuts, it sends without DF.
        let by_default = if size > path && size <= here { Told { mtu: path } } else { Arrives };
        shots.push((udp(Df::Default, size), by_default));
        shots.push((udp(Df::Never, size), Arrives));
        shots.push((ping(Df::Never, size), Arrives));
    }
    shots.extend(gso(row));
    // Where the container's own MTU is the limit, the sizes around it are asked for twice.
    let mut seen = Vec::new();
    shots.retain(|(shot, _)| {
        !seen.contains(shot) && {
            seen.push(*shot);
            true
        }
    });
    shots
}

fn gso(row: &Row) -> Vec<(Shot, Outcome)> {
    let Row { here, path, .. } = *row;
    let gso = |df, size, total| Shot::Gso { df, size, total };
    let mut shots = vec![
        (gso(Df::Default, 128, 6400), Arrives),
        (gso(Df::Default, path, 5 * (path - 28)), Arrives),
        (gso(Df::Default, path, LARGE_PAYLOAD), Arrives),
        (gso(Df::Always, path, LARGE_PAYLOAD), Arrives),
        (gso(Df::Default, path, WHOLE_PAYLOAD), Arrives),
        (gso(Df::Always, path, WHOLE_PAYLOAD), Arrives),
        (gso(Df::Always, path, MOST_PAYLOAD), Arrives),
        (gso(Df::Always, here + 1, LARGE_PAYLOAD), Refused { mtu: here }),
        (gso(Df::Default, here + 1, LARGE_PAYLOAD), Refused { mtu: here }),
    ];
    if row.teller == Gateway {
        shots.push((gso(Df::Default, path + 1, LARGE_PAYLOAD), Arrives));
        shots.push((gso(Df::Default, here, LARGE_PAYLOAD), Arrives));
        shots.push((gso(Df::Always, path + 1, LARGE_PAYLOAD), Told { mtu: path }));
        shots.push((gso(Df::Always, here, LARGE_PAYLOAD), Told { mtu: path }));
    }
    shots
}
