//! How long a path MTU is believed, and whose.

use std::{net::Ipv4Addr, time::Duration};

use harness::{Topology, eventually, topology::StoreKind, traffic::ping_with};
use overlay_common::map::{MIN_PATH_MTU, PATH_MTU_LIFETIME};
use overlay_user::endpoints::monotonic_now;

use crate::bed::{SOON, clean, mtus, path_mtus, probe, said, tell};

const SECOND: u64 = 1_000_000_000;

fn two_hosts() -> Topology {
    Topology::builder().store(StoreKind::Peers).up().unwrap()
}

#[test]
fn it_is_believed_until_it_expires() {
    let topology = two_hosts();
    let (h1, h2) = (topology.h(1), topology.h(2));
    let probe = probe(h1.c(1), h2.c(1));
    // Told so long ago that three seconds of its life are left.
    tell(h1.overlayd(), h2.ip, 1400, monotonic_now() - PATH_MTU_LIFETIME + 3 * SECOND);
    eventually("it is believed", SOON, || mtus(h1, h2) == (1350, 1350)).unwrap();
    assert_eq!(mtus(h2, h1), (1450, 1450), "it is the sender's alone");
    let refused = ping_with(&h1.c(1).ns, h2.c(1).ip, 1, &["-M", "do", "-s", "1323"]).unwrap();
    assert!(
        refused.text.contains("From 172.17.0.1 icmp_seq=1 Frag needed and DF set (mtu = 1350)"),
        "{}",
        refused.text
    );
    eventually("it is forgotten", SOON, || path_mtus(h1.overlayd()).is_empty()).unwrap();
    eventually("the MTU is the uplink's again", SOON, || mtus(h1, h2) == (1450, 1450)).unwrap();
    let lines = said(h1.overlayd());
    assert_eq!(
        lines,
        [
            "INFO a router on the way to peer 172.16.199.27 carries packets of 1400 bytes: MTU to its containers 1350, was 1450",
            "INFO MTU to the containers of peer 172.16.199.27 1450 again, was 1350",
        ]
    );
    clean(probe);
}

#[test]
fn it_is_kept_over_restarts_and_taken_over_at_the_start() {
    let mut topology = two_hosts();
    let peer = topology.h(2).ip;
    let probe = probe(topology.h(1).c(1), topology.h(2).c(1));
    topology.h_mut(1).overlayd_mut().kill9().unwrap();
    tell(topology.h(1).overlayd(), peer, 1300, monotonic_now());
    topology.h_mut(1).overlayd_mut().start_again().unwrap();
    // `ready` is said after the first round.
    assert_eq!(mtus(topology.h(1), topology.h(2)), (1250, 1250));
    topology.h_mut(1).overlayd_mut().restart().unwrap();
    assert_eq!(mtus(topology.h(1), topology.h(2)), (1250, 1250));
    assert_eq!(path_mtus(topology.h(1).overlayd()), [(peer, 1300)]);
    clean(probe);
}

#[test]
fn what_is_no_peers_or_lowers_nothing_changes_nothing() {
    let topology = two_hosts();
    let (h1, h2) = (topology.h(1), topology.h(2));
    let probe = probe(h1.c(1), h2.c(1));
    let stranger = Ipv4Addr::new(192, 0, 2, 1);
    tell(h1.overlayd(), stranger, 1400, monotonic_now());
    tell(h1.overlayd(), h1.ip, 1400, monotonic_now());
    eventually("what is no peer's is removed", SOON, || path_mtus(h1.overlayd()).is_empty()).unwrap();
    tell(h1.overlayd(), h2.ip, MIN_PATH_MTU - 1, monotonic_now());
    eventually("what would starve a peer is removed", SOON, || path_mtus(h1.overlayd()).is_empty()).unwrap();
    tell(h1.overlayd(), h2.ip, 1500, monotonic_now());
    // Two rounds and more.
    std::thread::sleep(Duration::from_millis(2_500));
    assert_eq!(path_mtus(h1.overlayd()), [(h2.ip, 1500)]);
    assert_eq!(mtus(h1, h2), (1450, 1450));
    assert_eq!(said(h1.overlayd()), [] as [String; 0]);
    clean(probe);
}
