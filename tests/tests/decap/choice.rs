//! What is chosen, what is said of it, and what happens where somebody was there first.

use aya::{
    EbpfLoader,
    programs::{Xdp, XdpMode},
};
use harness::{Topology, host::UPLINK, topology::StoreKind};
use overlay_user::datapath::OBJECT;

use crate::{decap, native_program};

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
    let mut topology = Topology::builder()
        .store(StoreKind::Peers)
        .overlayd_args(&["--decap=xdp"])
        .without_overlayd()
        .up()
        .unwrap();
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
