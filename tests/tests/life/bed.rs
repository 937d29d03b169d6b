//! The flow that everything happens under, and what the daemon says of itself.

use std::{
    fmt::Write as _,
    thread::sleep,
    time::{Duration, Instant},
};

use harness::{
    Netns, Topology, eventually,
    host::Host,
    traffic::{Endpoint, Probe, Report, ping},
};
use serde_json::Value;

pub(crate) const SOON: Duration = Duration::from_secs(5);

/// How soon a path that is there again carries packets: within a second, on a machine with nothing else to do.
pub(crate) const RECOVERY: Duration = Duration::from_secs(2);

/// Datagrams a second, so that a sequence number is a time in milliseconds.
const RATE: u32 = 1000;

/// How far the sender may be behind its own schedule.
const LATE: Duration = Duration::from_millis(300);

/// A numbered flow both ways, and when it began.
pub(crate) struct Flow {
    probe: Probe,
    began: Instant,
}

impl Flow {
    /// Between the first containers of the first two hosts.
    pub(crate) fn start(topology: &Topology) -> Self {
        Self::between(topology.h(1), topology.h(2))
    }

    pub(crate) fn between(a: &Host, b: &Host) -> Self {
        let ends = [a, b].map(|host| Endpoint { ns: &host.c(1).ns, ip: host.c(1).ip });
        // Each hears of the other in its own time, and an IPv6 underlay looks for duplicates first.
        let answers =
            |from: Endpoint<'_>, to: Endpoint<'_>| ping(from.ns, to.ip, 1).is_ok_and(|ping| ping.clean());
        eventually("both ends answer", SOON, || answers(ends[0], ends[1]) && answers(ends[1], ends[0]))
            .unwrap();
        let began = Instant::now();
        let probe = Probe::start(ends[0], ends[1], RATE, Duration::from_secs(120)).unwrap();
        let flow = Self { probe, began };
        flow.goes_on();
        flow
    }

    /// Waits until packets arrive.
    pub(crate) fn goes_on(&self) {
        let until = self.probe.arrived() + 300;
        eventually("traffic flows", Duration::from_secs(10), || self.probe.arrived() >= until).unwrap();
    }

    /// How long it has been going on.
    pub(crate) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    pub(crate) fn finish(self) -> Report {
        self.goes_on();
        self.probe.finish().unwrap()
    }

    /// Nothing may be lost.
    pub(crate) fn clean(self) {
        let report = self.finish();
        assert!(report.clean(), "{report}");
    }

    /// Only what was sent while the path was gone, and until [`RECOVERY`] after, may be lost. Where `gone` is longer
    /// than nothing, something must have been, one way at least: else it was not gone. The other way the kernel may
    /// keep packets until a neighbour answers.
    pub(crate) fn lost_only_within(self, gone: &[(Duration, Duration)]) {
        let report = self.finish();
        let (mut told, mut within_all) = (String::new(), 0);
        for (way, tally) in [("forth", &report.forth), ("back", &report.back)] {
            assert_eq!(tally.duplicates(), 0, "{way}: {report}");
            let mut lost = tally.lost();
            for (from, to) in gone {
                let within = |n: &u64| {
                    let sent = Duration::from_millis(*n);
                    sent + LATE >= *from && sent <= *to + RECOVERY
                };
                let here: Vec<u64> = lost.extract_if(.., |n| within(n)).collect();
                let after = here.last().map_or(0, |last| last.saturating_sub(to.as_millis() as u64));
                let _ = write!(told, "{way}: {} lost, {after} ms after {to:?}; ", here.len());
                within_all += here.len();
            }
            assert!(lost.is_empty(), "{way}, at other times: {lost:?}; {report}");
        }
        let was_gone = gone.iter().any(|(from, to)| *to - *from >= Duration::from_secs(1));
        assert!(!was_gone || within_all > 0, "it was never gone: {report}");
        eprintln!("{told}");
    }
}

/// The state and the message of `overlayctl status`.
pub(crate) fn status(host: &Host) -> (String, String) {
    let output = host.overlayd().ctl_output(&["status", "-o", "json"]).unwrap();
    let status: Value = serde_json::from_str(&output.stdout).unwrap();
    let text = |field: &str| status[field].as_str().unwrap_or_default().to_owned();
    (text("state"), text("message"))
}

/// Waits until the daemon says that it is degraded, with these words.
pub(crate) fn says(host: &Host, words: &[&str]) {
    let said = || {
        let (state, message) = status(host);
        state == "degraded" && words.iter().all(|word| message.contains(word))
    };
    eventually(&format!("{} says {words:?}", host.name), SOON, said)
        .unwrap_or_else(|error| panic!("{error}: {:?}", status(host)));
}

/// Waits until the daemon finds nothing wrong.
pub(crate) fn is_well(host: &Host) {
    eventually(&format!("{} is well", host.name), Duration::from_secs(15), || status(host).0 == "ok")
        .unwrap_or_else(|error| panic!("{error}: {:?}\n{}", status(host), host.overlayd().log_tail(20)));
}

pub(crate) fn pause(seconds: u64) {
    sleep(Duration::from_secs(seconds));
}

/// What `etcdctl` says of a key.
pub(crate) fn record(topology: &Topology, subnet: &str) -> Option<String> {
    let key = format!("{}/subnets/{}", harness::topology::ETCD_PREFIX, subnet.replace('/', "-"));
    topology.etcd().get(&key).unwrap()
}

/// The neighbours of a device that overlayd has set.
pub(crate) fn overlay_neighbours(ns: &Netns, device: &str) -> usize {
    ns.ip(&format!("neigh show dev {device} nud permanent")).unwrap().stdout.lines().count()
}
