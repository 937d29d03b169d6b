//! Its life: made as it should be, kept over restarts, repaired, and removed.

use harness::{
    Topology, counters, eventually,
    topology::{ETCD_PREFIX, StoreKind},
    two_hosts,
};
use overlay_user::datapath::pin::Pins;
use serde_json::json;

use crate::{RESYNC, SOON, entry, guards, index, is_up, is_whole, link, probe, status, vnis};

#[test]
fn it_has_the_right_settings_and_says_nothing_by_itself() {
    let topology = two_hosts().unwrap();
    let h1 = topology.h(1);
    let told = link(h1, "ovl0").unwrap();
    let vtep_mac = &h1.overlayd().ctl(&["status", "-o", "json"]).unwrap()["vtep_mac"];
    let data = &told["linkinfo"]["info_data"];
    for (key, expected) in [
        ("external", json!(true)),
        ("vnifilter", json!(true)),
        ("learning", json!(false)),
        ("port", json!(4789)),
    ] {
        assert_eq!(data[key], expected, "{key}");
    }
    for (key, expected) in [
        ("address", vtep_mac.clone()),
        ("ifalias", json!("overlayd")),
        ("inet6_addr_gen_mode", json!("none")),
        ("gso_max_size", json!(65_479)),
    ] {
        assert_eq!(told[key], expected, "{key}");
    }
    assert!(told["flags"].as_array().unwrap().contains(&json!("NOARP")));
    assert!(is_whole(h1), "{told}");
    let addresses = h1.ns.ip("-o addr show dev ovl0").unwrap().stdout;
    assert_eq!(addresses, "");
    // Long enough for router solicitations and multicast reports.
    std::thread::sleep(std::time::Duration::from_secs(3));
    let counted = counters::packets(&h1.ns, "ovl0").unwrap();
    assert_eq!((counted.rx, counted.tx), (0, 0));
    assert_eq!(status(h1).0, "ok", "{:?}", status(h1));
}

#[test]
fn it_outlives_the_daemon_and_loses_nothing() {
    let mut topology = two_hosts().unwrap();
    let (index_before, guards_before) = (index(topology.h(1), "ovl0"), guards(topology.h(1), "ovl0"));
    let probe = probe(&topology, 20);
    for kill in [true, false] {
        let overlayd = topology.h_mut(1).overlayd_mut();
        let _status = if kill { overlayd.kill9() } else { overlayd.stop().ok() };
        assert!(is_whole(topology.h(1)), "with the daemon gone");
        topology.h_mut(1).overlayd_mut().start_again().unwrap();
        assert!(is_whole(topology.h(1)), "with the daemon back");
    }
    let report = probe.finish().unwrap();
    assert!(report.clean(), "{report}");
    let h1 = topology.h(1);
    assert_eq!(index(h1, "ovl0"), index_before);
    let (before, after) = (&guards_before[0], &guards(h1, "ovl0")[0]);
    assert_eq!(before.link, after.link, "the link is adopted");
    assert_ne!(before.program, after.program, "and has the new program");
    assert_eq!(topology.h_mut(1).overlayd_mut().detach().unwrap().code, Some(0));
    assert_eq!(link(topology.h(1), "ovl0"), None);
}

#[test]
fn what_somebody_does_to_it_is_undone_and_traffic_does_not_notice() {
    let topology = two_hosts().unwrap();
    let h1 = topology.h(1);
    let before = index(h1, "ovl0");
    let probe = probe(&topology, 60);
    for command in [
        "ip link set ovl0 down",
        "ip link set ovl0 address 02:00:00:00:00:77",
        "ip link set ovl0 mtu 1400",
        "ip link set ovl0 alias mine",
        "bridge vni delete vni 1 dev ovl0",
        "bridge vni add vni 7-9 dev ovl0",
    ] {
        h1.ns.exec(&command.split(' ').collect::<Vec<_>>()).unwrap();
        let mended = || {
            let link = link(h1, "ovl0").unwrap();
            is_whole(h1)
                && link["mtu"] == 65_465
                && link["ifalias"] == "overlayd"
                && link["address"] != "02:00:00:00:00:77"
        };
        eventually(command, RESYNC, mended).unwrap();
    }
    assert_eq!(index(h1, "ovl0"), before, "all that is mended in place");
    for command in [
        "ip link del ovl0",
        "ip link set ovl0 down name ovl7 up",
        // Nobody can open the door by exchanging the device for one that takes everything.
        "ip link set ovl0 type vxlan external learning",
    ] {
        let _refused = h1.ns.exec(&command.split(' ').collect::<Vec<_>>());
        eventually(command, RESYNC, || is_whole(h1) && link(h1, "ovl7").is_none()).unwrap();
        assert_eq!(link(h1, "ovl0").unwrap()["linkinfo"]["info_data"]["learning"], false);
    }
    let report = probe.finish().unwrap();
    assert!(report.clean(), "{report}");
    assert_eq!(status(h1).0, "ok");
}

/// Without its program the device is an open door: it goes down first.
#[test]
fn a_guard_that_was_taken_away_is_put_back() {
    let topology = two_hosts().unwrap();
    let h1 = topology.h(1);
    let (index, old) = (index(h1, "ovl0").unwrap(), guards(h1, "ovl0")[0].link);
    let pin_dir = &h1.overlayd().config.pin_dir;
    // The daemon holds the link besides its pin: without the pin alone it would go on guarding.
    let pin = Pins::new(pin_dir).link(u32::try_from(index).unwrap(), "tunnel_ingress");
    h1.ns.exec(&["bpftool", "link", "detach", "pinned", &pin.display().to_string()]).unwrap();
    std::fs::remove_file(pin).unwrap();
    eventually("nobody guards it", SOON, || guards(h1, "ovl0").iter().all(|guard| guard.link != old))
        .unwrap();
    eventually("it is guarded again", RESYNC, || is_whole(h1)).unwrap();
    let log = h1.overlayd().log_tail(50);
    assert!(log.contains("ovl0 was up without its program"), "{log}");
}

#[test]
fn a_foreign_ovl0_is_named_and_left_alone() {
    let mut topology = Topology::builder().store(StoreKind::Peers).without_overlayd().up().unwrap();
    topology.h(1).ns.ip("link add ovl0 type bridge").unwrap();
    let before = link(topology.h(1), "ovl0");
    for host in [0, 1] {
        topology.start_overlayd(host).unwrap();
    }
    let h1 = topology.h(1);
    eventually("it is degraded", SOON, || status(h1).0 == "degraded").unwrap();
    let message = status(h1).1;
    assert!(message.contains("bridge interface ovl0") && message.contains("rename or delete"), "{message}");
    assert_eq!((link(h1, "ovl0"), entry(h1, 4789)), (before, None));
    assert!(probe(&topology, 3).join().unwrap().clean(), "the fast path goes on");
    h1.ns.ip("link del ovl0").unwrap();
    eventually("it is there", RESYNC, || is_whole(h1) && status(h1).0 == "ok").unwrap();
}

#[test]
fn peers_bring_their_own_ports_and_vnis() {
    let topology = two_hosts().unwrap();
    let h1 = topology.h(1);
    let key = format!("{ETCD_PREFIX}/subnets/10.9.0.0-24");
    let record =
        r#"{"PublicIP":"172.16.199.200","BackendType":"vxlan","BackendData":{"VNI":77,"Port":8472}}"#;
    topology.etcd().put(&key, record).unwrap();
    let both = || vnis(h1, "ovl0") == [1, 77] && vnis(h1, "ovl8472") == [1, 77] && is_up(h1, "ovl8472");
    eventually("there are two devices", SOON, both).unwrap();
    assert_eq!(entry(h1, 8472), index(h1, "ovl8472").map(|index| (index, 0)));
    assert_eq!(guards(h1, "ovl8472").len(), 1);
    topology.etcd().del(&key).unwrap();
    let one = || is_whole(h1) && link(h1, "ovl8472").is_none() && entry(h1, 8472).is_none();
    eventually("there is one", SOON, one).unwrap();
}
