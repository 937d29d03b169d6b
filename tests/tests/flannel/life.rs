//! A flanneld joins, changes and leaves.

use std::net::{IpAddr, Ipv4Addr};

use harness::{eventually, host::Host, traffic::ping};
use overlay_common::{Encap, Mac};

use crate::{
    FOLLOWED, both_ways, followed, hosts,
    node::{Backend, Flanneld},
    serve, unchanged,
    way::{Way, Ways},
};

const VNI: u32 = 1;

/// What flannel takes where its configuration names none.
const PORT: u16 = 8472;

/// As flannel's documentation has it: neither VNI nor port.
const CONFIG: &str = r#"{"Network":"172.16.0.0/12","Backend":{"Type":"vxlan"}}"#;

/// Where host 2 moves to.
const MOVED: Ipv4Addr = Ipv4Addr::new(172, 16, 199, 67);

/// What is dropped for want of a peer at its address.
fn strangers(host: &Host) -> u64 {
    host.overlayd().drops().unwrap().get("unknown_peer").copied().unwrap_or(0)
}

#[test]
fn a_node_joins_changes_and_leaves() {
    let mut topology = hosts().up().unwrap();
    serve(&mut topology, CONFIG);
    let probe = unchanged(&topology);
    let ways = [1, 3].map(|n| Ways::of(topology.h(n)));
    let subnet = topology.h(2).bridge.subnet();
    let all_go = |peer: Ipv4Addr, mac: &str| {
        let (peer, vtep): (IpAddr, Option<Mac>) = (peer.into(), mac.parse().ok());
        let way = Way { encap: Encap::Vxlan as u32, peer, vni: VNI, vtep };
        ways.iter().all(|ways| ways.to(&subnet) == Some(way))
    };
    let none_go = || ways.iter().all(|ways| ways.to(&subnet).is_none());

    let mut node = Flanneld::new(topology.h(2), Backend::Vxlan { vni: VNI, port: PORT }, false);
    let (old, mac) = (topology.h(2).ip, node.mac().to_owned());
    assert!(none_go());
    followed("it joins", || node.write(topology.etcd(), topology.h(2)), || all_go(old, &mac));
    node.follow(&topology);
    both_ways(&topology);
    // Renewed: the same value, under another lease.
    node.write(topology.etcd(), topology.h(2));
    assert!(all_go(old, &mac));

    // Somebody gives its device another address, and it tells.
    node.set_mac(topology.h(2), "02:f1:a7:7e:10:01");
    let mac = node.mac().to_owned();
    followed("its VTEP is another", || node.write(topology.etcd(), topology.h(2)), || all_go(old, &mac));
    // The kernel forgets the device's neighbours with its address.
    node.follow(&topology);
    both_ways(&topology);
    // Or makes it anew, which draws one.
    node.make_devices_again(topology.h(2));
    let mac = node.mac().to_owned();
    followed("its device is new", || node.write(topology.etcd(), topology.h(2)), || all_go(old, &mac));
    node.follow(&topology);
    both_ways(&topology);

    // Its host moves. The device still sends from the old address, and is not believed any more.
    assert_eq!(strangers(topology.h(1)), 0);
    let ns = &topology.h(2).ns;
    ns.sysctl("ipv4/conf/eth0/promote_secondaries", "1").unwrap();
    ns.ip(&format!("addr add {MOVED}/24 dev eth0")).unwrap();
    topology.h_mut(2).ip = MOVED;
    followed("it moves", || node.write(topology.etcd(), topology.h(2)), || all_go(MOVED, &mac));
    let believed = |ways: &Ways| [old, MOVED].map(|ip| ways.believes(ip.into()));
    let only_there = || ways.iter().all(|ways| believed(ways) == [false, true]);
    eventually("the old address is no peer's", FOLLOWED, only_there).unwrap();
    let refused = ping(&topology.h(2).c(1).ns, topology.h(1).c(1).ip, 5).unwrap();
    assert_eq!((refused.received, strangers(topology.h(1))), (0, 5), "{}", refused.text);
    node.make_devices_again(topology.h(2));
    node.set_mac(topology.h(2), &mac);
    topology.h(2).ns.ip(&format!("addr del {old}/24 dev eth0")).unwrap();
    node.follow(&topology);
    both_ways(&topology);
    assert_eq!(strangers(topology.h(1)), 5);

    // It leaves: its key is deleted, as by an operator, or its lease runs out.
    let key = node.key(topology.h(2));
    followed("its key is deleted", || topology.etcd().del(&key).unwrap(), none_go);
    assert!(ways.iter().all(|ways| !ways.believes(MOVED.into())));
    followed("it is back", || node.write(topology.etcd(), topology.h(2)), || all_go(MOVED, &mac));
    both_ways(&topology);
    followed("its lease ends", || node.expire(topology.etcd()), none_go);

    let report = probe.finish().unwrap();
    assert!(report.clean(), "{report}");
    let strangers_alone: Vec<_> = topology.h(1).overlayd().drops().unwrap().into_iter().collect();
    assert_eq!(strangers_alone, [("unknown_peer".to_owned(), 5)]);
    assert_eq!(topology.h(3).overlayd().drops().unwrap().len(), 0);
}
