//! docker0 is deleted and made again, and containers on it with other MAC addresses.

use harness::{
    Netns, Topology,
    container::{self, Engine, Namespaces},
    eventually,
    host::{BRIDGE, Host},
    traffic::ping_with,
};

use crate::bed::{Flow, RECOVERY, SOON, is_well, overlay_neighbours, record, says};

/// Deletes docker0 with its containers.
fn delete(host: &mut Host) {
    host.remove_container("c1").unwrap();
    host.ns.ip(&format!("link del {BRIDGE}")).unwrap();
}

/// Makes docker0 anew, with one container.
fn make(host: &mut Host, bridge: &container::Bridge) {
    Namespaces.start(&host.ns, bridge).unwrap();
    host.bridge = bridge.clone();
    host.start_container(1, 1500).unwrap();
}

/// Everything that docker0 needs for the two peers.
fn is_whole(topology: &Topology) -> bool {
    let h1 = topology.h(1);
    let routes = h1.ns.ip(&format!("route show proto 79 dev {BRIDGE}")).unwrap().stdout;
    let redirects =
        h1.ns.exec(&["cat", &format!("/proc/sys/net/ipv4/conf/{BRIDGE}/send_redirects")]).unwrap();
    let announced =
        record(topology, &h1.bridge.subnet()).is_some_and(|value| value.contains(&h1.ip.to_string()));
    routes.lines().count() == 2
        && overlay_neighbours(&h1.ns, BRIDGE) == 2
        && redirects.stdout.trim() == "0"
        && announced
        && h1.attached(BRIDGE).unwrap()
        && h1.attached(&h1.c(1).port).unwrap()
}

fn assert_reached(topology: &Topology) {
    let (h1, h2) = (topology.h(1), topology.h(2));
    // A lost request alone would take two seconds to be given up.
    let once = |from: &Netns, to| ping_with(from, to, 1, &["-W", "0.2"]).is_ok_and(|ping| ping.clean());
    let both = || once(&h2.c(1).ns, h1.c(1).ip) && once(&h1.c(1).ns, h2.c(1).ip);
    eventually("containers talk", RECOVERY, both)
        .unwrap_or_else(|error| panic!("{error}\n{}", h1.overlayd().log_tail(30)));
}

#[test]
fn docker0_that_is_made_again_is_followed() {
    let mut topology = Topology::builder().hosts(3).up().unwrap();
    let old = topology.h(1).bridge.clone();
    let other = container::Bridge { ip: [10, 77, 0, 1].into(), prefix_len: 24, ..old.clone() };
    let flow = Flow::between(topology.h(2), topology.h(3));
    for bridge in [&old, &other, &old] {
        let before = topology.h(1).bridge.clone();
        delete(topology.h_mut(1));
        says(topology.h(1), &["bridge docker0 is gone", "make it again"]);
        assert!(record(&topology, &before.subnet()).is_some(), "nobody else may take the subnet meanwhile");
        make(topology.h_mut(1), bridge);
        let h2 = topology.h(2);
        let wanted = bridge.subnet();
        eventually("the peer knows", SOON, || h2.overlayd().routes().unwrap().contains(&wanted)).unwrap();
        assert_reached(&topology);
        eventually("all is in place", SOON, || is_whole(&topology))
            .unwrap_or_else(|error| panic!("{error}\n{}", topology.h(1).overlayd().log_tail(30)));
        is_well(topology.h(1));
        if before.ip != bridge.ip {
            let gone = || {
                record(&topology, &before.subnet()).is_none()
                    && !topology.h(2).overlayd().routes().unwrap().contains(&before.subnet())
            };
            eventually("the old subnet is taken back", SOON, gone).unwrap();
        }
    }
    flow.clean();
    // Nothing of any earlier docker0 is left.
    let devices = topology.h(1).ns.run(harness::tcx::devices).unwrap().unwrap();
    let pins = overlay_user::datapath::pin::Pins::new(&topology.h(1).overlayd().config.pin_dir);
    assert!(pins.pinned_links().unwrap().iter().all(|(index, _)| devices.contains_key(index)));
}

/// Down for a moment: the kernel takes its routes away, and nobody gives them back.
#[test]
fn docker0_that_was_down_has_its_routes_again() {
    let topology = Topology::builder().hosts(3).up().unwrap();
    let flow = Flow::between(topology.h(2), topology.h(3));
    let h1 = topology.h(1);
    h1.ns.ip(&format!("link set {BRIDGE} down")).unwrap();
    says(h1, &["bridge docker0 is down", "ip link set docker0 up"]);
    h1.ns.ip(&format!("link set {BRIDGE} up")).unwrap();
    eventually("all is in place", RECOVERY, || is_whole(&topology)).unwrap();
    assert_reached(&topology);
    is_well(h1);
    flow.clean();
}

#[test]
fn a_container_that_comes_back_is_followed_at_once_whatever_its_mac_address() {
    let mut topology = Topology::builder().hosts(3).up().unwrap();
    let flow = Flow::between(topology.h(2), topology.h(3));
    let ip = topology.h(1).c(1).ip;
    for mac in [None, Some("02:00:00:00:02:01"), Some("02:00:00:00:02:02")] {
        assert_reached(&topology);
        topology.restart_container(1, 1).unwrap();
        if let Some(mac) = mac {
            let c1 = &topology.h(1).c(1).ns;
            c1.ip(&format!("link set eth0 address {mac}")).unwrap();
        }
        assert_eq!(topology.h(1).c(1).ip, ip);
        assert_reached(&topology);
    }
    // On the same port, and without a word.
    topology.h(1).c(1).ns.ip("link set eth0 address 02:00:00:00:02:03").unwrap();
    assert_reached(&topology);
    let known = || {
        let rows = topology.h(1).overlayd().ctl(&["endpoints", "-o", "json"]).unwrap();
        let row = rows.as_array().unwrap().iter().find(|row| row["ip"] == ip.to_string());
        row.is_some_and(|row| row["mac"] == "02:00:00:00:02:03")
    };
    eventually("it is known", SOON, known).unwrap();
    flow.clean();
}
