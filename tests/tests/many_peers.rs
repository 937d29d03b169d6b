//! Two thousand peers with both versions of IP: all of them in the maps and in the kernel's tables, and every change
//! of them where it belongs. Deadlines are generous: how fast it is, the benchmark says.
#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use harness::{Netns, Topology, Versions, eventually, process::Cmd, topology::ETCD_PREFIX, wire::ADDRESS};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use overlay_common::Vni;
use overlay_user::datapath::{
    map::{Maps, RouteKey},
    pin::Pins,
};

const PEERS: u16 = 2000;
const DEADLINE: Duration = Duration::from_secs(30);

/// A key of the store: a peer's two subnets, and where its host is.
#[derive(Clone, Copy)]
struct Peer {
    subnet: u16,
    host: u16,
    mac: u8,
}

impl Peer {
    fn new(number: u16) -> Self {
        Self { subnet: number, host: number, mac: 0 }
    }

    fn v4(self) -> Ipv4Net {
        let [high, low] = self.subnet.to_be_bytes();
        Ipv4Net::new(Ipv4Addr::new(10, high, low, 0), 24).unwrap()
    }

    fn v6(self) -> Ipv6Net {
        Ipv6Net::new(Ipv6Addr::new(0xfd10, 0, self.subnet, 0, 0, 0, 0, 0), 64).unwrap()
    }

    fn host_v4(self) -> Ipv4Addr {
        let [high, low] = self.host.to_be_bytes();
        Ipv4Addr::new(198, 18, high, low)
    }

    fn host_v6(self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0x198, 0, 0, 0, 0, 0, self.host)
    }

    fn key(self) -> String {
        format!("{ETCD_PREFIX}/subnets/{}-24&{}-64", self.v4().network(), self.v6().network())
    }

    fn put(self) -> String {
        let data = format!(r#"{{"VtepMAC":"02:00:00:00:00:{:02x}"}}"#, self.mac);
        let (v4, v6) = (self.host_v4(), self.host_v6());
        let value = format!(
            r#"{{"PublicIP":"{v4}","PublicIPv6":"{v6}","BackendType":"vxlan","BackendData":{data},"Overlayd":{{"UDP6ZeroChecksum":true}}}}"#
        );
        format!("put {} \"{}\"", self.key(), value.replace('"', "\\\""))
    }

    fn delete(self) -> String {
        format!("del {}", self.key())
    }
}

/// Runs operations of etcdctl, as many at once as etcd takes in one transaction.
fn transact(lab: &Topology, operations: &[String]) {
    for some in operations.chunks(128) {
        let mut script = "\n".to_owned();
        some.iter().for_each(|operation| writeln!(script, "{operation}").unwrap());
        script.push_str("\n\n");
        let endpoint = format!("--endpoints={}", lab.etcd().endpoint());
        let etcdctl = Cmd::new("etcdctl").netns(lab.wire.ns().unwrap().path()).env("ETCDCTL_API", "3");
        etcdctl.args([&endpoint, "txn"]).stdin(script).check().unwrap();
    }
}

/// Where each subnet's route leads, and the MAC address at the end of it.
fn ways(lab: &Topology) -> BTreeMap<IpNet, (IpAddr, u8)> {
    let maps = Maps::open(&Pins::new(&lab.overlayd_config(0).pin_dir)).unwrap();
    let tunnels: BTreeMap<_, _> = maps.tunnels().unwrap().into_iter().collect();
    let way = |tunnel: u32| {
        let tunnel = tunnels.get(&tunnel)?;
        let mac = tunnel.template[tunnel.template_len as usize - 14 + 5];
        Some((IpAddr::from(tunnel.remote), mac))
    };
    let routes = maps.routes().unwrap().into_iter();
    // What is read entry by entry may be of two moments: then it is read again.
    routes
        .map(|(key, route)| (key.prefix, way(route.tunnel).unwrap_or((Ipv4Addr::UNSPECIFIED.into(), 0))))
        .collect()
}

fn wanted(peers: &BTreeMap<u16, Peer>) -> BTreeMap<IpNet, (IpAddr, u8)> {
    let of = |peer: &Peer| {
        let v4 = (IpNet::V4(peer.v4()), (IpAddr::V4(peer.host_v4()), peer.mac));
        [v4, (IpNet::V6(peer.v6()), (IpAddr::V6(peer.host_v6()), peer.mac))]
    };
    peers.values().flat_map(of).collect()
}

/// The overlay's routes in the kernel, of both versions.
fn kernel_routes(host: &Netns) -> BTreeSet<IpNet> {
    let list = |version: &str| host.ip(&format!("{version} route show proto 79")).unwrap().stdout;
    let (v4, v6) = (list("-4"), list("-6"));
    v4.lines()
        .chain(v6.lines())
        .map(|line| line.split_whitespace().next().unwrap().parse().unwrap())
        .collect()
}

#[test]
fn two_thousand_peers_come_change_and_go() {
    let lab = Topology::builder().hosts(1).containers(0).without_overlayd().versions(Versions::Both, true);
    let mut lab = lab.up().unwrap();
    lab.h(1).ns.ip("route add 198.18.0.0/15 dev eth0").unwrap();
    lab.h(1).ns.ip("-6 route add fd00:198::/64 dev eth0").unwrap();
    let mut peers: BTreeMap<u16, Peer> = (1..=PEERS).map(|number| (number, Peer::new(number))).collect();
    transact(&lab, &peers.values().map(|peer| peer.put()).collect::<Vec<_>>());
    lab.start_overlayd(0).unwrap();
    assert_eq!(ways(&lab), wanted(&peers));
    let all: BTreeSet<IpNet> = wanted(&peers).into_keys().collect();
    assert_eq!(kernel_routes(&lab.h(1).ns), all);

    let mut operations = Vec::new();
    for number in 1..=400 {
        let peer = Peer::new(number);
        match number % 4 {
            0 => drop(peers.insert(number, Peer { mac: 7, ..peer })),
            1 => drop(peers.insert(number, Peer { host: number + 1000, ..peer })),
            2 => drop(peers.insert(PEERS + number, Peer::new(PEERS + number))),
            _ => {
                peers.remove(&number);
                operations.push(peer.delete());
            }
        }
    }
    operations.extend(
        peers.values().filter(|peer| peer.mac != 0 || peer.host != peer.subnet).map(|peer| peer.put()),
    );
    operations.extend(peers.range(PEERS + 1..).map(|(_, peer)| peer.put()));
    transact(&lab, &operations);
    eventually("the changes are in the maps", DEADLINE, || ways(&lab) == wanted(&peers)).unwrap();
    let all: BTreeSet<IpNet> = wanted(&peers).into_keys().collect();
    eventually("and in the kernel", DEADLINE, || kernel_routes(&lab.h(1).ns) == all).unwrap();
    eventually("tunnels that nobody uses are cleared", DEADLINE, || idle_tunnels(&lab) == 0).unwrap();

    what_others_do_is_undone_or_followed(&lab, &peers);
}

fn idle_tunnels(lab: &Topology) -> usize {
    let maps = Maps::open(&Pins::new(&lab.overlayd_config(0).pin_dir)).unwrap();
    let used: BTreeSet<u32> = maps.routes().unwrap().into_iter().map(|(_, route)| route.tunnel).collect();
    maps.tunnels().unwrap().into_iter().filter(|(id, _)| !used.contains(id)).count()
}

/// A route or a neighbour of ours that somebody deletes comes back; a peer to which another way leads is reached by that.
fn what_others_do_is_undone_or_followed(lab: &Topology, peers: &BTreeMap<u16, Peer>) {
    let (ns, peer) = (&lab.h(1).ns, peers[&1999]);
    ns.ip(&format!("route del {} proto 79", peer.v4())).unwrap();
    let is_back = || kernel_routes(ns).contains(&IpNet::V4(peer.v4()));
    eventually("the deleted route is back", DEADLINE, is_back).unwrap();
    ns.ip(&format!("neigh del {} dev docker0", peer.v4().network())).unwrap();
    let is_back = || {
        ns.ip("neigh show dev docker0 nud permanent")
            .unwrap()
            .stdout
            .contains(&peer.v4().network().to_string())
    };
    eventually("the deleted neighbour is back", DEADLINE, is_back).unwrap();

    let hop = |number: u16| {
        let maps = Maps::open(&Pins::new(&lab.overlayd_config(0).pin_dir)).unwrap();
        let key = RouteKey::new(Vni::new(1).unwrap(), Peer::new(number).v4().into());
        let tunnel = maps.tunnel(maps.route(key).unwrap()?.tunnel).unwrap()?;
        Some(IpAddr::from(tunnel.hops[0].next_hop))
    };
    ns.ip(&format!("route add {}/32 via {ADDRESS}", peer.host_v4())).unwrap();
    let through = |way: IpAddr| ways(lab) == wanted(peers) && hop(1999) == Some(way);
    eventually("the other way is taken", DEADLINE, || through(ADDRESS.into())).unwrap();
    assert_eq!(hop(1998), Some(Peer::new(1998).host_v4().into()), "by that peer alone");
    ns.ip(&format!("route del {}/32", peer.host_v4())).unwrap();
    eventually("and left", DEADLINE, || through(peer.host_v4().into())).unwrap();
}
