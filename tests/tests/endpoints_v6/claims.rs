//! Two containers want one address.

use std::{thread::sleep, time::Duration};

use harness::{
    eventually, frame,
    traffic::{Injector, Sniffer},
};

use crate::{
    advertisement::{asks_at, claim},
    bed::{SOON, address, is_at, neighbour, ping, source, topology},
};

/// The kernel believes whoever advertises last; the endpoint stays where it is as long as its owner answers.
#[test]
fn an_advertisement_does_not_take_over_the_address_of_who_lives() {
    let topology = topology(2);
    let host = topology.h(1);
    let (victim, impostor, ip) = (host.c(1), host.c(2), address(1));
    assert!(ping(&host.ns, ip), "the victim is there");
    let confirmed = || is_at(host, ip, 1) && source(host, ip).as_deref() == Some("neighbour");
    eventually("the endpoint is known", SOON, confirmed).unwrap();
    let home = harness::container::docker_mac(victim.ip);
    assert_eq!(neighbour(host, ip).0, home);

    let other = frame::mac(&harness::container::docker_mac(impostor.ip));
    let sniffer = Sniffer::on(&victim.ns, "eth0").unwrap();
    let injector = Injector::open(&impostor.ns, "eth0").unwrap();
    let asked = |frame: &harness::traffic::Frame| asks_at(frame, ip, frame::mac(&home));
    for n in 1..=5 {
        let before = sniffer.count(asked);
        injector.send(&claim(ip, other)).unwrap();
        sniffer.await_count("its owner is asked where it lives", before + 1, SOON, asked).unwrap();
        let knows_better = || neighbour(host, ip) == (home.clone(), "REACHABLE".to_owned());
        eventually("the kernel knows better", SOON, knows_better).unwrap();
        assert!(is_at(host, ip, 1), "after claim {n}");
        assert!(ping(&host.ns, ip), "after claim {n}");
    }
    assert!(is_at(host, ip, 1));
    assert!(
        host.overlayd().log_tail(500).contains(&format!("asking who has it ip={ip}")),
        "it was a contest"
    );
}

#[test]
fn an_address_moves_once_its_owner_does_not_answer() {
    let topology = topology(2);
    let host = topology.h(1);
    let (old, new, ip) = (host.c(1), host.c(2), address(1));
    assert!(ping(&host.ns, ip));
    // One that has only spoken would yield at once.
    let confirmed = || is_at(host, ip, 1) && source(host, ip).as_deref() == Some("neighbour");
    eventually("the endpoint is known", SOON, confirmed).unwrap();
    old.ns.ip(&format!("address delete {ip}/64 dev eth0")).unwrap();
    new.ns.ip(&format!("address add {ip}/64 dev eth0 nodad")).unwrap();
    let mac = frame::mac(&harness::container::docker_mac(new.ip));
    let injector = Injector::open(&new.ns, "eth0").unwrap();
    injector.send(&claim(ip, mac)).unwrap();
    sleep(Duration::from_millis(500));
    assert!(is_at(host, ip, 1), "its owner is being asked, three times in three seconds");
    let moved = || {
        let answered = ping(&host.ns, ip);
        answered && is_at(host, ip, 2)
    };
    eventually("the address has moved", Duration::from_secs(15), moved).unwrap();
    assert_eq!(source(host, ip).as_deref(), Some("neighbour"));
}
