//! Hosts on routers, and what overlayd says of the way to each.

use std::{fs, net::Ipv4Addr, time::Duration};

use harness::{
    Topology,
    container::Container,
    eventually,
    host::Host,
    overlayd::Overlayd,
    topology::{Builder, StoreKind},
    traffic::{Endpoint, Probe},
    wire::WireKind,
};
use overlay_common::{addr::MapIp, map::PathMtu};
use overlay_user::datapath::{map::Maps, pin::Pins};

/// What the link between the routers carries. The uplinks carry 1500.
pub(crate) const NARROW: u32 = 1400;
pub(crate) const SOON: Duration = Duration::from_secs(5);

/// Three hosts: the first behind one router, the others behind another.
pub(crate) fn routed() -> Builder {
    Topology::builder().hosts(3).store(StoreKind::Peers).wire(WireKind::Routed { narrow: NARROW })
}

/// Small packets both ways that must all arrive.
pub(crate) fn probe(a: &Container, b: &Container) -> Probe {
    let ends = [a, b].map(|c| Endpoint { ns: &c.ns, ip: c.ip });
    let probe = Probe::start(ends[0], ends[1], 300, Duration::from_secs(60)).unwrap();
    eventually("traffic flows", SOON, || probe.arrived() > 30).unwrap();
    probe
}

pub(crate) fn clean(probe: Probe) {
    let report = probe.finish().unwrap();
    assert!(report.clean(), "{report}");
}

/// The MTU to a peer, as overlayctl says.
pub(crate) fn mtu_to(host: &Host, peer: Ipv4Addr) -> u64 {
    let peers = host.overlayd().ctl(&["peers", "-o", "json"]).unwrap();
    let row = peers.as_array().unwrap().iter().find(|row| row["public_ip"] == peer.to_string());
    row.unwrap()["mtu"].as_u64().unwrap()
}

/// The MTU of the kernel's route to a subnet.
pub(crate) fn route_mtu(host: &Host, subnet: &str) -> u64 {
    let said = host.ns.ip(&format!("-j route show {subnet} proto 79")).unwrap().stdout;
    let routes: serde_json::Value = serde_json::from_str(&said).unwrap();
    routes[0]["metrics"][0]["mtu"].as_u64().unwrap_or_default()
}

/// Both at once: what the programs use and what the kernel uses.
pub(crate) fn mtus(host: &Host, peer: &Host) -> (u64, u64) {
    (mtu_to(host, peer.ip), route_mtu(host, &peer.bridge.subnet()))
}

/// The pinned maps.
pub(crate) fn maps(overlayd: &Overlayd) -> Maps {
    Maps::open(&Pins::new(&overlayd.config.pin_dir)).unwrap()
}

/// PATH_MTUS, times left out.
pub(crate) fn path_mtus(overlayd: &Overlayd) -> Vec<(Ipv4Addr, u32)> {
    let entries = maps(overlayd).path_mtus().unwrap().into_iter();
    let mut entries: Vec<_> = entries.map(|(ip, entry)| (ip.to_v4().unwrap(), entry.mtu)).collect();
    entries.sort_unstable();
    entries
}

/// Tells overlayd of a path MTU, as the program would at that time.
pub(crate) fn tell(overlayd: &Overlayd, peer: Ipv4Addr, mtu: u32, told: u64) {
    maps(overlayd).put_path_mtu(MapIp::from(peer), PathMtu { told, mtu, ..PathMtu::default() }).unwrap();
}

/// The lines of a daemon's log that speak of MTUs of peers.
pub(crate) fn said(overlayd: &Overlayd) -> Vec<String> {
    let log = fs::read_to_string(&overlayd.config.log).unwrap();
    let spoken = log.lines().filter(|line| line.contains("MTU to "));
    // Without the time.
    spoken.map(|line| line.split_once(' ').unwrap().1.trim().to_owned()).collect()
}
