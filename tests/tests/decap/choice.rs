//! What is chosen, what is said of it, and what happens where somebody was there first.

use aya::{
    EbpfLoader,
    programs::{Xdp, XdpMode},
};
use harness::{Topology, eventually, host::UPLINK, topology::StoreKind, traffic::ping};
use overlay_user::datapath::{OBJECT, map::Maps, pin::Pins};

use crate::{SOON, decap, native_program};

/// Hosts that are to have XDP, and have no daemon yet.
fn wanting_xdp() -> Topology {
    let builder = Topology::builder().store(StoreKind::Peers).overlayd_args(&["--decap=xdp"]);
    builder.without_overlayd().up().unwrap()
}

#[test]
fn a_veth_is_served_by_tc_and_status_says_why() {
    let topology = Topology::builder().up().unwrap();
    let (place, why) = decap(topology.h(1));
    assert_eq!(place, "tc");
    assert!(why.contains("veth") && why.contains(UPLINK), "{why}");
    assert_eq!(native_program(topology.h(1)), None);
    let text = topology.h(1).overlayd().ctl_output(&["status"]).unwrap().stdout;
    let line = text.lines().find(|line| line.starts_with("Decap")).unwrap();
    assert!(line.contains("tc: ") && line.contains(&why), "{line}");
}

#[test]
fn another_xdp_program_is_left_alone_and_named() {
    let mut topology = wanting_xdp();
    let host = topology.h(1);
    // Ours, loaded apart from any daemon: to this one it is anybody's.
    let mut ebpf = EbpfLoader::new().load(OBJECT).unwrap();
    let xdp: &mut Xdp = ebpf.program_mut("uplink_decap").unwrap().try_into().unwrap();
    xdp.load().unwrap();
    host.ns.run(|| xdp.attach(UPLINK, XdpMode::Driver).unwrap()).unwrap();
    let theirs = native_program(host).unwrap();
    let error = format!("{:#}", topology.start_overlayd(0).unwrap_err());
    assert!(error.contains(&format!("another XDP program (id {theirs})")), "{error}");
    assert!(error.contains("--decap auto"), "{error}");
    assert_eq!(native_program(topology.h(1)), Some(theirs));
}

#[test]
fn a_driver_without_native_xdp_is_named() {
    let mut topology = wanting_xdp();
    let host = topology.h(1);
    let ip = host.ip;
    for command in [
        format!("link set {UPLINK} down"),
        format!("link set {UPLINK} name wire"),
        format!("link add {UPLINK} type bridge"),
        format!("addr add {ip}/24 dev {UPLINK}"),
        format!("link set {UPLINK} up"),
    ] {
        host.ns.ip(&command).unwrap();
    }
    let error = format!("{:#}", topology.start_overlayd(0).unwrap_err());
    assert!(error.contains("the driver of eth0 (bridge) has no native XDP"), "{error}");
}

/// A driver that keeps no metadata says so when it is asked for room; none of those here does, hence the word in its
/// place. On a silent wire a trial does not end by itself.
#[test]
fn a_trial_that_fails_ends_in_tc_and_in_words() {
    let mut topology = wanting_xdp();
    topology.wire.ns().unwrap().ip("link set h1 down").unwrap();
    topology.start_overlayd(0).unwrap();
    let host = topology.h(1);
    assert_eq!(decap(host).0, "trial");
    assert!(native_program(host).is_some());
    let text = host.overlayd().ctl_output(&["status"]).unwrap().stdout;
    assert!(text.contains("tc, until a packet has shown"), "{text}");

    let mut maps = Maps::open(&Pins::new(&host.overlayd().config.pin_dir)).unwrap();
    let uplink = host.ifindex(UPLINK).unwrap();
    let mut entry = maps.decap(uplink).unwrap().unwrap();
    assert_ne!(entry.token, [0, 0]);
    entry.refused = 1;
    maps.put_decap(uplink, entry).unwrap();
    eventually("tc again", SOON, || decap(host).0 == "tc").unwrap();
    let (_, why) = decap(host);
    assert!(why.contains("does not keep what XDP says"), "{why}");
    assert_eq!(native_program(host), None);
    let trouble = || host.overlayd().ctl(&["status", "-o", "json"]).unwrap()["message"].clone();
    eventually("status tells", SOON, || trouble().as_str().unwrap().contains("--decap xdp cannot be had"))
        .unwrap();
    eventually("the token is gone", SOON, || {
        maps.decap(uplink).unwrap().is_some_and(|entry| entry.token == [0, 0])
    })
    .unwrap();

    topology.wire.ns().unwrap().ip("link set h1 up").unwrap();
    topology.start_overlayd(1).unwrap();
    let (h1, h2) = (topology.h(1), topology.h(2));
    let arrives = || ping(&h2.c(1).ns, h1.c(1).ip, 1).unwrap().clean();
    eventually("tc decapsulates", SOON, arrives).unwrap();
}
