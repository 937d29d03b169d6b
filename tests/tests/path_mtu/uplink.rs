//! The uplink's MTU changes while the daemon runs, and traffic with it.

use std::time::Duration;

use harness::{
    Topology, binaries, eventually,
    host::Host,
    overlayd::Config,
    topology::StoreKind,
    traffic::{iperf, ping_with},
};
use overlay_user::endpoints::monotonic_now;
use serde_json::Value;

use crate::bed::{SOON, clean, mtus, probe, tell};

/// How soon a change is in force, on a machine with nothing else to do: within a second.
const AT_ONCE: Duration = Duration::from_secs(2);

fn status(host: &Host) -> Value {
    let output = host.overlayd().ctl_output(&["status", "-o", "json"]).unwrap();
    serde_json::from_str(&output.stdout).unwrap()
}

fn set_mtu(host: &Host, mtu: u32) {
    host.ns.ip(&format!("link set eth0 mtu {mtu}")).unwrap();
}

#[test]
fn the_overlay_follows_its_uplink_down_and_up() {
    let topology =
        Topology::builder().store(StoreKind::Peers).uplink_mtu(9000).container_mtu(9000).up().unwrap();
    let (h1, h2) = (topology.h(1), topology.h(2));
    let probe = probe(h1.c(1), h2.c(1));
    for mtu in [1500, 1400, 9000, 1400, 1500, 9000] {
        set_mtu(h1, mtu);
        set_mtu(h2, mtu);
        let inner = u64::from(mtu) - 50;
        for (host, peer) in [(h1, h2), (h2, h1)] {
            let followed = || mtus(host, peer) == (inner, inner) && status(host)["mtu"] == inner;
            eventually(&format!("{} follows to {inner}", host.name), AT_ONCE, followed).unwrap();
        }
        let largest = (inner - 28).to_string();
        h1.c(1).ns.ip("route flush cache").unwrap();
        let ping = ping_with(&h1.c(1).ns, h2.c(1).ip, 2, &["-M", "do", "-s", &largest]).unwrap();
        assert!(ping.clean(), "{mtu}: {}", ping.text);
        let ping = ping_with(&h1.c(1).ns, h2.c(1).ip, 2, &["-M", "dont", "-s", "8000"]).unwrap();
        assert!(ping.clean(), "{mtu}: {}", ping.text);
    }
    let tcp = iperf::tcp(1).bidirectional().run(&h1.c(1).ns, &h2.c(1).ns, h2.c(1).ip).unwrap();
    assert!(tcp.flow.bits_per_second > 1e6 && tcp.back.unwrap().bits_per_second > 1e6, "{tcp:?}");
    clean(probe);
}

/// A path MTU below both uplinks' stays in force; one between them only while the uplink's is larger.
#[test]
fn a_path_mtu_and_the_uplinks_the_lesser_counts() {
    let topology = Topology::builder().store(StoreKind::Peers).uplink_mtu(9000).up().unwrap();
    let (h1, h2) = (topology.h(1), topology.h(2));
    let probe = probe(h1.c(1), h2.c(1));
    tell(h1.overlayd(), h2.ip, 1450, monotonic_now());
    for (uplink, inner) in [(9000, 1400), (1400, 1350), (1500, 1400)] {
        set_mtu(h1, uplink);
        let expected = || mtus(h1, h2) == (inner, inner);
        eventually(&format!("{inner} over an uplink of {uplink}"), AT_ONCE, expected).unwrap();
    }
    clean(probe);
}

#[test]
fn an_mtu_that_the_uplink_cannot_carry_is_refused_or_said() {
    let mut topology =
        Topology::builder().store(StoreKind::Peers).overlayd_args(&["--mtu=1450"]).up().unwrap();
    let probe = probe(topology.h(1).c(1), topology.h(2).c(1));
    let says = |host: &Host| {
        let status = status(host);
        (status["state"].as_str().unwrap().to_owned(), status["mtu"].as_u64().unwrap())
    };
    assert_eq!(says(topology.h(1)), ("ok".to_owned(), 1450));
    set_mtu(topology.h(1), 1400);
    let lowered = |topology: &Topology| says(topology.h(1)) == ("degraded".to_owned(), 1350);
    eventually("it goes on with what fits", AT_ONCE, || lowered(&topology)).unwrap();
    assert_eq!(mtus(topology.h(1), topology.h(2)), (1350, 1350));
    let message = "--mtu 1450 does not fit over eth0 with MTU 1400: 576 to 1350 are possible; give one of these, or \
                   raise the uplink's MTU";
    assert_eq!(status(topology.h(1))["message"], message);
    // What runs goes on, a restart as well.
    topology.h_mut(1).overlayd_mut().restart().unwrap();
    assert!(lowered(&topology), "{}", status(topology.h(1)));
    assert_eq!(mtus(topology.h(1), topology.h(2)), (1350, 1350));
    set_mtu(topology.h(1), 9000);
    let restored = || says(topology.h(1)) == ("ok".to_owned(), 1450);
    eventually("it is as it was", AT_ONCE, restored).unwrap();
    clean(probe);
    // A first start is refused.
    topology.h_mut(1).overlayd_mut().detach().unwrap();
    for (mtu, says) in [
        ("--mtu=8951", "--mtu 8951 does not fit over eth0 with MTU 9000: 576 to 8950 are possible"),
        ("--mtu=575", "--mtu 575 is too small: 576 to 8950 are possible over eth0 with MTU 9000"),
    ] {
        let config = Config { args: vec![mtu.to_owned()], ..topology.overlayd_config(0) };
        let cmd = topology.h(1).ns.cmd(binaries::find("overlayd").unwrap());
        let output = cmd.args(config.arguments()).run().unwrap();
        let one_line = output.stderr.lines().count() == 1 && output.stderr.contains(says);
        assert!(output.code == Some(1) && one_line, "{}", output.text());
        assert!(!config.pin_dir.exists(), "nothing is left");
    }
    eventually("the first start goes", SOON, || topology.h_mut(1).overlayd_mut().start_again().is_ok())
        .unwrap();
}
