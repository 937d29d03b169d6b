//! Several uplinks: each is served as is best for it, and one without Ethernet header by tc alone.

use harness::{Topology, host::Host, tcx, topology::StoreKind, traffic::ping};
use serde_json::Value;

use crate::native_program;

const SECOND: &str = "tun0";

/// Hosts, of which the first has a tun besides, and no daemon yet.
fn with_a_tun() -> Topology {
    let topology = Topology::builder().store(StoreKind::Peers).without_overlayd().up().unwrap();
    for command in ["tuntap add dev tun0 mode tun", "addr add 192.0.2.1/24 dev tun0", "link set tun0 up"] {
        topology.h(1).ns.ip(command).unwrap();
    }
    topology
}

fn start(topology: &mut Topology, args: &[&str]) -> anyhow::Result<()> {
    let mut config = topology.overlayd_config(0);
    config.ifaces.push(SECOND.to_owned());
    config.args = args.iter().map(|&arg| arg.to_owned()).collect();
    let host = &mut topology.hosts[0];
    host.overlayd = Some(harness::overlayd::Overlayd::start(&host.ns, config)?);
    Ok(())
}

fn uplinks(host: &Host) -> Vec<(String, String, String)> {
    let status = host.overlayd().ctl(&["status", "-o", "json"]).unwrap();
    let text = |uplink: &Value, field: &str| uplink[field].as_str().unwrap().to_owned();
    let row = |uplink| (text(uplink, "name"), text(uplink, "decap"), text(uplink, "decap_reason"));
    status["uplinks"].as_array().unwrap().iter().map(row).collect()
}

#[test]
fn each_uplink_has_a_choice_and_a_program_of_its_own() {
    let mut topology = with_a_tun();
    start(&mut topology, &[]).unwrap();
    topology.start_overlayd(1).unwrap();
    topology.await_routes().unwrap();
    let h1 = topology.h(1);
    let [eth0, tun0] = &uplinks(h1)[..] else { panic!("two uplinks: {:?}", uplinks(h1)) };
    assert!(eth0.0 == "eth0" && eth0.1 == "tc" && eth0.2.contains("veth"), "{eth0:?}");
    assert!(tun0.0 == SECOND && tun0.1 == "tc" && tun0.2.contains("tun"), "{tun0:?}");
    let pins = overlay_user::datapath::pin::Pins::new(&h1.overlayd().config.pin_dir);
    let devices = h1.ns.run(tcx::devices).unwrap().unwrap();
    let named = |(index, program): (u32, String)| (devices[&index].clone(), program);
    let links: Vec<_> = pins.pinned_links().unwrap().into_iter().map(named).collect();
    let with_ethernet: &[&str] = &["uplink_ingress", "uplink_kinds", "uplink_resolve"];
    for (device, programs) in [("eth0", with_ethernet), (SECOND, &["uplink_l3"])] {
        let of_device = links.iter().filter(|(name, _)| name == device);
        let mut of_device: Vec<&str> = of_device.map(|(_, program)| program.as_str()).collect();
        of_device.sort_unstable();
        assert_eq!(of_device, programs, "{links:?}");
    }
    assert!(ping(&h1.c(1).ns, topology.h(2).c(1).ip, 3).unwrap().clean());
    let text = h1.overlayd().ctl_output(&["status"]).unwrap().stdout;
    assert!(text.contains("eth0: tc: ") && text.contains("tun0: tc: "), "{text}");
}

#[test]
fn xdp_is_refused_in_words_where_there_is_no_ethernet_header() {
    let mut topology = with_a_tun();
    let error = format!("{:#}", start(&mut topology, &["--decap=xdp"]).unwrap_err());
    assert!(error.contains(&format!("--decap xdp cannot be had on {SECOND}")), "{error}");
    assert!(error.contains("no Ethernet header") && error.contains("--decap auto"), "{error}");
    assert_eq!(native_program(topology.h(1)), None, "and nothing of it is left on the other one");
}
