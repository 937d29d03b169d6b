//! A route's way: from etcd or the peers file into the maps, and what goes wrong on it, under traffic.

#![expect(clippy::unwrap_used, reason = "set-up that fails is a test that fails")]

use std::{fs, net::Ipv4Addr, time::Duration};

use harness::{
    Topology, eventually, maps,
    topology::{Builder, ETCD_PREFIX, StoreKind},
    traffic::{Endpoint, Probe},
};
use serde_json::Value;

/// How soon a change is to be in the maps.
const AT_ONCE: Duration = Duration::from_secs(1);
const SOON: Duration = Duration::from_secs(10);

/// Two hosts, and traffic between their containers that must not suffer.
struct Bed {
    topology: Topology,
    probe: Probe,
}

impl Bed {
    fn up(builder: Builder) -> Self {
        let topology = builder.up().unwrap();
        let [a, b] = [1, 2].map(|n| topology.h(n).c(1));
        let (a, b) = (Endpoint { ns: &a.ns, ip: a.ip }, Endpoint { ns: &b.ns, ip: b.ip });
        let probe = Probe::start(a, b, 500, Duration::from_secs(60)).unwrap();
        eventually("traffic flows", SOON, || probe.arrived() > 50).unwrap();
        Self { topology, probe }
    }

    fn put(&self, name: &str, value: &str) {
        self.topology.etcd().put(&format!("{ETCD_PREFIX}/subnets/{name}"), value).unwrap();
    }

    /// Writes a key as an operator would, by hand and without a VTEP's MAC address.
    fn put_peer(&self, name: &str, ip: &str) {
        self.put(name, &format!(r#"{{"PublicIP":"{ip}","BackendType":"vxlan"}}"#));
    }

    fn del(&self, name: &str) {
        self.topology.etcd().del(&format!("{ETCD_PREFIX}/subnets/{name}")).unwrap();
    }

    fn ctl(&self, command: &str) -> Value {
        self.topology.h(1).overlayd().ctl(&[command, "-o", "json"]).unwrap()
    }

    /// The exit code of `overlayctl status`, and its message.
    fn status(&self) -> (i32, String) {
        let output = self.topology.h(1).overlayd().ctl_output(&["status", "-o", "json"]).unwrap();
        let status: Value = serde_json::from_str(&output.stdout).unwrap_or_default();
        (output.code.unwrap(), status["message"].as_str().unwrap_or_default().to_owned())
    }

    /// To whom overlayctl says a prefix leads.
    fn peer_of(&self, prefix: &str) -> Option<String> {
        let routes = self.ctl("routes");
        let route = routes.as_array().unwrap().iter().find(|route| route["prefix"] == prefix)?;
        Some(route["peer"].as_str().unwrap().to_owned())
    }

    /// To whom the raw maps say a prefix leads: ROUTES_V4, then TUNNELS.
    fn raw_peer_of(&self, prefix: &str) -> Option<String> {
        let tunnel = self.raw_tunnel(prefix)?;
        let bytes: [u8; 16] = maps::bytes(&tunnel["remote"]["bytes"]).try_into().unwrap();
        Some(
            Ipv4Addr::from_bits(u32::from_be_bytes([bytes[12], bytes[13], bytes[14], bytes[15]])).to_string(),
        )
    }

    fn raw_tunnel(&self, prefix: &str) -> Option<Value> {
        let (addr, len) = prefix.split_once('/').unwrap();
        let (addr, len): (Ipv4Addr, u64) = (addr.parse().unwrap(), len.parse().unwrap());
        let pins = &self.topology.h(1).overlayd().config.pin_dir;
        // The prefix length counts the 32 bits of the VNI, which lead the key.
        let found = maps::dump(pins, "ROUTES_V4").unwrap().into_iter().find(|(key, _)| {
            key["prefix_len"] == len + 32 && maps::bytes(&key["data"]["addr"]) == addr.octets()
        });
        let id = found?.1["tunnel"].as_u64().unwrap().try_into().unwrap();
        Some(maps::lookup(pins, "TUNNELS", id).unwrap())
    }

    fn leads_at_once(&self, prefix: &str, peer: Option<&str>) {
        let there = || self.peer_of(prefix).as_deref() == peer && self.raw_peer_of(prefix).as_deref() == peer;
        let said = || format!("{:?} {:?}", self.peer_of(prefix), self.raw_peer_of(prefix));
        if let Err(e) = eventually(&format!("{prefix} leads to {peer:?}"), AT_ONCE, there) {
            panic!("{e:#}: {}", said());
        }
    }

    /// The warnings of host 1's log.
    fn warnings(&self) -> Vec<String> {
        let log = fs::read_to_string(&self.topology.h(1).overlayd().config.log).unwrap();
        log.lines().filter(|line| line.contains(" WARN ")).map(str::to_owned).collect()
    }

    /// Waits for the one warning with `part` in it, and for what may repeat it.
    fn one_warning(&self, part: &str) -> String {
        let with = || self.warnings().into_iter().filter(|line| line.contains(part)).collect::<Vec<_>>();
        eventually(&format!("a warning names {part}"), AT_ONCE, || !with().is_empty()).unwrap();
        with().remove(0)
    }

    fn down(self) {
        let report = self.probe.finish().unwrap();
        assert!(report.clean(), "{report}");
    }
}

#[test]
fn a_key_comes_moves_and_goes_within_a_second() {
    let bed = Bed::up(Topology::builder());
    for (name, prefix) in [("10.9.0.0-24", "10.9.0.0/24"), ("10.10.0.0-16", "10.10.0.0/16")] {
        bed.put_peer(name, "172.16.199.99");
        bed.leads_at_once(prefix, Some("172.16.199.99"));
        bed.put_peer(name, "172.16.199.98");
        bed.leads_at_once(prefix, Some("172.16.199.98"));
    }
    // A peer's address may be anywhere, and need not be reachable yet.
    bed.put_peer("10.9.0.0-24", "192.0.2.7");
    bed.leads_at_once("10.9.0.0/24", Some("192.0.2.7"));
    let broadcast =
        maps::bytes(&bed.raw_tunnel("10.9.0.0/24").unwrap()["template"]["bytes"])[50..56].to_vec();
    assert_eq!(broadcast, [0xff; 6], "no VtepMAC was given");
    bed.del("10.9.0.0-24");
    bed.leads_at_once("10.9.0.0/24", None);
    assert_eq!(bed.peer_of("10.10.0.0/16").as_deref(), Some("172.16.199.98"));
    assert_eq!(bed.peer_of("172.27.0.0/16").as_deref(), Some("172.16.199.27"));
    // That there was no way to 192.0.2.7 is not said any more either, once a round has ended.
    eventually("nothing is wrong", SOON, || bed.status() == (0, String::new())).unwrap();
    bed.down();
}

#[test]
fn a_malformed_key_or_value_is_one_warning_and_nothing_else() {
    let bed = Bed::up(Topology::builder());
    bed.put_peer("10.9.0.0-24", "172.16.199.99");
    bed.leads_at_once("10.9.0.0/24", Some("172.16.199.99"));
    let good = bed.ctl("routes");
    let bad = [
        ("not-a-subnet", r#"{"PublicIP":"172.16.199.99","BackendType":"vxlan"}"#),
        ("10.8.0.1-24", r#"{"PublicIP":"172.16.199.99","BackendType":"vxlan"}"#),
        ("10.7.0.0-24", "{\"PublicIP\":"),
        ("10.6.0.0-24", r#"{"PublicIP":"172.16.199.999","BackendType":"vxlan"}"#),
        ("10.5.0.0-24", r#"{"PublicIP":"172.16.199.99","BackendType":"wireguard"}"#),
        // A key that was good keeps its last good state.
        ("10.9.0.0-24", "[]"),
    ];
    for (name, value) in bad {
        bed.put(name, value);
        let warning = bed.one_warning(&format!("{ETCD_PREFIX}/subnets/{name}"));
        assert!(warning.contains(':'), "{warning}");
    }
    assert_eq!(bed.ctl("routes"), good);
    // What comes after them is seen as ever, and the same again is no news.
    for (name, value) in bad {
        bed.put(name, value);
    }
    bed.put_peer("10.4.0.0-24", "172.16.199.98");
    bed.leads_at_once("10.4.0.0/24", Some("172.16.199.98"));
    let warnings = bed.warnings();
    assert_eq!(warnings.len(), bad.len(), "{}", warnings.join("\n"));
    assert_eq!(bed.status().0, 0);
    bed.down();
}

#[test]
fn what_the_host_itself_contradicts_is_said_once() {
    let bed = Bed::up(Topology::builder());
    bed.topology.h(1).ns.ip("route add 10.9.0.0/24 via 172.16.199.1").unwrap();
    // The host has a route of its own, and its own subnet is claimed by another.
    bed.put_peer("10.9.0.0-24", "172.16.199.99");
    bed.put_peer("172.17.5.0-24", "172.16.199.98");
    bed.leads_at_once("10.9.0.0/24", Some("172.16.199.99"));
    bed.one_warning("10.9.0.0/24");
    bed.one_warning("172.17.5.0/24");
    assert_eq!(bed.status().0, 3);
    // Every second it is looked at again: two such rounds.
    let heard = bed.probe.arrived();
    eventually("two rounds", SOON, || bed.probe.arrived() > heard + 2500).unwrap();
    let warnings = bed.warnings();
    assert_eq!(warnings.len(), 2, "{}", warnings.join("\n"));
    bed.topology.h(1).ns.ip("route del 10.9.0.0/24 via 172.16.199.1").unwrap();
    bed.del("172.17.5.0-24");
    eventually("all is well again", SOON, || bed.status().0 == 0).unwrap();
    let ours = bed.topology.h(1).ns.ip("route show proto 79").unwrap().stdout;
    assert!(ours.contains("10.9.0.0/24"), "{ours}");
    bed.down();
}

#[test]
fn a_config_key_wins_over_flags() {
    for (config, vni, port) in [
        (r#"{"Network":"172.16.0.0/12","Backend":{"Type":"vxlan","VNI":7,"Port":8473}}"#, 7, 8473),
        (r#"{"network":"172.16.0.0/12","backend":{"type":"vxlan","vni":9}}"#, 9, 8472),
    ] {
        let mut topology = Topology::builder().vni(5).port(5555).without_overlayd().up().unwrap();
        topology.etcd().put(&format!("{ETCD_PREFIX}/config"), config).unwrap();
        for host in [0, 1] {
            topology.start_overlayd(host).unwrap();
            let status = topology.hosts[host].overlayd().ctl(&["status", "-o", "json"]).unwrap();
            assert_eq!((&status["vni"], &status["port"]), (&vni.into(), &port.into()), "{status}");
        }
        let key = topology.etcd().get(&format!("{ETCD_PREFIX}/subnets/172.17.0.0-16")).unwrap().unwrap();
        assert!(key.contains(&format!("\"VNI\":{vni}")), "{key}");
        let (h1, h2) = (topology.h(1), topology.h(2));
        let flows = || harness::traffic::ping(&h1.c(1).ns, h2.c(1).ip, 1).is_ok_and(|ping| ping.clean());
        eventually("containers talk", SOON, flows).unwrap();
    }
}

#[test]
fn etcd_dies_and_comes_back() {
    let mut bed = Bed::up(Topology::builder());
    bed.put_peer("10.9.0.0-24", "172.16.199.99");
    bed.leads_at_once("10.9.0.0/24", Some("172.16.199.99"));
    assert_eq!(bed.status(), (0, String::new()));
    bed.topology.etcd_mut().kill().unwrap();
    eventually("degraded", SOON, || bed.status().0 == 3).unwrap();
    assert!(bed.status().1.contains("172.16.199.1:2379"), "{:?}", bed.status());
    assert_eq!(bed.peer_of("10.9.0.0/24").as_deref(), Some("172.16.199.99"));
    let before = bed.probe.arrived();
    eventually("traffic flows", SOON, || bed.probe.arrived() > before + 500).unwrap();
    // Written before our daemons' backoff lets them connect again, or just after: seen either way.
    bed.topology.etcd_mut().start_again().unwrap();
    bed.put_peer("10.9.0.0-24", "172.16.199.98");
    bed.put_peer("10.8.0.0-24", "172.16.199.98");
    eventually("ok again", SOON, || bed.status().0 == 0).unwrap();
    let changed =
        || ["10.9.0.0/24", "10.8.0.0/24"].iter().all(|p| bed.peer_of(p).as_deref() == Some("172.16.199.98"));
    eventually("the change is seen", SOON, changed).unwrap();
    let warnings = bed.warnings();
    assert!((1..=3).contains(&warnings.len()), "{}", warnings.join("\n"));
    bed.down();
}

#[test]
fn overlayctl_shows_everything_with_the_daemon_dead() {
    let mut bed = Bed::up(Topology::builder());
    let commands = ["routes", "peers", "endpoints", "drops"];
    let shown = |bed: &Bed| {
        let strip = |mut rows: Value| {
            for row in rows.as_array_mut().unwrap() {
                // What traffic and time change.
                for key in ["packets_to", "bytes_to", "packets_from", "bytes_from", "idle_seconds"] {
                    row.as_object_mut().unwrap().remove(key);
                }
            }
            rows
        };
        commands.map(|command| strip(bed.ctl(command)))
    };
    let before = shown(&bed);
    assert!(before.iter().all(|rows| !rows.as_array().unwrap().is_empty()), "{before:?}");
    let status = bed.ctl("status");
    bed.topology.h_mut(1).overlayd_mut().kill9().unwrap();
    eventually("not running", SOON, || bed.status().0 == 4).unwrap();
    assert_eq!(shown(&bed), before);
    let output = bed.topology.h(1).overlayd().ctl_output(&["status", "-o", "json"]).unwrap();
    let dead: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!((&dead["state"], &dead["pid"]), (&"not running".into(), &0.into()), "{dead}");
    for field in ["vtep_mac", "vni", "port", "mtu", "uplink", "public_ip", "subnets"] {
        assert_eq!(dead[field], status[field], "{field}");
    }
    bed.down();
}

#[test]
fn the_peers_file_is_applied_on_change_and_a_bad_edit_is_not() {
    let bed = Bed::up(Topology::builder().store(StoreKind::Peers));
    let file = bed.topology.peers_file(0);
    let good = fs::read_to_string(&file).unwrap();
    let row = "[[peer]]\nsubnet = \"10.9.0.0/24\"\nhost = \"172.16.199.99\"\n";
    let more = format!("{row}vni = 42\nport = 8472\nvtep_mac = \"02:00:00:00:00:09\"\n{good}");
    fs::write(&file, &more).unwrap();
    bed.leads_at_once("10.9.0.0/24", Some("172.16.199.99"));
    let peers = bed.ctl("peers");
    let peer = peers.as_array().unwrap().iter().find(|peer| peer["public_ip"] == "172.16.199.99").unwrap();
    assert_eq!((&peer["vni"], &peer["port"], &peer["encap"]), (&42.into(), &8472.into(), &"vxlan".into()));
    let template = maps::bytes(&bed.raw_tunnel("10.9.0.0/24").unwrap()["template"]["bytes"]);
    assert_eq!(template[50..56], [2, 0, 0, 0, 0, 9]);
    // An editor's way to save: a new file in the old one's place.
    let new = file.with_extension("new");
    fs::write(&new, more.replace("199.99", "199.98")).unwrap();
    fs::rename(&new, &file).unwrap();
    bed.leads_at_once("10.9.0.0/24", Some("172.16.199.98"));

    let shown = bed.ctl("routes");
    fs::write(&file, format!("{row}vin = 42\n")).unwrap();
    eventually("degraded", AT_ONCE, || bed.status().0 == 3).unwrap();
    let warning = bed.one_warning("h1.peers.toml:4: unknown field `vin`");
    assert!(bed.status().1.contains("h1.peers.toml:4: unknown field `vin`"), "{:?}", bed.status());
    assert_eq!(bed.ctl("routes"), shown);
    fs::write(&file, &good).unwrap();
    bed.leads_at_once("10.9.0.0/24", None);
    eventually("ok again", SOON, || bed.status().0 == 0).unwrap();
    assert_eq!(bed.warnings(), [warning]);
    bed.down();
}
