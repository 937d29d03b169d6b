//! flannel's other networks: without a tunnel, and with IPv6. Their configurations are written in letters of any case, as
//! Go's decoder takes them.

use std::net::IpAddr;

use harness::{Versions, topology::Builder};
use overlay_common::{Encap, Mac};

use crate::{
    both_ways, followed, hosts,
    node::{Backend, Flanneld},
    serve, unchanged,
    way::{Way, Ways},
};

/// Every flanneld sends to its neighbours as a router does, and so do hosts that are told to.
#[test]
fn without_a_tunnel() {
    let mut topology = hosts().overlayd_args(&["--encap=direct"]).up().unwrap();
    serve(&mut topology, r#"{"network":"172.16.0.0/12","backend":{"type":"Host-GW"}}"#);
    let probe = unchanged(&topology);
    let ways = [1, 3].map(|n| Ways::of(topology.h(n)));
    let (subnet, peer) = (topology.h(2).bridge.subnet(), IpAddr::from(topology.h(2).ip));
    let direct = Way { encap: Encap::Direct as u32, peer, vni: 0, vtep: None };

    let mut node = Flanneld::new(topology.h(2), Backend::HostGw, false);
    let expected = format!(r#"{{"PublicIP":"{peer}","PublicIPv6":null,"BackendType":"host-gw"}}"#);
    assert_eq!(node.value(topology.h(2)), expected);
    let all_go = || ways.iter().all(|ways| ways.to(&subnet) == Some(direct));
    followed("it joins", || node.write(topology.etcd(), topology.h(2)), all_go);
    node.follow(&topology);
    both_ways(&topology);
    let none_go = || ways.iter().all(|ways| ways.to(&subnet).is_none());
    followed("its lease ends", || node.expire(topology.etcd()), none_go);

    let report = probe.finish().unwrap();
    assert!(report.clean(), "{report}");
    for number in [1, 3] {
        assert_eq!(topology.h(number).overlayd().drops().unwrap().len(), 0, "on host {number}");
    }
}

/// Hosts with both versions of IP, inside and outside.
fn dual_hosts() -> Builder {
    hosts().versions(Versions::Both, true).container_mtu(1430)
}

/// A device, a VTEP and a subnet for each version of IP, in one key.
#[test]
fn with_ipv6() {
    const VNI: u32 = 0x1234;
    const PORT: u16 = 8479;
    let mut topology = dual_hosts().up().unwrap();
    let backend = format!(r#"{{"TYPE":"VXLAN","vNi":{VNI},"pOrT":{PORT}}}"#);
    let v6 = r#""enableipv6":true,"ipv6NETWORK":"fd00::/16""#;
    serve(&mut topology, &format!(r#"{{"NETWORK":"172.16.0.0/12",{v6},"BackEnd":{backend}}}"#));
    let probe = unchanged(&topology);
    let ways = [1, 3].map(|n| Ways::of(topology.h(n)));
    let h2 = topology.h(2);
    let subnets = [h2.bridge.subnet(), h2.bridge.subnet_v6().unwrap()];
    let addresses = [IpAddr::from(h2.ip), h2.ip_v6.into()];

    let mut node = Flanneld::new(h2, Backend::Vxlan { vni: VNI, port: PORT }, true);
    let all_go = |macs: [Option<Mac>; 2]| {
        let way = |version: usize| {
            let (peer, vtep) = (addresses[version], macs[version]);
            Some(Way { encap: Encap::Vxlan as u32, peer, vni: VNI, vtep })
        };
        let goes = |ways: &Ways| [0, 1].into_iter().all(|version| ways.to(&subnets[version]) == way(version));
        ways.iter().all(goes)
    };
    let none_go = || ways.iter().all(|ways| subnets.iter().all(|subnet| ways.to(subnet).is_none()));
    let macs = node.macs();
    assert!(macs[0].is_some() && macs[0] != macs[1], "{macs:?}");
    followed("it joins", || node.write(topology.etcd(), topology.h(2)), || all_go(macs));
    node.follow(&topology);
    both_ways(&topology);
    // Both devices are new, and so are both of their addresses.
    node.make_devices_again(topology.h(2));
    let again = node.macs();
    assert!(again.iter().all(|mac| !macs.contains(mac)));
    followed("its devices are new", || node.write(topology.etcd(), topology.h(2)), || all_go(again));
    node.follow(&topology);
    both_ways(&topology);
    followed("its lease ends", || node.expire(topology.etcd()), none_go);

    let report = probe.finish().unwrap();
    assert!(report.clean(), "{report}");
    for number in [1, 3] {
        assert_eq!(topology.h(number).overlayd().drops().unwrap().len(), 0, "on host {number}");
    }
}
