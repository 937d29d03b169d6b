//! From the first answer to the last.

use std::{net::IpAddr, time::Duration};

use harness::{
    eventually, frame,
    host::{BRIDGE, Host},
    traffic::Sniffer,
};
use overlay_common::{
    Mac,
    addr::MapIp,
    map::{Endpoint, EndpointKey, EndpointSource},
};
use overlay_user::{
    datapath::{map::Maps, pin::Pins},
    endpoints::monotonic_now,
};

use crate::{
    advertisement::asks_at,
    bed::{GATEWAY, SOON, address, is_at, ping, source, topology},
};

/// Two looks at what has fallen silent, and a bit.
const TWO_ROUNDS: Duration = Duration::from_secs(30);

fn notes(host: &Host) -> Vec<String> {
    let status = host.overlayd().ctl(&["status", "-o", "json"]).unwrap();
    status["notes"].as_array().unwrap().iter().map(|note| note.as_str().unwrap().to_owned()).collect()
}

#[test]
fn endpoints_follow_the_neighbours_of_the_subnet() {
    let mut topology = topology(2);
    let host = topology.h(1);
    for number in [1, 2] {
        let ip = address(u16::try_from(number).unwrap());
        assert_eq!(source(host, ip), None);
        assert!(ping(&host.ns, ip));
        let confirmed = || is_at(host, ip, number) && source(host, ip).as_deref() == Some("neighbour");
        eventually("the endpoint is known", SOON, confirmed).unwrap();
    }
    // What is on the link, but in no subnet of the overlay's.
    let local = host.c(1).ns.ip("-6 -o address show dev eth0 scope link").unwrap().stdout;
    let local = local.split_whitespace().find(|word| word.starts_with("fe80:")).unwrap();
    let local = local.split('/').next().unwrap().to_owned();
    assert!(host.ns.exec(&["ping", "-6", "-n", "-c", "1", "-W", "2", &format!("{local}%{BRIDGE}")]).is_ok());
    topology.h_mut(1).remove_container("c2").unwrap();
    let host = topology.h(1);
    eventually("the endpoint is gone", SOON, || source(host, address(2)).is_none()).unwrap();
    assert!(is_at(host, address(1), 1));
    assert_eq!(source(host, local.parse::<IpAddr>().unwrap()), None);

    host.ns.ip(&format!("address delete {GATEWAY}/64 dev {BRIDGE}")).unwrap();
    eventually("the gateway is none any more", SOON, || source(host, GATEWAY).is_none()).unwrap();
    assert_eq!(source(host, host.bridge.ip).as_deref(), Some("gateway"));
}

#[test]
fn who_has_fallen_silent_is_asked_and_who_does_not_answer_is_forgotten() {
    let topology = topology(1);
    let host = topology.h(1);
    let (ip, nobody) = (address(1), address(77));
    let home = frame::mac(&harness::container::docker_mac(host.c(1).ip));
    assert!(ping(&host.ns, ip));
    eventually("the endpoint is known", SOON, || is_at(host, ip, 1)).unwrap();
    let mut maps = Maps::open(&Pins::new(&host.overlayd().config.pin_dir)).unwrap();
    let vni = maps.endpoints().unwrap()[0].0.vni;
    let key = |ip: std::net::Ipv6Addr| EndpointKey { vni, ip: MapIp::from(ip) };
    let known = maps.endpoint(key(ip)).unwrap().unwrap();
    let ago = |seconds: u64| monotonic_now() - seconds * 1_000_000_000;
    let sniffer = Sniffer::on(&host.c(1).ns, "eth0").unwrap();
    // It has been silent for longer than is believed without asking, and so has one that is not there.
    host.ns.ip(&format!("-6 neighbour replace {ip} lladdr {} nud stale dev {BRIDGE}", Mac(home))).unwrap();
    maps.put_endpoint(key(ip), Endpoint { last_seen: ago(130), ..known }).unwrap();
    let spoken = EndpointSource::Spoken as u32;
    let silent = Endpoint { last_seen: ago(130), source: spoken, mac: Mac([2, 0, 0, 0, 0, 0x77]), ..known };
    maps.put_endpoint(key(nobody), silent).unwrap();
    sniffer.await_count("it is asked", 1, TWO_ROUNDS, |frame| asks_at(frame, ip, home)).unwrap();
    let renewed = || maps.endpoint(key(ip)).unwrap().is_some_and(|endpoint| endpoint.last_seen > ago(60));
    eventually("its answer counts", TWO_ROUNDS, renewed).unwrap();
    assert!(maps.endpoint(key(nobody)).unwrap().is_some(), "it has three minutes");
    maps.put_endpoint(key(nobody), Endpoint { last_seen: ago(190), ..silent }).unwrap();
    eventually("it is forgotten", TWO_ROUNDS, || maps.endpoint(key(nobody)).unwrap().is_none()).unwrap();
    assert!(is_at(host, ip, 1));
}

#[test]
fn ipv6_that_is_not_forwarded_is_noted() {
    let topology = topology(1);
    let host = topology.h(1);
    let told =
        || notes(host).iter().any(|note| note.starts_with("net.ipv6.conf.all.forwarding is 0, but bridge"));
    assert!(!told());
    // Settings make no event; one about the bridge saves waiting for the next look around.
    let set = |value: &str| {
        host.ns.sysctl("ipv6/conf/all/forwarding", value).unwrap();
        host.ns.ip(&format!("link set {BRIDGE} alias forwarding-{value}")).unwrap();
    };
    set("0");
    eventually("it is told", TWO_ROUNDS, told).unwrap();
    set("1");
    eventually("it is no longer told", TWO_ROUNDS, || !told()).unwrap();
}
