//! What overlayd writes, read by flanneld's rules.

use std::{
    fs,
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

use harness::{
    Topology, Versions, binaries, eventually,
    host::{BRIDGE, Plan},
    overlayd::Overlayd,
    process::{Background, Cmd},
    topology::ETCD_PREFIX,
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use overlay_common::{Encap, Mac, Vni};
use overlay_user::{
    store::{Announcement, Subnets, schema},
    underlay::Underlay,
};
use proptest::prelude::*;
use serde_json::Value;

use crate::{
    SOON,
    rules::{self, Vtep, Watcher},
};

proptest! {
    /// Of any bridge that a host may have, and whatever it is reached by.
    #[test]
    fn what_is_announced_is_read_as_it_is_meant(
        v4 in (0x0a00_0000u32..0x7f00_0000, 8u8..=30),
        v6 in proptest::option::of((0x2000u128 << 112..0xfe00u128 << 112, 3u8..=126)),
        ip in proptest::option::of(0xc000_0200u32..0xc000_0300),
        ip_v6 in 0x2001_0db8u128 << 96..0x2001_0db9u128 << 96,
        over_v6: bool,
        vni in 1u32..=Vni::MAX,
        mac: [u8; 6],
        kind in 0..Encap::ALL.len(),
    ) {
        let subnets = Subnets {
            v4: Ipv4Net::new(v4.0.into(), v4.1).unwrap().trunc(),
            v6: v6.map(|(ip, len)| Ipv6Net::new(ip.into(), len).unwrap().trunc()),
        };
        let ip = ip.map(Ipv4Addr::from);
        let ip_v6 = (over_v6 || ip.is_none()).then_some(Ipv6Addr::from(ip_v6));
        let host = Underlay::new(ip, ip_v6).unwrap();
        let encap = Encap::ALL[kind];
        let ours = Announcement { subnets, host, src_ips: Vec::new(), vni, vtep_mac: Mac(mac).to_string(), encap };
        let key = schema::subnet_key("/coreos.com/network", subnets);
        prop_assert!(rules::is_watched("/coreos.com/network", &key));

        let lease = rules::parse(&key, &schema::lease_value(&ours)).unwrap();
        prop_assert_eq!(lease.subnets.v4, (subnets.v4.addr(), subnets.v4.prefix_len()));
        prop_assert_eq!(lease.subnets.v6, subnets.v6.map(|net| (net.addr(), net.prefix_len())));
        prop_assert_eq!(lease.public_ip, ip.unwrap_or(Ipv4Addr::UNSPECIFIED));
        prop_assert_eq!(lease.public_ip_v6.filter(|ip| !ip.is_unspecified()), ip_v6);
        prop_assert_eq!(&lease.backend_type, encap.backend_type());
        let vtep = Some(Vtep { vni, mac });
        let vteps = Some([vtep, subnets.v6.and(vtep)]);
        prop_assert_eq!(lease.vteps("vxlan").unwrap(), vteps.filter(|_| encap == Encap::Vxlan));
        prop_assert_eq!(lease.vteps("host-gw").unwrap().is_some(), encap == Encap::Direct);
    }
}

/// What happened to a key.
#[derive(Debug)]
enum Event {
    Put(String, String),
    Delete(String),
}

/// Everything that is written under the prefix, from now on.
struct Log {
    file: PathBuf,
    _watch: Background,
}

impl Log {
    fn start(topology: &Topology) -> Self {
        let file = topology.scope.dir().join("events");
        let endpoint = format!("--endpoints={}", topology.etcd().endpoint());
        let watch = topology.wire.ns().unwrap().cmd("etcdctl").env("ETCDCTL_API", "3");
        let watch = watch.args([endpoint.as_str(), "watch", "--prefix", ETCD_PREFIX]).spawn(&file);
        let log = Self { file, _watch: watch.unwrap() };
        let shows = || {
            topology.etcd().put(&format!("{ETCD_PREFIX}/overlayd/begin"), "").unwrap();
            !log.events().is_empty()
        };
        eventually("the watch shows what is written", SOON, shows).unwrap();
        log
    }

    fn events(&self) -> Vec<Event> {
        let text = fs::read_to_string(&self.file).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let event = |lines: &[&str]| match lines {
            ["PUT", key, value] => Event::Put((*key).to_owned(), (*value).to_owned()),
            ["DELETE", key, ""] => Event::Delete((*key).to_owned()),
            other => panic!("etcdctl says {other:?}"),
        };
        lines.chunks_exact(3).map(event).collect()
    }

    /// All of them, up to now.
    fn finish(self, topology: &Topology) -> Vec<Event> {
        let last = format!("{ETCD_PREFIX}/overlayd/end");
        topology.etcd().put(&last, "").unwrap();
        let is_last = |event: &Event| matches!(event, Event::Put(key, _) if *key == last);
        eventually("the watch shows the end", SOON, || self.events().iter().any(is_last)).unwrap();
        self.events()
    }
}

/// Two hosts in a network with IPv6: one speaks both versions in and out, and has the name of a subnet; one speaks IPv4.
fn hosts() -> Topology {
    let plan = |index| match index {
        0 => Plan { underlay: Versions::Both, bridge_v6: true },
        _ => Plan::default(),
    };
    let topology = Topology::builder().plan(plan).without_overlayd().up().unwrap();
    let config = r#"{"Network":"172.16.0.0/12","EnableIPv6":true,"IPv6Network":"fd00::/16","Backend":{"Type":"vxlan"}}"#;
    topology.etcd().put(&format!("{ETCD_PREFIX}/config"), config).unwrap();
    topology
}

fn start(topology: &mut Topology, index: usize, name: &str) {
    let mut config = topology.overlayd_config(index);
    name.clone_into(&mut config.node_name);
    let host = &mut topology.hosts[index];
    host.overlayd = Some(Overlayd::start(&host.ns, config).unwrap());
}

/// Leases a subnet, as a host that is yet to get its bridge.
fn lease(topology: &Topology, name: &str, address: &str) {
    let dir = topology.scope.dir().join(name);
    let file = |name: &str| dir.join(name).display().to_string();
    let leased = Cmd::new(binaries::find("overlayd").unwrap())
        .netns(topology.h(2).ns.path())
        .args(["lease", "--iface=eth0"])
        .args([
            format!("--node-name={name}"),
            format!("--public-ip={address}"),
            format!("--etcd-endpoints={}", topology.etcd().endpoint()),
            format!("--etcd-prefix={ETCD_PREFIX}"),
            format!("--pin-dir={}", topology.scope.pin_dir(name).display()),
            format!("--state-dir={}", file("state")),
            format!("--subnet-file={}", file("subnet.env")),
        ])
        .check()
        .unwrap();
    assert!(leased.stdout.trim().ends_with("/24"), "{}", leased.stdout);
    assert!(Path::new(&file("subnet.env")).exists());
}

/// The key hangs on a lease as flanneld grants it.
fn assert_leased(topology: &Topology, key: &str) {
    let said = topology.etcd().etcdctl(&["get", "-w", "json", "--", key]).unwrap().stdout;
    let said: Value = serde_json::from_str(&said).unwrap();
    let lease = format!("{:x}", said["kvs"][0]["lease"].as_i64().unwrap());
    let said = topology.etcd().etcdctl(&["lease", "timetolive", &lease, "-w", "json"]).unwrap().stdout;
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["granted-ttl"], 86_400, "{key}: {said}");
}

/// What flanneld makes of a key has to be what overlayd makes of it.
fn assert_read_alike(key: &str, value: &str) {
    let lease = rules::parse(key, value).unwrap();
    let [v4, v6] = lease.vteps("vxlan").unwrap().unwrap_or_else(|| panic!("{key} {value} is ignored"));
    assert_eq!(lease.vteps("host-gw").unwrap(), None, "a flanneld of another network passes it over");
    let name = key.strip_prefix(&schema::subnets_prefix(ETCD_PREFIX)).unwrap();
    let Ok(schema::Lease::Peer(peers)) = schema::parse_lease(name, value.as_bytes()) else {
        panic!("{key} {value} is no peer");
    };
    let subnet_v6 = lease.subnets.v6.map(|(ip, len)| IpNet::new(ip.into(), len).unwrap());
    let (ip, len) = lease.subnets.v4;
    let subnets = [Some(IpNet::new(ip.into(), len).unwrap()), subnet_v6];
    let read: Vec<_> = subnets.into_iter().flatten().zip([v4, v6].into_iter().flatten()).collect();
    let meant = peers
        .iter()
        .map(|peer| (peer.subnet, Vtep { vni: peer.vni.unwrap().get(), mac: peer.vtep_mac.unwrap().0 }));
    assert_eq!(read, meant.collect::<Vec<_>>(), "{key} {value}");
    for peer in &peers {
        let address = Some(lease.public_ip).filter(|ip| !ip.is_unspecified());
        let address_v6 = lease.public_ip_v6.filter(|ip| !ip.is_unspecified());
        assert_eq!((peer.host.v4(), peer.host.v6()), (address, address_v6), "{key} {value}");
    }
}

/// Every key of a whole life: announced, with an IPv6 part that goes and comes back, leased, found again, taken back.
#[test]
fn everything_that_is_written() {
    let mut topology = hosts();
    let log = Log::start(&topology);
    start(&mut topology, 0, "10.9.0.0-24");
    start(&mut topology, 1, "h2");
    lease(&topology, "n1", "172.16.199.201");
    lease(&topology, "n2", "172.16.199.202");
    let key = |name: &str| format!("{ETCD_PREFIX}/{name}");
    let is_there = |topology: &Topology, name: &str| topology.etcd().get(&key(name)).unwrap().is_some();
    let (dual, alone) = ("subnets/172.17.0.0-16&fd00:17::-64", "subnets/172.17.0.0-16");
    for name in [dual, "subnets/172.27.0.0-16", "overlayd/nodes/10.9.0.0-24", "overlayd/nodes/h2"] {
        eventually(name, SOON, || is_there(&topology, name)).unwrap();
    }
    let gateway = topology.h(1).bridge.ip_v6.unwrap();
    for (verb, name) in [("del", alone), ("add", dual)] {
        topology.h(1).ns.ip(&format!("addr {verb} {gateway}/64 dev {BRIDGE}")).unwrap();
        eventually(name, SOON, || is_there(&topology, name)).unwrap();
    }
    topology.h_mut(1).overlayd_mut().kill9().unwrap();
    topology.h_mut(1).overlayd_mut().start_again().unwrap();
    assert_eq!(topology.h_mut(2).overlayd_mut().detach().unwrap().code, Some(0));
    assert!(!is_there(&topology, "subnets/172.27.0.0-16"));

    let events = log.finish(&topology);
    let mut flanneld = Watcher::default();
    let (mut put, mut deleted) = (0, 0);
    for event in &events {
        match event {
            Event::Put(key, value) if rules::is_watched(ETCD_PREFIX, key) => {
                assert_read_alike(key, value);
                flanneld.put(key, value).unwrap();
                put += 1;
            }
            Event::Delete(key) if rules::is_watched(ETCD_PREFIX, key) => {
                flanneld.delete(key).unwrap();
                deleted += 1;
            }
            Event::Put(key, _) | Event::Delete(key) => {
                assert!(key.starts_with(&format!("{ETCD_PREFIX}/overlayd/")), "{key}");
            }
        }
    }
    // Three of host 1, one of host 2, two leased; two that were replaced, and one that was taken back.
    assert_eq!((put, deleted), (6, 3), "{events:?}");
    let now = topology.etcd().get_prefix(&key("subnets")).unwrap();
    let listed = now.iter().map(|(key, value)| {
        assert_leased(&topology, key);
        let lease = rules::parse(key, value).unwrap();
        (lease.subnets, lease)
    });
    assert_eq!(flanneld.leases(), listed.collect());
    assert_eq!(flanneld.leases().len(), 3);
}
