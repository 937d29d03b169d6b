//! Who sends tunnel packets and is no peer: named, since a peer behind NAT looks like this. The programs count such
//! packets; where the count rises, drops are sampled for a moment, as `overlayctl drops --follow` does.

use std::{
    collections::BTreeMap,
    fs::File,
    net::IpAddr,
    time::{Duration, Instant, SystemTime},
};

use aya::maps::{MapData, RingBuf};
use overlay_common::{
    DropReason,
    map::{Sample, Sampling},
};
use tracing::debug;

use super::{Daemon, notes::Source};
use crate::{
    ctl::{
        follow,
        sample::{Clocks, Row},
    },
    datapath::map::Maps,
    endpoints::monotonic_now,
    exit::one_line,
};

/// Samples are taken until somebody is seen, and for this long at most: who sends seldom is not to slip through.
const MOMENT: Duration = Duration::from_secs(4);
/// And, once somebody was seen, no more often than this: anybody may send.
const PAUSE: Duration = Duration::from_secs(30);
/// Who is silent for this long is named no more.
const NAMED: Duration = Duration::from_secs(600);
/// The most that are named: a flood comes from everywhere.
const MOST: usize = 3;

/// Samples that are being taken. Nobody else may read them meanwhile.
struct Listening {
    samples: RingBuf<MapData>,
    since: u64,
    began: Instant,
    _lock: File,
}

/// Who was seen.
#[derive(Default)]
pub(super) struct Watch {
    counted: u64,
    listening: Option<Listening>,
    /// When somebody was last seen.
    seen: Option<Instant>,
    named: BTreeMap<IpAddr, Instant>,
}

impl Daemon {
    /// Looks whether strangers send, and who.
    pub(super) fn watch_strangers(&mut self) {
        if let Err(error) = self.look_at_strangers() {
            debug!("cannot tell who sends and is no peer: {}", one_line(&error));
        }
        let watch = &mut self.strangers;
        watch.named.retain(|_, seen| seen.elapsed() < NAMED);
        let named: Vec<String> = watch.named.keys().map(ToString::to_string).collect();
        let note = (!named.is_empty()).then(|| {
            format!(
                "tunnel packets from {} are dropped (unknown_peer), since no peer has that address: a peer behind NAT has \
                 to announce it, with --src-ip",
                named.join(", ")
            )
        });
        if self.notes.get(&Source::Strangers).map(Vec::as_slice).unwrap_or_default() != note.as_slice() {
            self.note(Source::Strangers, note.into_iter().collect());
        }
    }

    fn look_at_strangers(&mut self) -> anyhow::Result<()> {
        let watch = &mut self.strangers;
        if let Some(mut listening) = watch.listening.take() {
            let before = watch.seen;
            let clocks = Clocks { monotonic: monotonic_now(), wall: SystemTime::now() };
            while let Some(bytes) = listening.samples.next() {
                let Ok(sample) = bytemuck::try_pod_read_unaligned::<Sample>(&bytes) else { continue };
                if sample.time < listening.since || sample.reason != DropReason::UnknownPeer.number() {
                    continue;
                }
                let packet = Row::of(&sample, None, clocks).packet;
                let sender = packet.tunnel.map(|outer| outer.src).or(packet.ip.map(|ip| ip.src));
                let Some(sender) = sender else { continue };
                if watch.named.len() < MOST || watch.named.contains_key(&sender) {
                    watch.named.insert(sender, Instant::now());
                    watch.seen = Some(Instant::now());
                }
            }
            if watch.seen == before && listening.began.elapsed() < MOMENT {
                watch.listening = Some(listening);
                return Ok(());
            }
            self.maps.put_sampling(Sampling { until: 0 })?;
        }
        let counted = self.maps.drops(DropReason::UnknownPeer)?;
        let rose = counted > watch.counted;
        let rested = watch.seen.is_none_or(|seen| seen.elapsed() >= PAUSE);
        if !rose || !rested {
            // What is not looked at now is when there is time again.
            watch.counted = if rose { watch.counted } else { counted };
            return Ok(());
        }
        watch.counted = counted;
        // Somebody listens himself: he sees who it is.
        let Some(lock) = follow::try_lock(&self.pins)? else { return Ok(()) };
        let since = monotonic_now();
        let samples = Maps::samples(&self.pins)?;
        self.maps.put_sampling(Sampling { until: since + 2 * MOMENT.as_nanos() as u64 })?;
        watch.listening = Some(Listening { samples, since, began: Instant::now(), _lock: lock });
        Ok(())
    }
}
