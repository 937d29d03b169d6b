//! Several bridges on one host: what of their containers' packets the kernel routes leaves by the bridge that it
//! came from, so that Docker's rules, which tell its networks apart by the bridge, have nothing to say.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails, in its helpers too")]

use std::{net::Ipv4Addr, time::Duration};

use harness::{
    Netns, Topology,
    container::{Bridge, Container, Engine, Namespaces, Spec},
    eventually,
    footprint::Footprint,
    image::Image,
    overlayd::Overlayd,
    topology::StoreKind,
    traffic::{Endpoint, Ping, Probe, ping, ping_with},
};

const SOON: Duration = Duration::from_secs(5);
/// Drift that nobody tells of is found within 10 s.
const REPAIRED: Duration = Duration::from_secs(13);

/// The rules of a Docker host with two networks: FORWARD drops, each network is masqueraded where it leaves by
/// another device than its own bridge, and from bridge to bridge nothing goes.
const DOCKER_RULES: &str = "*filter
:FORWARD DROP [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
-A FORWARD -o br1 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -i br1 ! -o br1 -j ACCEPT
-A FORWARD -i br1 -o br1 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -i br1 ! -o br1 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -o br1 -j DROP
COMMIT
*nat
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A POSTROUTING -s 172.18.0.0/24 ! -o br1 -j MASQUERADE
COMMIT
";

/// Two hosts. The first has a second bridge with a container, and Docker's rules.
struct Bed {
    container: Container,
    before: Footprint,
    topology: Topology,
}

fn footprint(topology: &Topology) -> Footprint {
    let config = topology.overlayd_config(0);
    Footprint::of(topology, 1, &[&config.pin_dir, &config.state_dir]).unwrap()
}

impl Bed {
    /// Containers that are namespaces, and Docker's rules by hand.
    fn up() -> Self {
        let topology = Topology::builder().store(StoreKind::Peers).without_overlayd().up().unwrap();
        let host = topology.h(1);
        let bridge =
            Bridge { name: "br1".into(), ip: Ipv4Addr::new(172, 18, 0, 1), prefix_len: 24, ip_v6: None };
        Namespaces.start(&host.ns, &bridge).unwrap();
        let netns_name = topology.scope.netns_name("h1.b1");
        let spec = Spec { name: "b1".into(), netns_name, ip: bridge.container_ip(1), ip_v6: None, mtu: 1500 };
        let container = Namespaces.run(&host.ns, &bridge, &spec).unwrap();
        host.ns.cmd("iptables-restore").arg("-w").stdin(DOCKER_RULES).check().unwrap();
        Self::with(topology, container)
    }

    /// Docker engines, and a network that their user made, as Compose does.
    fn docker() -> Self {
        let topology = Topology::builder().store(StoreKind::Peers).without_overlayd().docker().up().unwrap();
        let engine = topology.h(1).docker();
        let name = "com.docker.network.bridge.name=br1";
        let create =
            ["network", "create", "--subnet=172.18.0.0/24", "--gateway=172.18.0.1", "-o", name, "n1"];
        engine.docker(&create).unwrap();
        let run = engine.run("b1", Image::NAME, &["--network=n1", "--ip=172.18.0.3"], &[]).unwrap();
        let ns = Netns::borrow(format!("/proc/{}/ns/net", run.pid().unwrap()));
        let (ip, port) = (Ipv4Addr::new(172, 18, 0, 3), run.host_veth().unwrap().name);
        Self::with(topology, Container { name: "b1".into(), ns, ip, ip_v6: None, port })
    }

    /// Starts the daemons.
    fn with(mut topology: Topology, container: Container) -> Self {
        // The peers file knows of the first bridges only.
        let file = topology.peers_file(1);
        let more = "[[peer]]\nsubnet = \"172.18.0.0/24\"\nhost = \"172.16.199.17\"\n";
        std::fs::write(&file, std::fs::read_to_string(&file).unwrap() + more).unwrap();
        let before = footprint(&topology);
        for index in [0, 1] {
            let mut config = topology.overlayd_config(index);
            config.bridges.extend((index == 0).then(|| "br1".to_owned()));
            let host = &mut topology.hosts[index];
            host.overlayd = Some(Overlayd::start(&host.ns, config).unwrap());
        }
        Self { container, before, topology }
    }

    fn remote(&self) -> &Container {
        self.topology.h(2).c(1)
    }

    fn ping(&self, from: &Container, options: &[&str]) -> Ping {
        ping_with(&from.ns, self.remote().ip, 3, options).unwrap()
    }

    /// Small packets, which go by the fast path, of both bridges' containers.
    fn probes(&self) -> [Probe; 2] {
        [&self.container, self.topology.h(1).c(1)].map(|local| {
            let ends = [local, self.remote()].map(|c| Endpoint { ns: &c.ns, ip: c.ip });
            let probe = Probe::start(ends[0], ends[1], 200, Duration::from_secs(60)).unwrap();
            eventually("traffic flows", SOON, || probe.arrived() > 20).unwrap();
            probe
        })
    }

    fn ip(&self, args: &str) -> String {
        self.topology.h(1).ns.ip(args).unwrap().stdout
    }

    /// What the slow path carries for a container: cut where it may be cut, refused by its own gateway where not,
    /// and with IP options.
    fn slow_path_serves(&self, from: &Container, gateway: Ipv4Addr) {
        for options in [&["-M", "dont", "-s", "1472"][..], &["-M", "dont", "-s", "4000"], &["-T", "tsonly"]] {
            let ping = self.ping(from, options);
            assert!(ping.clean(), "{options:?}: {}", ping.text);
        }
        // What it was told before, it would tell itself.
        from.ns.ip("route flush cache").unwrap();
        let refused = self.ping(from, &["-M", "do", "-s", "1472"]);
        let said = format!("From {gateway} icmp_seq=1 Frag needed and DF set (mtu = 1450)");
        assert!(refused.received == 0 && refused.text.contains(&said), "{}", refused.text);
    }

    fn both_bridges_are_served(&self) {
        self.slow_path_serves(&self.container, Ipv4Addr::new(172, 18, 0, 1));
        self.slow_path_serves(self.topology.h(1).c(1), self.topology.h(1).bridge.ip);
    }

    /// The rule for the second bridge, and its table.
    fn rule(&self) -> (String, String) {
        let rules = self.ip("-o -4 rule");
        let index = self.topology.h(1).ifindex("br1").unwrap();
        let table = (790_000_000 + index).to_string();
        let line = rules.lines().find(|line| line.contains("iif br1") && line.contains(&table));
        (line.unwrap_or_default().to_owned(), table)
    }

    fn clean(probes: [Probe; 2]) {
        for probe in probes {
            let report = probe.finish().unwrap();
            assert!(report.clean(), "{report}");
        }
    }
}

#[test]
fn a_further_bridges_slow_path_leaves_by_that_bridge() {
    let mut bed = Bed::up();
    let probes = bed.probes();
    bed.both_bridges_are_served();
    // The host itself has one way, through the first bridge.
    assert!(ping(&bed.topology.h(1).ns, bed.remote().ip, 2).unwrap().clean());
    let (rule, table) = bed.rule();
    assert!(rule.starts_with("7900:") && rule.contains("proto 79"), "{rule:?}");
    let routes = bed.ip(&format!("-4 route show table {table}"));
    assert!(
        routes.contains("172.27.0.0/16 via 172.27.0.0 dev br1 proto 79 src 172.18.0.1 onlink mtu 1450"),
        "{routes}"
    );
    for host in &bed.topology.hosts {
        assert_eq!(host.overlayd().drops().unwrap().len(), 0, "on {}", host.name);
    }
    Bed::clean(probes);
    assert_eq!(bed.topology.h_mut(1).overlayd_mut().detach().unwrap().code, Some(0));
    let changes = bed.before.difference(&footprint(&bed.topology));
    assert!(changes.is_empty(), "{}", changes.join("\n"));
}

/// Docker's own rules, whatever this version of it makes of them.
#[test]
fn a_docker_network_of_the_users_is_served_as_the_default_one() {
    let bed = Bed::docker();
    let probes = bed.probes();
    let rules = bed.topology.h(1).docker().iptables_save().unwrap();
    assert!(rules.contains("-s 172.18.0.0/24 ! -o br1 -j MASQUERADE"), "{rules}");
    bed.both_bridges_are_served();
    Bed::clean(probes);
}

/// What the table is for: the same host without its rule.
#[test]
fn without_its_rule_a_further_bridges_slow_path_is_isolated() {
    let mut bed = Bed::up();
    let probes = bed.probes();
    bed.topology.h_mut(1).overlayd_mut().kill9().unwrap();
    let (rule, table) = bed.rule();
    bed.ip(&format!("rule del pref 7900 iif br1 lookup {table}"));
    let isolated = bed.ping(&bed.container, &["-M", "dont", "-s", "4000"]);
    assert_eq!(isolated.received, 0, "{}", isolated.text);
    bed.topology.h_mut(1).overlayd_mut().start_again().unwrap();
    assert_eq!(bed.rule(), (rule, table));
    bed.both_bridges_are_served();
    Bed::clean(probes);
}

#[test]
fn drift_is_repaired_and_what_is_others_stays() {
    let bed = Bed::up();
    let probes = bed.probes();
    let (rule, table) = bed.rule();
    // Others' rules at the same and at other priorities, and others' routes in a table of theirs.
    bed.ip("rule add pref 7900 iif br1 to 198.51.100.0/24 lookup 100 proto static");
    bed.ip("rule add pref 7900 iif br1 lookup 101 proto static");
    bed.ip("route add 198.51.100.0/24 via 172.17.0.2 table 100 proto static");
    bed.ip("route add 198.51.100.0/24 via 172.17.0.2 table 100 proto 79 metric 5");
    let whole = || {
        let routes = bed.ip(&format!("-4 route show table {table}"));
        let neighbours = bed.ip("neigh show dev br1 nud permanent");
        bed.rule().0 == rule
            && routes.contains("172.27.0.0/16")
            && neighbours.contains("172.27.0.0 lladdr 02:6f:76:6c:00:fe")
    };
    assert!(whole());
    for (what, harm) in [
        ("rule", format!("rule del pref 7900 iif br1 lookup {table}")),
        ("route", format!("route flush table {table}")),
        ("neighbour", "neigh del 172.27.0.0 dev br1".to_owned()),
    ] {
        bed.ip(&harm);
        eventually(&format!("the {what} is back"), REPAIRED, whole).unwrap();
    }
    // One of ours that leads elsewhere, as an earlier daemon may have left it.
    bed.ip("rule add pref 7900 iif br7 lookup 790000777 proto 79");
    eventually("it is gone", REPAIRED, || !bed.ip("-4 rule").contains("br7")).unwrap();
    let rules = bed.ip("-o -4 rule");
    assert_eq!(rules.matches("proto static").count(), 2, "{rules}");
    let routes = bed.ip("-4 route show table 100");
    assert_eq!(routes.lines().count(), 2, "{routes}");
    bed.both_bridges_are_served();
    Bed::clean(probes);
}

#[test]
fn the_order_of_bridges_may_change_and_a_bridge_may_go() {
    let mut bed = Bed::up();
    let restart = |bed: &mut Bed, bridges: &[&str]| {
        let overlayd = bed.topology.h_mut(1).overlayd_mut();
        overlayd.stop().unwrap();
        overlayd.config.bridges = bridges.iter().map(|&bridge| bridge.to_owned()).collect();
        overlayd.start_again().unwrap();
    };
    restart(&mut bed, &["br1", "docker0"]);
    assert_eq!(bed.rule().0, "", "the first bridge needs no table of its own");
    assert!(bed.ip("-o -4 rule").contains("iif docker0 lookup 79"));
    bed.both_bridges_are_served();
    restart(&mut bed, &["docker0"]);
    assert!(!bed.ip("-o -4 rule").contains("proto 79"));
    assert_eq!(bed.ip("neigh show dev br1 nud permanent"), "");
    let routes = bed.ip("-4 route show table all proto 79");
    assert!(routes.lines().count() == 1 && routes.contains("dev docker0"), "{routes}");
    bed.slow_path_serves(bed.topology.h(1).c(1), bed.topology.h(1).bridge.ip);
}
