//! Shows by counters that packets between the sides take the path that a system claims.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use harness::{
    Netns,
    counters::packets,
    traffic::{
        Endpoint, ping,
        tap::{Like, Tap, Way},
        transfer,
    },
    wait::eventually_some,
};

use super::{
    Side, Wire,
    bed::{Bed, Host, UPLINK},
    offloads,
};

/// How many pings there are.
const PINGS: u32 = 5;

/// How many bytes go each way over TCP.
const BYTES: usize = 4 << 20;

/// The largest frame on a wire whose MTU is 1500.
const LARGEST: u32 = 1514;

/// So many packets at least the traffic is, each way: no aggregate is larger than 64 KiB.
const SENT: u64 = PINGS as u64 + (BYTES >> 16) as u64;

/// How often pings are sent until none is lost.
const ATTEMPTS: u32 = 3;

/// How long a counter may lag behind: Open vSwitch collects its own every second or so.
const SETTLED: Duration = Duration::from_secs(3);

/// What may pass where nothing should: neighbour discovery, ARP, a router being looked for.
const STRAY: u64 = 20;

/// How a system moves packets, and what shows it.
pub(super) trait DataPath: Send {
    /// Versions and settings.
    fn describe(&self) -> String;

    /// What its packets are like on the wire, on their way from the one side to the other.
    fn outer(&self, from: &Side, to: &Side) -> Result<Like>;

    /// The counters of its path on a host, as they stand now, always the same ones in the same order.
    fn counters(&self, host: &Host, other: &Host) -> Result<Vec<Counter>>;

    /// Whether the kernel's GRO knows its packets on the wire.
    fn merges(&self) -> bool {
        true
    }
}

/// Packets counted at a place.
pub(super) struct Counter {
    place: String,
    packets: u64,
    must: Must,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Must {
    /// All packets pass here.
    Carry,
    /// None do.
    Rest,
    /// Not even one ever.
    Never,
}

impl Counter {
    pub(super) fn carries(place: impl Into<String>, packets: u64) -> Self {
        Self { place: place.into(), packets, must: Must::Carry }
    }

    pub(super) fn never(place: impl Into<String>, packets: u64) -> Self {
        Self { place: place.into(), packets, must: Must::Never }
    }

    /// A device that all packets pass, in or out.
    pub(super) fn device_carries(ns: &Netns, device: &str) -> Result<Vec<Self>> {
        Self::device(ns, device, Must::Carry)
    }

    /// A device that has nothing to do with it.
    pub(super) fn device_rests(ns: &Netns, device: &str) -> Result<Vec<Self>> {
        Self::device(ns, device, Must::Rest)
    }

    fn device(ns: &Netns, device: &str, must: Must) -> Result<Vec<Self>> {
        let both = packets(ns, device)?;
        let counter = |way, packets| Self { place: format!("{device} {way}"), packets, must };
        Ok(vec![counter("received", both.rx), counter("sent", both.tx)])
    }

    fn judge(&self, before: &Self, host: &str) -> Result<()> {
        let (place, n) = (&self.place, self.packets.saturating_sub(before.packets));
        match self.must {
            Must::Carry => ensure!(n >= SENT, "{place} on {host}: {n} packets, of at least {SENT} sent"),
            Must::Rest => ensure!(n <= STRAY, "{place} on {host}: {n} packets, which should not come there"),
            Must::Never => ensure!(n == 0, "{place} on {host}: {n} packets"),
        }
        Ok(())
    }
}

/// Sends pings, and TCP both ways, and judges what was counted meanwhile.
pub(super) fn prove(bed: &Bed, sides: &[Side; 2], path: &dyn DataPath) -> Result<()> {
    for host in &bed.hosts {
        offloads::ensure_plain(&host.ns, UPLINK)?;
    }
    let namespaces = sides.each_ref().map(|side| Netns::borrow(&side.netns));
    let [client, server] = [0, 1].map(|i| Endpoint { ns: &namespaces[i], ip: sides[i].address });
    // Neighbours are found, endpoints learned.
    ping(client.ns, server.ip, 2)?;
    let read = || -> Result<Vec<Vec<Counter>>> {
        bed.pairs().into_iter().map(|(host, other)| path.counters(host, other)).collect()
    };
    let before = read()?;
    let taps = [
        Taps::open(&bed.hosts[0], path.outer(&sides[0], &sides[1])?)?,
        Taps::open(&bed.hosts[1], path.outer(&sides[1], &sides[0])?)?,
    ];
    exchange(client, server).with_context(|| format!("between {} and {}", sides[0].name, sides[1].name))?;
    eventually_some("the counters agree", SETTLED, || judge(bed, &before, &read()?).map(Some))?;
    let mut taps = bed.hosts.iter().zip(&taps);
    taps.try_for_each(|(host, taps)| taps.judge(host.name, bed.wire, path.merges()))
}

/// The traffic that is counted.
fn exchange(client: Endpoint<'_, IpAddr>, server: Endpoint<'_, IpAddr>) -> Result<()> {
    let mut pings = ping(client.ns, server.ip, PINGS)?;
    // Where a switch in userspace waits for a busy machine's CPU, replies come too late: not so every time.
    for _ in 1..ATTEMPTS {
        if !pings.clean() {
            pings = ping(client.ns, server.ip, PINGS)?;
        }
    }
    ensure!(pings.clean(), "{}", pings.text.trim());
    transfer(client, server, BYTES).context("TCP")
}

fn judge(bed: &Bed, before: &[Vec<Counter>], after: &[Vec<Counter>]) -> Result<()> {
    for (host, (before, after)) in bed.hosts.iter().zip(before.iter().zip(after)) {
        ensure!(before.len() == after.len(), "a counter came or went on {}", host.name);
        after.iter().zip(before).try_for_each(|(after, before)| after.judge(before, host.name))?;
    }
    Ok(())
}

/// What is looked for in the frames of a host's uplink.
struct Taps {
    outer: Like,
    claimed: Tap,
    large_out: Tap,
    large_in: Tap,
}

impl Taps {
    fn open(host: &Host, outer: Like) -> Result<Self> {
        let tap = |way, like| Tap::on(&host.ns, UPLINK, way, like);
        let large = Like::LongerThan(LARGEST);
        Ok(Self {
            outer,
            claimed: tap(Way::Out, outer)?,
            large_out: tap(Way::Out, large)?,
            large_in: tap(Way::In, large)?,
        })
    }

    fn judge(&self, host: &str, wire: Wire, merges: bool) -> Result<()> {
        let (outer, claimed) = (self.outer, self.claimed.count()?);
        ensure!(
            claimed >= SENT,
            "{UPLINK} of {host} sent {claimed} frames like {outer:?}, of at least {SENT}"
        );
        if wire == Wire::Mtu {
            let (large, merged) = (self.large_out.count()?, self.large_in.count()?);
            ensure!(
                large == 0,
                "{UPLINK} of {host} sent {large} frames of more than {LARGEST} bytes on a wire of 1500"
            );
            ensure!(merged > 0 || !merges, "{UPLINK} of {host}: GRO merged nothing");
        }
        Ok(())
    }
}

/// Packets that carry the sides' own addresses: neither encapsulated nor masqueraded.
pub(super) fn between(from: &Side, to: &Side) -> Result<Like> {
    match (from.address, to.address) {
        (IpAddr::V4(from), IpAddr::V4(to)) => Ok(Like::Between(from, to)),
        (from, to) => bail!("{from} and {to} are not both IPv4 addresses"),
    }
}
