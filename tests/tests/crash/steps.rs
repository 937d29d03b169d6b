//! After each step of a start: of a daemon that comes back, and of the first on its host.

use harness::{
    Topology, eventually,
    footprint::Footprint,
    overlayd::{Config, Overlayd},
    traffic::ping,
};

use crate::bed::{Bed, SOON, STEPS, next};

pub(crate) fn restart() {
    let mut bed = Bed::up();
    // The next build takes over first: what follows is about one layout.
    bed.topology.h_mut(1).overlayd_mut().kill9().unwrap();
    bed.prepare(next(), None);
    bed.start();
    let probe = bed.probe();
    for (n, step) in (1..).zip(STEPS) {
        bed.topology.h_mut(1).overlayd_mut().kill9().unwrap();
        bed.toggle(n);
        bed.prepare(next(), Some(step));
        bed.start_and_die(step);
        bed.prepare(next(), None);
        bed.start();
    }
    let report = probe.finish().unwrap();
    assert!(report.clean(), "{report}");
}

/// A first start that died is gone on with, or undone, whichever is asked for. The other hosts' traffic goes on.
pub(crate) fn first_start() {
    let mut topology = Topology::builder().without_overlayd().up().unwrap();
    topology.start_overlayd(1).unwrap();
    let config = topology.overlayd_config(0);
    let footprint =
        |topology: &Topology| Footprint::of(topology, 1, &[&config.pin_dir, &config.state_dir]).unwrap();
    let before = footprint(&topology);
    for step in STEPS {
        for goes_on in [true, false] {
            let env = vec![("OVERLAYD_DIE_AFTER".to_owned(), step.to_owned())];
            let config = Config { build: next(), env, ..topology.overlayd_config(0) };
            let host = topology.h_mut(1);
            // What it leaves behind, it removes before the next one begins.
            host.overlayd = None;
            let daemon = host.overlayd.insert(Overlayd::idle(&host.ns, config).unwrap());
            daemon.launch().unwrap();
            eventually(&format!("it dies after step `{step}`"), SOON, || !daemon.running())
                .unwrap_or_else(|error| panic!("{error}\n{}", daemon.log_tail(20)));
            daemon.config.env.clear();
            if goes_on {
                daemon.start_again().unwrap();
                let (h1, h2) = (topology.h(1), topology.h(2));
                let reached = || ping(&h1.c(1).ns, h2.c(1).ip, 1).is_ok_and(|ping| ping.clean());
                eventually(&format!("containers talk after a death at `{step}`"), SOON, reached).unwrap();
            }
            let output = topology.h_mut(1).overlayd_mut().detach().unwrap();
            assert_eq!(output.code, Some(0), "after `{step}`: {}", output.text());
            let left = before.difference(&footprint(&topology));
            assert!(left.is_empty(), "after `{step}`: {}", left.join("\n"));
        }
    }
}
