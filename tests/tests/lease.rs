//! Subnets that hosts lease from the network's pool, before Docker makes their bridges.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails, in its helpers too")]

use std::{collections::BTreeSet, fs, net::Ipv4Addr, path::PathBuf, thread, time::Duration};

use harness::{
    Topology, binaries, eventually,
    host::BRIDGE,
    process::{Cmd, Output},
    topology::ETCD_PREFIX,
    traffic::ping,
};

const SOON: Duration = Duration::from_secs(10);

const POOL: &str = r#"{"Network":"10.77.0.0/16","SubnetMin":"10.77.1.0","SubnetMax":"10.77.12.0","Backend":{"Type":"vxlan","VNI":1,"Port":4789}}"#;

/// The same with IPv6 subnets, as many; field names in any case, as Go reads them.
const POOL_V6: &str = r#"{"network":"10.77.0.0/16","SubnetMin":"10.77.1.0","SubnetMax":"10.77.12.0","enableipv6":true,"IPv6Network":"fd00:77::/48","ipv6subnetmin":"fd00:77:0:1::","IPv6SubnetMax":"fd00:77:0:c::","Backend":{"Type":"vxlan","VNI":1,"Port":4789}}"#;

/// A node on host 1, by its number.
#[derive(Clone)]
struct Node {
    ns: PathBuf,
    dir: PathBuf,
    pins: PathBuf,
    endpoint: String,
    number: u8,
}

impl Node {
    fn new(topology: &Topology, number: u8) -> Self {
        Self {
            ns: topology.h(1).ns.path().to_owned(),
            dir: topology.scope.dir().join(format!("node-{number}")),
            pins: topology.scope.pin_dir(&format!("n{number}")),
            endpoint: topology.etcd().endpoint(),
            number,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn lease(&self) -> Output {
        let address = Ipv4Addr::new(172, 16, 199, 200 + self.number);
        Cmd::new(binaries::find("overlayd").unwrap())
            .netns(&self.ns)
            .args(["lease", "--iface=eth0"])
            .args([
                format!("--node-name=node-{}", self.number),
                format!("--public-ip={address}"),
                format!("--etcd-endpoints={}", self.endpoint),
                format!("--etcd-prefix={ETCD_PREFIX}"),
                format!("--pin-dir={}", self.pins.display()),
                format!("--state-dir={}", self.file("state").display()),
                format!("--subnet-file={}", self.file("subnet.env").display()),
            ])
            .run()
            .unwrap()
    }

    /// The bridge's address.
    fn leased(&self) -> String {
        let output = self.lease();
        assert_eq!(output.code, Some(0), "{}", output.text());
        let bip = output.stdout.trim().to_owned();
        let file = fs::read_to_string(self.file("subnet.env")).unwrap();
        for line in
            [format!("OVERLAYD_SUBNET={bip}"), format!("FLANNEL_SUBNET={bip}"), "OVERLAYD_MTU=1450".into()]
        {
            assert!(file.lines().any(|have| have == line), "{line}: {file}");
        }
        bip
    }
}

fn key(bip: &str) -> String {
    let (ip, len) = bip.rsplit_once('/').unwrap();
    let network = ip.rsplit_once('.').unwrap().0;
    format!("{ETCD_PREFIX}/subnets/{network}.0-{len}")
}

fn with_pool() -> Topology {
    let topology = Topology::builder().containers(0).without_overlayd().up().unwrap();
    topology.etcd().put(&format!("{ETCD_PREFIX}/config"), POOL).unwrap();
    topology
}

#[test]
fn a_host_gets_the_subnet_that_it_had() {
    let topology = with_pool();
    let node = Node::new(&topology, 1);
    let bip = node.leased();
    let etcd = topology.etcd();
    assert!(etcd.get(&key(&bip)).unwrap().unwrap().contains("172.16.199.201"));
    assert_eq!(node.leased(), bip, "it is this host's already");
    // Expired, while nobody was here.
    etcd.etcdctl(&["del", "--", &key(&bip)]).unwrap();
    assert_eq!(node.leased(), bip, "it is remembered");
    // Without a memory, by its address.
    fs::remove_dir_all(node.file("state")).unwrap();
    assert_eq!(node.leased(), bip, "it is known by its address");
    // Somebody else has it by now.
    etcd.put(&key(&bip), r#"{"PublicIP":"172.16.199.99","BackendType":"vxlan"}"#).unwrap();
    let other = node.leased();
    assert_ne!(other, bip);
    assert!(etcd.get(&key(&bip)).unwrap().unwrap().contains("172.16.199.99"), "and keeps it");
}

/// As many nodes as there are subnets, all at once; one more finds none.
#[test]
fn nodes_that_start_together_get_one_each() {
    let topology = with_pool();
    let got: BTreeSet<String> = thread::scope(|scope| {
        let nodes: Vec<_> = (1..=12)
            .map(|number| {
                let node = Node::new(&topology, number);
                scope.spawn(move || node.leased())
            })
            .collect();
        nodes.into_iter().map(|node| node.join().unwrap()).collect()
    });
    assert_eq!(got.len(), 12, "{got:?}");
    let late = Node::new(&topology, 13).lease();
    assert_eq!(late.code, Some(1));
    assert!(late.stderr.contains("no /24 of 10.77.0.0/16 is free: 12 are taken"), "{}", late.stderr);
}

#[test]
fn what_cannot_be_leased_from_is_told() {
    let topology = with_pool();
    let node = Node::new(&topology, 1);
    let config = format!("{ETCD_PREFIX}/config");
    topology.etcd().put(&config, r#"{"Network":"10.77.0.0/16","SubnetLen":40}"#).unwrap();
    let refused = node.lease();
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stderr.contains(&config) && refused.stderr.contains("SubnetLen 40"),
        "{}",
        refused.stderr
    );
    topology.etcd().etcdctl(&["del", "--", &config]).unwrap();
    let refused = node.lease();
    assert!(refused.stderr.contains("there is none"), "{}", refused.stderr);
}

/// The subnets of a dual-stack lease, as its file has them: for the IPv4 one the bridge's address, for the IPv6 one as well.
fn both(node: &Node) -> (String, String) {
    let bip = node.leased();
    let file = fs::read_to_string(node.file("subnet.env")).unwrap();
    let of = |name: &str| {
        let line = file.lines().find_map(|line| line.strip_prefix(&format!("{name}=")));
        line.unwrap_or_else(|| panic!("{name}: {file}")).to_owned()
    };
    assert_eq!(of("OVERLAYD_IPV6_NETWORK"), "fd00:77::/48");
    assert_eq!(
        (of("FLANNEL_IPV6_NETWORK"), of("FLANNEL_IPV6_SUBNET")),
        (of("OVERLAYD_IPV6_NETWORK"), of("OVERLAYD_IPV6_SUBNET"))
    );
    (bip, of("OVERLAYD_IPV6_SUBNET"))
}

#[test]
fn both_versions_are_leased_under_one_key() {
    let topology = with_pool();
    let (node, etcd) = (Node::new(&topology, 1), topology.etcd());
    let alone = node.leased();
    etcd.put(&format!("{ETCD_PREFIX}/config"), POOL_V6).unwrap();
    let (bip, v6) = both(&node);
    assert_eq!(bip, alone, "the IPv4 subnet stays");
    let dual = |v6: &str| format!("{}&{}", key(&bip), v6.replace("::1/64", "::-64"));
    let keys = || etcd.get_prefix(&format!("{ETCD_PREFIX}/subnets/")).unwrap();
    let first = keys();
    assert_eq!(first.keys().collect::<Vec<_>>(), [&dual(&v6)]);
    assert!(first[&dual(&v6)].contains("BackendV6Data"), "{first:?}");
    assert_eq!(both(&node), (bip.clone(), v6.clone()), "it is this host's already");
    etcd.etcdctl(&["del", "--", &dual(&v6)]).unwrap();
    assert_eq!(both(&node), (bip.clone(), v6.clone()), "it is remembered");
    fs::remove_dir_all(node.file("state")).unwrap();
    assert_eq!(both(&node), (bip.clone(), v6.clone()), "it is known by its address");
    // Somebody else has the IPv6 subnet by now, under another key.
    etcd.etcdctl(&["del", "--", &dual(&v6)]).unwrap();
    let others = format!("{ETCD_PREFIX}/subnets/10.99.0.0-24&{}", v6.replace("::1/64", "::-64"));
    etcd.put(&others, r#"{"PublicIP":"172.16.199.99","BackendType":"vxlan"}"#).unwrap();
    let (same, other) = both(&node);
    assert!(same == bip && other != v6, "{same} {other}");
    // Without IPv6 in the network it is given back.
    etcd.put(&format!("{ETCD_PREFIX}/config"), POOL).unwrap();
    assert_eq!(node.leased(), bip);
    assert!(!fs::read_to_string(node.file("subnet.env")).unwrap().contains("IPV6"));
    assert_eq!(keys().into_keys().collect::<BTreeSet<_>>(), BTreeSet::from([key(&bip), others]));
}

#[test]
fn nodes_that_start_together_get_one_of_each_version() {
    let topology = with_pool();
    topology.etcd().put(&format!("{ETCD_PREFIX}/config"), POOL_V6).unwrap();
    let got: Vec<(String, String)> = thread::scope(|scope| {
        let nodes: Vec<_> = (1..=12)
            .map(|number| {
                let node = Node::new(&topology, number);
                scope.spawn(move || both(&node))
            })
            .collect();
        nodes.into_iter().map(|node| node.join().unwrap()).collect()
    });
    let (v4, v6): (BTreeSet<_>, BTreeSet<_>) = got.iter().cloned().unzip();
    assert_eq!((v4.len(), v6.len()), (12, 12), "{got:?}");
    assert_eq!(topology.etcd().get_prefix(&format!("{ETCD_PREFIX}/subnets/")).unwrap().len(), 12);
    let late = Node::new(&topology, 13).lease();
    assert!(
        late.code == Some(1) && late.stderr.contains("no /24 of 10.77.0.0/16 is free"),
        "{}",
        late.stderr
    );
}

#[test]
fn what_cannot_be_leased_of_ipv6_is_told() {
    let topology = with_pool();
    let (node, config) = (Node::new(&topology, 1), format!("{ETCD_PREFIX}/config"));
    for (wrong, says) in [
        ("\"IPv6SubnetLen\":49,", "IPv6SubnetLen 49"),
        ("\"IPv6SubnetLen\":127,", "IPv6SubnetLen 127"),
        ("\"IPv6SubnetLen\":56,", "IPv6SubnetMin fd00:77:0:1::"),
    ] {
        topology.etcd().put(&config, &POOL_V6.replacen('{', &format!("{{{wrong}"), 1)).unwrap();
        let refused = node.lease();
        let said = &refused.stderr;
        assert!(refused.code == Some(1) && said.contains(&config) && said.contains(says), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    topology.etcd().put(&config, POOL_V6).unwrap();
    both(&node);
}

/// Docker makes a bridge with another subnet than the leased one: that is announced, since packets follow the bridge.
#[test]
fn a_bridge_that_has_not_what_was_leased_is_told() {
    let mut topology = with_pool();
    for index in 0..2 {
        topology.start_container(index + 1, 1).unwrap();
    }
    topology.start_overlayd(1).unwrap();
    let config = topology.overlayd_config(0);
    let file = topology.scope.dir().join("h1.env");
    let lease = Cmd::new(binaries::find("overlayd").unwrap())
        .netns(topology.h(1).ns.path())
        .arg("lease")
        .args(config.arguments())
        .arg(format!("--subnet-file={}", file.display()));
    let bip = lease.check().unwrap().stdout.trim().to_owned();
    assert!(topology.etcd().get(&key(&bip)).unwrap().is_some());
    topology.start_overlayd(0).unwrap();
    topology.await_routes().unwrap();
    let subnet = key(&bip).rsplit('/').next().unwrap().replace('-', "/");
    let notes = || topology.h(1).overlayd().ctl(&["status", "-o", "json"]).unwrap()["notes"].to_string();
    for part in
        [&format!("docker0 has 172.17.0.0/16, and none {subnet}"), &format!("--bip={bip}"), "subnet.env"]
    {
        assert!(notes().contains(part), "{part}: {}", notes());
    }
    let log = || fs::read_to_string(&topology.h(1).overlayd().config.log).unwrap();
    assert_eq!(log().lines().filter(|line| line.contains("WARN")).count(), 1, "{}", log());
    let given_back = || topology.etcd().get(&key(&bip)).unwrap().is_none();
    eventually("the leased one is given back", SOON, given_back).unwrap();
    let there = topology.h(2).c(1).ip;
    assert!(ping(&topology.h(1).c(1).ns, there, 3).unwrap().clean());
    // As Docker does it with what the note says.
    let lines = [format!("addr add {bip} dev {BRIDGE}"), format!("addr del 172.17.0.1/16 dev {BRIDGE}")];
    topology.h(1).ns.ip_batch(&lines).unwrap();
    eventually("it is over", SOON, || !notes().contains("bip")).unwrap();
    eventually("it is announced", SOON, || topology.h(2).overlayd().routes().unwrap() == [subnet.clone()])
        .unwrap();
}

/// docker0 has the same subnet on both hosts, as Docker makes it everywhere: what was leased says what to do.
#[test]
fn a_refused_start_says_what_was_leased() {
    let mut topology = with_pool();
    topology.start_overlayd(1).unwrap();
    let host = &topology.h(1).ns;
    let lines =
        [format!("addr add 172.27.0.1/16 dev {BRIDGE}"), format!("addr del 172.17.0.1/16 dev {BRIDGE}")];
    host.ip_batch(&lines).unwrap();
    let config = topology.overlayd_config(0);
    let file = format!("--subnet-file={}", topology.scope.dir().join("h1.env").display());
    let overlayd = || Cmd::new(binaries::find("overlayd").unwrap()).netns(topology.h(1).ns.path());
    let lease = overlayd().arg("lease").args(config.arguments()).arg(file);
    let bip = lease.check().unwrap().stdout.trim().to_owned();
    let refused = overlayd().args(config.arguments()).run().unwrap();
    let said = &refused.stderr;
    assert!(
        refused.code == Some(1) && said.contains("overlaps") && said.contains(&format!("--bip={bip}")),
        "{said}"
    );
    assert!(topology.etcd().get(&key(&bip)).unwrap().is_some(), "it is kept");
}

/// Both hosts lease, give their bridges what they got, and talk.
#[test]
fn leased_subnets_are_what_the_daemons_announce() {
    let mut topology = with_pool();
    for index in 0..2 {
        let config = topology.overlayd_config(index);
        let file = topology.scope.dir().join(format!("h{}.env", index + 1));
        let host = &topology.hosts[index];
        let lease = Cmd::new(binaries::find("overlayd").unwrap())
            .netns(host.ns.path())
            .arg("lease")
            .args(config.arguments())
            .arg(format!("--subnet-file={}", file.display()));
        let bip = lease.check().unwrap().stdout.trim().to_owned();
        let host = &mut topology.hosts[index];
        let (ip, len) = bip.rsplit_once('/').unwrap();
        let old = std::mem::replace(&mut host.bridge.ip, ip.parse().unwrap());
        let old_len = std::mem::replace(&mut host.bridge.prefix_len, len.parse().unwrap());
        let lines =
            [format!("addr del {old}/{old_len} dev {BRIDGE}"), format!("addr add {bip} dev {BRIDGE}")];
        host.ns.ip_batch(&lines).unwrap();
        let key = key(&bip);
        let lease = topology.etcd().etcdctl(&["get", "-w", "json", "--", &key]).unwrap().stdout;
        topology.start_container(index + 1, 1).unwrap();
        topology.start_overlayd(index).unwrap();
        let adopted = topology.etcd().etcdctl(&["get", "-w", "json", "--", &key]).unwrap().stdout;
        let revision = |text: &str| {
            let value: serde_json::Value = serde_json::from_str(text).unwrap();
            value["kvs"][0]["mod_revision"].clone()
        };
        assert_eq!(revision(&lease), revision(&adopted), "the daemon takes the key as it is");
    }
    topology.await_routes().unwrap();
    let there = topology.h(2).c(1).ip;
    assert!(ping(&topology.h(1).c(1).ns, there, 3).unwrap().clean());
}
