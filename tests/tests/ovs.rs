//! A host with Open vSwitch, set up as the published how-tos have it, beside one with overlayd: neither was told of the
//! other's ways. The datapath in userspace, since that runs on any kernel.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails, in its helpers too")]

use std::{fs, net::IpAddr, net::Ipv4Addr, time::Duration};

use harness::{
    Topology, Versions, eventually,
    host::{BRIDGE, UPLINK},
    ovs::{Datapath, Switch},
    topology::StoreKind,
    traffic::{Endpoint, Probe, iperf, ping, transfer},
};

const SOON: Duration = Duration::from_secs(15);
const BYTES: usize = 1 << 20;
/// The MTU of all containers: what fits in Geneve and VXLAN.
const MTU: u32 = 1450;

/// How the hosts' containers are addressed in the how-tos.
#[derive(Clone, Copy)]
enum Plan {
    /// 172.17.0.0/16 and 172.27.0.0/16, and a route to each; and an IPv6 subnet on each, which is routed the same.
    Apart,
    /// 172.17.41.0/24 and 172.17.42.0/24 under one route to 172.17.0.0/16.
    Under,
}

/// Who is there first.
#[derive(Clone, Copy)]
enum First {
    Overlayd,
    Ovs,
}

/// Host 1 has overlayd, host 2 Open vSwitch.
struct Bed {
    topology: Topology,
    switch: Switch,
}

/// `entry` is what the peers file says of host 2 besides, `options` what its tunnel has.
fn up(plan: Plan, first: First, kind: &str, entry: &str, options: &str) -> Bed {
    let with_v6 = matches!(plan, Plan::Apart);
    let builder = Topology::builder().store(StoreKind::Peers).versions(Versions::V4, with_v6).containers(0);
    let mut topology = builder.container_mtu(MTU).without_overlayd().up().unwrap();
    for (number, other) in [(1, 2), (2, 1)] {
        if let Plan::Under = plan {
            readdress(&mut topology, number);
        }
        topology.start_container(number, 1).unwrap();
        let host = topology.h(number);
        // Neither checksums nor segmentation are left to a card: the switch reads what is on the wire.
        host.ns.exec(&["ethtool", "-K", UPLINK, "tx", "off", "gro", "off"]).unwrap();
        host.c(1).ns.exec(&["ethtool", "-K", "eth0", "tx", "off"]).unwrap();
        let route = match plan {
            Plan::Apart => format!("172.{}.0.0/16", if other == 1 { 17 } else { 27 }),
            Plan::Under => "172.17.0.0/16".to_owned(),
        };
        if number == 2 {
            host.ns.ip(&format!("route add {route} dev {BRIDGE}")).unwrap();
        }
    }
    let (h1, h2) = (topology.h(1), topology.h(2));
    if let Some(subnet) = h1.bridge.subnet_v6() {
        h2.ns.ip(&format!("route add {subnet} dev {BRIDGE}")).unwrap();
    }
    let subnets = [Some(h2.bridge.subnet()), h2.bridge.subnet_v6()].into_iter().flatten();
    let host = h2.ip;
    let entry_of =
        |subnet| format!("[[peer]]\nsubnet = \"{subnet}\"\nhost = \"{host}\"\nencap = \"{kind}\"\n{entry}\n");
    fs::write(topology.peers_file(0), subnets.map(entry_of).collect::<String>()).unwrap();
    if let First::Overlayd = first {
        topology.start_overlayd(0).unwrap();
    }
    let (h1, h2) = (topology.h(1), topology.h(2));
    let switch = Switch::start(&h2.ns, topology.scope.dir().join("ovs"), None).unwrap();
    switch.take_uplink(&h2.ns, UPLINK, h2.ip).unwrap();
    switch.join(&h2.ns, BRIDGE, Datapath::Userspace).unwrap();
    switch.add_tunnel("tun1", kind, h1.ip, options).unwrap();
    if let First::Ovs = first {
        topology.start_overlayd(0).unwrap();
    }
    Bed { topology, switch }
}

/// Gives a host's bridge the /24 of its number.
fn readdress(topology: &mut Topology, number: usize) {
    let host = topology.h_mut(number);
    let old = host.bridge.ip;
    host.bridge.ip = Ipv4Addr::new(172, 17, 40 + number as u8, 1);
    let old_len = std::mem::replace(&mut host.bridge.prefix_len, 24);
    let lines = [
        format!("addr del {old}/{old_len} dev {BRIDGE}"),
        format!("addr add {}/24 dev {BRIDGE}", host.bridge.ip),
    ];
    host.ns.ip_batch(&lines).unwrap();
}

impl Bed {
    fn ends(&self) -> [Endpoint<'_, IpAddr>; 2] {
        [1, 2].map(|n| {
            let container = self.topology.h(n).c(1);
            Endpoint { ns: &container.ns, ip: container.ip.into() }
        })
    }

    /// The same in IPv6, and the bridges' addresses.
    fn in_v6(&self) -> Option<([Endpoint<'_, IpAddr>; 2], [IpAddr; 2])> {
        let hosts = [self.topology.h(1), self.topology.h(2)];
        let bridges = hosts.map(|host| host.bridge.ip_v6.map(IpAddr::from));
        let ends = hosts.map(|host| {
            let container = host.c(1);
            container.ip_v6.map(|ip| Endpoint { ns: &container.ns, ip: ip.into() })
        });
        Some(([ends[0]?, ends[1]?], [bridges[0]?, bridges[1]?]))
    }

    /// Everything that how-tos show, both ways.
    fn talks(&self) {
        let bridges = [1, 2].map(|number| self.topology.h(number).bridge.ip.into());
        self.talks_between(self.ends(), bridges);
        if let Some((ends, bridges)) = self.in_v6() {
            self.talks_between(ends, bridges);
        }
    }

    fn talks_between(&self, [here, there]: [Endpoint<'_, IpAddr>; 2], bridges: [IpAddr; 2]) {
        let (h1, h2) = (self.topology.h(1), self.topology.h(2));
        let answers = || ping(here.ns, there.ip, 1).is_ok_and(|ping| ping.clean());
        eventually("a container behind Open vSwitch answers", SOON, answers).unwrap();
        for (from, to) in [(here, there), (there, here)] {
            assert!(ping(from.ns, to.ip, 3).unwrap().clean(), "{} from {}", to.ip, from.ip);
            transfer(from, to, BYTES).unwrap();
        }
        // docker0 pings docker0, and the other's containers.
        for (from, bridge, container) in [(h1, bridges[1], there.ip), (h2, bridges[0], here.ip)] {
            assert!(ping(&from.ns, bridge, 3).unwrap().clean(), "docker0 from docker0 of {}", from.name);
            let answered = ping(&from.ns, container, 3).unwrap();
            assert!(answered.clean(), "a container from docker0 of {}", from.name);
        }
    }

    /// Nobody on the other host remembers anything.
    fn forget(&self) {
        let h2 = self.topology.h(2);
        for version in ["-4", "-6"] {
            h2.ns.ip(&format!("{version} neigh flush dev {BRIDGE}")).unwrap();
            h2.c(1).ns.ip(&format!("{version} neigh flush dev eth0")).unwrap();
        }
    }

    fn throughput(&self) {
        let [here, there] = self.ends();
        for (client, server) in [(here, there), (there, here)] {
            let flow = iperf::tcp(2).run(client.ns, server.ns, server.ip).unwrap().flow;
            assert!(flow.bits_per_second > 20e6, "{flow:?}");
        }
    }

    /// Nothing but floods for others was refused, since the programs knew of the peer.
    fn no_drops(&self) {
        let drops = self.topology.h(1).overlayd().drops().unwrap();
        let refused: Vec<_> = drops.keys().filter(|reason| !FLOODED.contains(&reason.as_str())).collect();
        assert!(refused.iter().all(|reason| *reason == "unknown_peer"), "{drops:?}");
        assert!(drops.get("unknown_peer").is_none_or(|count| *count < 10), "{drops:?}");
    }
}

/// What a switch floods ends here under these names: multicast, and who asks for others. So does the word of a bridge that
/// its containers could be reached without it (an ICMPv6 redirect, from a link-local address).
const FLOODED: [&str; 4] = ["inner_multicast", "inner_protocol", "inner_martian", "not_local"];

fn everything(plan: Plan, first: First, kind: &str, entry: &str, options: &str) {
    let bed = up(plan, first, kind, entry, options);
    bed.talks();
    bed.forget();
    bed.talks();
    bed.throughput();
    bed.no_drops();
}

#[test]
fn gre_with_a_route_each() {
    everything(Plan::Apart, First::Ovs, "gre", "", "");
}

#[test]
fn gre_with_overlayd_there_first() {
    everything(Plan::Apart, First::Overlayd, "gre", "", "");
}

#[test]
fn gre_under_one_route() {
    everything(Plan::Under, First::Ovs, "gre", "", "");
}

#[test]
fn gre_with_a_key() {
    everything(Plan::Under, First::Overlayd, "gre", "gre_key = 4711\n", "options:key=4711");
}

#[test]
fn vxlan() {
    everything(Plan::Apart, First::Ovs, "vxlan", "vni = 7\nbridge = true\n", "options:key=7");
}

#[test]
fn geneve() {
    everything(Plan::Under, First::Overlayd, "geneve", "vni = 7\nbridge = true\n", "options:key=7");
}

/// The tunnel's kind changes on both hosts, one after the other; what runs goes on.
#[test]
fn from_gre_to_vxlan() {
    let bed = up(Plan::Apart, First::Ovs, "gre", "vni = 7\nbridge = true\n", "");
    bed.talks();
    let [here, there] = bed.ends();
    let probe = Probe::start(here, there, 100, Duration::from_secs(60)).unwrap();
    let h1 = bed.topology.h(1);
    bed.switch.remove_tunnel("tun1").unwrap();
    bed.switch.add_tunnel("tun2", "vxlan", h1.ip, "options:key=7").unwrap();
    let peers = fs::read_to_string(bed.topology.peers_file(0)).unwrap().replace("\"gre\"", "\"vxlan\"");
    fs::write(bed.topology.peers_file(0), peers).unwrap();
    let until = probe.arrived() + 400;
    eventually("datagrams arrive in the new tunnel", SOON, || probe.arrived() >= until).unwrap();
    drop(probe);
    bed.talks();
    bed.no_drops();
}
