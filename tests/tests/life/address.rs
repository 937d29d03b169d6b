//! This host's underlay address changes: the record follows, and the peers with it.

use std::net::Ipv4Addr;

use harness::{Topology, eventually, host::Host, topology::ETCD_PREFIX};

use crate::bed::{Flow, SOON, is_well, pause, record, says};

const NEW: Ipv4Addr = Ipv4Addr::new(172, 16, 199, 57);

/// Hosts that announce whatever address their uplink has.
fn hosts() -> Topology {
    let mut topology = Topology::builder().without_overlayd().up().unwrap();
    for index in 0..2 {
        let config = topology.overlayd_config(index);
        let config = harness::overlayd::Config { public_ips: Vec::new(), ..config };
        let host = &mut topology.hosts[index];
        host.overlayd = Some(harness::overlayd::Overlayd::start(&host.ns, config).unwrap());
    }
    topology.await_routes().unwrap();
    topology
}

fn peers(host: &Host) -> Vec<String> {
    let peers = host.overlayd().ctl(&["peers", "-o", "json"]).unwrap();
    peers.as_array().unwrap().iter().map(|peer| peer["public_ip"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn an_address_that_changes_is_announced_and_followed() {
    let topology = hosts();
    let (h1, h2) = (topology.h(1), topology.h(2));
    for (old, new) in [(h1.ip, NEW), (NEW, h1.ip)] {
        let flow = Flow::start(&topology);
        let from = flow.now();
        h1.ns.ip(&format!("addr del {old}/24 dev eth0")).unwrap();
        says(h1, &["uplink eth0 has no IPv4 address"]);
        pause(1);
        h1.ns.ip(&format!("addr add {new}/24 dev eth0")).unwrap();
        let to = flow.now();
        flow.goes_on();
        is_well(h1);
        is_well(h2);
        flow.lost_only_within(&[(from, to)]);
        let announced = record(&topology, "172.17.0.0/16").unwrap();
        assert!(announced.contains(&format!("\"{new}\"")), "{announced}");
        assert_eq!(peers(h2), [new.to_string()]);
    }
}

#[test]
fn an_address_beside_it_changes_nothing() {
    let topology = hosts();
    let h1 = topology.h(1);
    let flow = Flow::start(&topology);
    let before = record(&topology, "172.17.0.0/16");
    for address in ["172.16.199.58/24", "192.0.2.1/24"] {
        h1.ns.ip(&format!("addr add {address} dev eth0")).unwrap();
        pause(1);
        h1.ns.ip(&format!("addr del {address} dev eth0")).unwrap();
    }
    pause(1);
    assert_eq!(record(&topology, "172.17.0.0/16"), before);
    is_well(h1);
    flow.clean();
}

/// A peer that is no overlayd: somebody writes another address into its record.
#[test]
fn a_peer_whose_record_changes_is_sent_to_its_new_address() {
    let topology = hosts();
    let h1 = topology.h(1);
    let flow = Flow::start(&topology);
    let put = |host: u8| {
        let value = format!("{{\"PublicIP\":\"172.16.199.{host}\",\"BackendType\":\"vxlan\"}}");
        topology.etcd().put(&format!("{ETCD_PREFIX}/subnets/10.9.0.0-24"), &value).unwrap();
    };
    for host in [200, 201, 200] {
        put(host);
        let mut expected = [topology.h(2).ip.to_string(), format!("172.16.199.{host}")];
        expected.sort();
        let followed = || {
            let mut peers = peers(h1);
            peers.sort();
            peers == expected
        };
        eventually("the new address is in force", SOON, followed).unwrap();
    }
    flow.clean();
}
