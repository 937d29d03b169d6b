//! The MTU matrix: containers of every MTU over uplinks of every MTU, and no traffic stalls or vanishes.
#![expect(clippy::unwrap_used, reason = "set-up that fails is a test that fails")]

mod bed;
mod expected;
mod machine;
mod option;
mod payload;
mod ping;
mod tcp;
mod udp;
mod watch;

use std::time::{Duration, Instant};

use bed::{Bed, Lane};
use expected::{
    Df, Outcome, PAIRS, ROUTER_1400, ROWS, Shot, Teller, UPLINK_1400, UPLINK_1500, UPLINK_1500_CUT,
    UPLINK_9000, row_of, shots,
};
use udp::{Ends, Load};
use watch::{Pairs, Watch};

/// The first host's link, in the wire's namespace: every tunnel packet passes it, once.
const WATCHED: &str = "h1";

/// A setting takes some 20 s; where everything fails, every failure takes seconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// The number of the pair with the largest MTUs.
const LARGEST: u32 = 4;

#[test]
fn the_table_is_complete_and_agrees_with_itself() {
    for setting in [UPLINK_1400, UPLINK_1500, UPLINK_1500_CUT, UPLINK_9000, ROUTER_1400] {
        assert_eq!(setting.overlay, setting.router.unwrap_or(setting.uplink) - 50, "{setting:?}");
        for (here, there) in PAIRS.into_iter().flat_map(|(a, b)| [(a, b), (b, a)]) {
            assert!(shots(&row_of(&setting, here, there)).len() > 20);
        }
    }
    for row in ROWS {
        let back = ROWS.iter().find(|r| (r.overlay, r.here, r.there) == (row.overlay, row.there, row.here));
        assert_eq!(row.path, row.here.min(row.overlay), "{row:?}");
        assert_eq!(row.mss, row.path - 40, "{row:?}");
        assert_eq!(Some(row.payload), back.map(|back| back.mss.min(row.mss) - 12), "{row:?}");
        assert_eq!(row.teller == Teller::Own, row.here <= row.overlay, "{row:?}");
    }
}

#[test]
fn uplink_1400() {
    matrix(&Bed::up(UPLINK_1400), Vec::new());
}

#[test]
fn uplink_1500() {
    matrix(&Bed::up(UPLINK_1500), Vec::new());
}

#[test]
fn uplink_1500_without_offloads() {
    matrix(&Bed::up(UPLINK_1500_CUT), Vec::new());
}

#[test]
fn uplink_9000() {
    matrix(&Bed::up(UPLINK_9000), Vec::new());
}

/// TCP finds the router, and from then on everything is as over uplinks of its MTU.
#[test]
fn router_1400() {
    let bed = Bed::up(ROUTER_1400);
    // Nobody knows of the router yet: the MSS is that of the uplinks.
    let failures = tcp::transfer(&bed.lane(LARGEST, 1, 2), false);
    matrix(&bed, failures);
}

/// UDP finds the router by itself: with DF its sender is told, without it the gateway fragments.
#[test]
fn router_1400_found_by_udp() {
    let bed = Bed::up(ROUTER_1400);
    let (there, back) = (bed.lane(LARGEST, 1, 2), bed.lane(LARGEST, 2, 1));
    let told = Ends::new(&there, Df::Always).fire(Load::datagram(1450), Outcome::Told { mtu: 1350 });
    let arrives = Ends::new(&back, Df::Never).arrives_in_the_end(Load::datagram(1450));
    let failures = [(&there, told), (&back, arrives)]
        .into_iter()
        .filter_map(|(lane, result)| Some(format!("{}: udp: {}", lane.name, result.err()?)));
    report(failures.chain(bed.drops()).collect());
}

/// Every lane, all of its traffic, and what was to be seen on the underlay meanwhile.
fn matrix(bed: &Bed, mut failures: Vec<String>) {
    let watch = Watch::start(bed.wire(), WATCHED).unwrap();
    let start = Instant::now();
    for lane in bed.lanes() {
        if start.elapsed() > PATIENCE {
            failures.push(format!("{}: not tried, {PATIENCE:?} have gone by", lane.name));
            continue;
        }
        failures.extend(tcp::transfer(&lane, true));
        for (shot, outcome) in shots(&lane.row) {
            let result = fire(&lane, shot, outcome);
            failures
                .extend(result.err().map(|e| format!("{}: {shot:?} is to be {outcome:?}: {e}", lane.name)));
        }
    }
    let pairs = watch.finish();
    failures.extend(bed.lanes().iter().flat_map(|lane| underlay(lane, &pairs)));
    failures.extend(bed.drops());
    report(failures);
}

fn fire(lane: &Lane<'_>, shot: Shot, outcome: Outcome) -> Result<(), String> {
    match shot {
        Shot::Udp { df, size } => Ends::new(lane, df).fire(Load::datagram(size), outcome),
        Shot::Gso { df, size, total } => Ends::new(lane, df).fire(Load::aggregate(size, total), outcome),
        Shot::Ping { df, size } => ping::fire(lane, df, size, outcome),
    }
}

fn underlay(lane: &Lane<'_>, pairs: &Pairs) -> Vec<String> {
    let seen = pairs.get(&(lane.from.ip, lane.to.ip)).copied().unwrap_or_default();
    let mut failures = Vec::new();
    if seen.largest != lane.row.path + 50 {
        let (largest, path) = (seen.largest, lane.row.path);
        failures
            .push(format!("{}: the largest tunnel packet has {largest} bytes, not {path} + 50", lane.name));
    }
    if seen.without_df > 0 {
        let (without, all) = (seen.without_df, seen.packets);
        failures.push(format!("{}: {without} of {all} tunnel packets are without DF", lane.name));
    }
    failures
}

fn report(failures: Vec<String>) {
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}
