//! The host's own netfilter: what it would do to packets that pass it by is told, and containers of one host talk past
//! the bridge only where it would do nothing.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails, in its helpers too")]

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    time::Duration,
};

use harness::{
    Netns, Scope, Topology,
    counters::{Packets, packets},
    docker::OnHost,
    eventually,
    host::Host,
    image::Image,
    topology::{Builder, StoreKind},
    traffic::{Endpoint, Probe, ping, ping_with},
};
use overlay_common::map::{Direction, Port, Traffic, port_flag};
use overlay_user::datapath::{map::Maps, pin::Pins};

/// A change is noticed within a second; the older ip_tables is read every ten.
const NOTICED: Duration = Duration::from_secs(5);
const RESYNC: Duration = Duration::from_secs(15);
const SOON: Duration = Duration::from_secs(5);

/// Two containers on each host, which need no etcd.
fn two_each() -> Builder {
    Topology::builder().containers(2).store(StoreKind::Peers)
}

fn engines(args: &'static [&'static str]) -> Builder {
    two_each().engine(move |index, scope: &Scope| Box::new(OnHost::new(index, scope).args(args)))
}

fn maps(host: &Host) -> Maps {
    Maps::open(&Pins::new(&host.overlayd().config.pin_dir)).unwrap()
}

/// Whether docker0 and all of its ports let packets go directly; `None` while the daemon writes.
fn go_directly(host: &Host) -> Option<bool> {
    let ports = maps(host).ports().unwrap();
    let with = ports.iter().filter(|(_, port)| port.flags & port_flag::LOCAL != 0).count();
    assert!(ports.len() >= 3, "{ports:?}");
    [0, ports.len()].contains(&with).then_some(with != 0)
}

fn direct(host: &Host) -> bool {
    go_directly(host) == Some(true)
}

fn by_bridge(host: &Host) -> bool {
    go_directly(host) == Some(false)
}

fn notes(host: &Host) -> Vec<String> {
    let status = host.overlayd().ctl(&["status", "-o", "json"]).unwrap();
    assert_eq!(status["state"], "ok", "notes are no trouble: {status}");
    status["notes"].as_array().unwrap().iter().map(|note| note.as_str().unwrap().to_owned()).collect()
}

fn iptables(host: &Host, line: &str) {
    host.ns.cmd("iptables").arg("-w").args(line.split_whitespace()).check().unwrap();
}

fn nft(host: &Host, script: &str) {
    host.ns.cmd("nft").args(["-f", "-"]).stdin(script).check().unwrap();
}

fn end(host: &Host, number: u32) -> Endpoint<'_> {
    Endpoint { ns: &host.c(number).ns, ip: host.c(number).ip }
}

/// Between hosts, all of which has to arrive whatever else happens.
fn probe(topology: &Topology) -> Probe {
    Probe::start(end(topology.h(1), 1), end(topology.h(2), 1), 1000, Duration::from_secs(60)).unwrap()
}

fn assert_nothing_lost(probe: Probe) {
    eventually("traffic between hosts", SOON, || probe.arrived() >= 1000).unwrap();
    let report = probe.finish().unwrap();
    assert!(report.clean(), "{report}");
}

/// What two containers of one host send each other, by who carried it.
struct Carried {
    directly: u64,
    by_bridge: u64,
}

const FLOW: u32 = 500;

fn between_two(host: &Host) -> Carried {
    assert!(ping(&host.c(1).ns, host.c(2).ip, 2).unwrap().clean());
    eventually("both endpoints are known", SOON, || host.knows(1) && host.knows(2)).unwrap();
    let count = || {
        let direct = maps(host).traffic(Traffic::LOCAL, Direction::ToPeer).unwrap().packets;
        // What goes out of a port by the bridge; what goes directly goes in at its other end.
        let Packets { tx, .. } = packets(&host.ns, &host.c(2).port).unwrap();
        (direct, tx)
    };
    let before = count();
    let duration = Duration::from_millis(u64::from(FLOW) + 20);
    let report = Probe::start(end(host, 1), end(host, 2), 1000, duration).unwrap().join().unwrap();
    assert!(report.clean() && report.forth.sent >= u64::from(FLOW), "{report}");
    let after = count();
    Carried { directly: after.0 - before.0, by_bridge: after.1 - before.1 }
}

fn assert_directly(host: &Host) {
    let Carried { directly, by_bridge } = between_two(host);
    assert!(directly >= 2 * u64::from(FLOW), "{directly} directly, {by_bridge} by the bridge");
    assert!(by_bridge < 20, "but for ARP none by the bridge, not {by_bridge}");
}

fn assert_by_bridge(host: &Host) {
    let Carried { directly, by_bridge } = between_two(host);
    assert_eq!(directly, 0);
    assert!(by_bridge >= u64::from(FLOW), "{by_bridge}");
}

#[test]
fn a_users_rule_is_told_and_keeps_local_packets_on_the_bridge() {
    let topology = two_each().up().unwrap();
    let h1 = topology.h(1);
    assert_eq!((notes(h1), direct(h1)), (vec![], true));
    assert_directly(h1);

    let between_hosts = probe(&topology);
    iptables(h1, "-N DOCKER-USER");
    iptables(h1, "-I FORWARD -j DOCKER-USER");
    iptables(h1, &format!("-A DOCKER-USER -s {} -p icmp -j DROP", h1.c(1).ip));
    let rule = format!("iptables filter DOCKER-USER: \"-s {}/32 -p icmp -j DROP\"", h1.c(1).ip);
    let told = [
        format!("containers on docker0 talk to each other over the bridge, not directly: {rule}"),
        format!("{rule} is not seen by packets between containers of different hosts"),
    ];
    eventually("the rule is told", NOTICED, || notes(h1) == told).unwrap();
    eventually("the ports go by the bridge", NOTICED, || by_bridge(h1)).unwrap();
    let text = h1.overlayd().ctl_output(&["status"]).unwrap().stdout;
    assert_eq!(text.lines().filter(|line| line.starts_with("Note ")).count(), 2, "{text}");
    // The rule does what it says, here and not between hosts.
    assert_eq!(ping_with(&h1.c(1).ns, h1.c(2).ip, 2, &["-W", "1"]).unwrap().received, 0);
    assert!(ping(&h1.c(1).ns, topology.h(2).c(1).ip, 2).unwrap().clean());

    iptables(h1, "-F DOCKER-USER");
    eventually("the rule is no longer told", NOTICED, || notes(h1).is_empty()).unwrap();
    eventually("the ports go directly", NOTICED, || direct(h1)).unwrap();
    assert_directly(h1);
    assert!(direct(topology.h(2)), "the other host is not concerned");
    assert_nothing_lost(between_hosts);
    let log = h1.overlayd().log_tail(200);
    for line in [format!("note: {}", told[1]), format!("no longer: {}", told[1])] {
        assert_eq!(log.matches(&line).count(), 1, "{line}\n{log}");
    }
}

#[test]
fn rules_of_nftables_are_told_by_family() {
    let topology = two_each().up().unwrap();
    let h1 = topology.h(1);
    let (c1, c2) = (h1.c(1).ip, h1.c(2).ip);
    assert!(direct(h1));
    let between_hosts = probe(&topology);
    // A table, whether it stands between ports, and whether packets between hosts miss it.
    for (family, hook, rule, stands, missed) in [
        ("inet", "hook forward priority 0", format!("ip saddr {c1} drop"), true, true),
        ("inet", "hook forward priority 0", format!("ip saddr {c1} ip daddr 10.0.0.0/8 drop"), false, false),
        ("ip", "hook prerouting priority -150", "iifname \"eth1\" drop".to_owned(), false, true),
        ("inet", "hook input priority 0", "udp dport 9 drop".to_owned(), false, false),
        ("bridge", "hook forward priority 0", format!("ip saddr {c1} ip daddr {c2} drop"), true, false),
        ("netdev", "hook ingress device docker0 priority 0", "tcp dport 9 drop".to_owned(), true, true),
    ] {
        nft(h1, &format!("table {family} mine {{\n chain mine {{\n type filter {hook};\n {rule}\n }}\n}}\n"));
        let what = format!("{family} {hook}: {rule}");
        let table = format!("nft {family} mine mine");
        let told = || {
            let notes = notes(h1);
            let is_about =
                |start: &str| notes.iter().any(|note| note.starts_with(start) && note.contains(&table));
            (is_about("containers on docker0 "), is_about("nft ")) == (stands, missed)
        };
        eventually(&format!("{what} is told"), NOTICED, told).unwrap();
        eventually(&what, NOTICED, || go_directly(h1) == Some(!stands)).unwrap();
        nft(h1, &format!("delete table {family} mine\n"));
        eventually("all is as before", NOTICED, || notes(h1).is_empty() && direct(h1)).unwrap();
    }
    assert_nothing_lost(between_hosts);
}

#[test]
fn rules_of_the_older_ip_tables_are_told() {
    let topology = two_each().up().unwrap();
    let h1 = topology.h(1);
    let legacy = |line: &str| {
        h1.ns.cmd("iptables-legacy").arg("-w").args(line.split_whitespace()).check().unwrap();
    };
    legacy("-A FORWARD -i docker0 -o docker0 -p udp --dport 9 -j DROP");
    let told = || {
        notes(h1).iter().any(|note| note.contains("iptables filter FORWARD: \"-i docker0 -o docker0 -p udp"))
    };
    eventually("the rule is told", RESYNC, told).unwrap();
    eventually("the ports go by the bridge", NOTICED, || by_bridge(h1)).unwrap();
    assert_by_bridge(h1);
    legacy("-F FORWARD");
    eventually("the ports go directly", RESYNC, || direct(h1) && notes(h1).is_empty()).unwrap();
}

#[test]
fn where_the_bridge_does_not_call_iptables_its_rules_are_not_in_the_way() {
    let topology = two_each().without_overlayd().up().unwrap();
    topology.h(1).ns.sysctl("bridge/bridge-nf-call-iptables", "0").unwrap();
    iptables(topology.h(1), "-A FORWARD -i docker0 -o docker0 -p udp -j DROP");
    let mut topology = topology;
    (0..2).for_each(|index| topology.start_overlayd(index).unwrap());
    topology.await_routes().unwrap();
    let h1 = topology.h(1);
    assert!(direct(h1), "at once, with the first look");
    assert_directly(h1);
    h1.ns.sysctl("bridge/bridge-nf-call-iptables", "1").unwrap();
    eventually("now they are", NOTICED, || by_bridge(h1)).unwrap();
}

#[test]
fn with_default_docker_containers_of_one_host_talk_directly() {
    let topology = engines(&["--userland-proxy=true"]).up().unwrap();
    let h1 = topology.h(1);
    // A published port is no obstacle: Docker redirects none of its own containers to it.
    serve_a_page(h1);
    let started = || maps(h1).ports().unwrap().len() == 4;
    eventually("the web server's port is there", SOON, started).unwrap();
    assert_eq!(fetch(&h1.c(1).ns, (h1.ip, 8080)), PAGE);
    for host in &topology.hosts {
        assert_eq!((notes(host), direct(host)), (vec![], true), "on {}", host.name);
        assert_directly(host);
    }
    assert_nothing_lost(probe(&topology));
}

/// Docker's own word on one host; between hosts it has none.
#[test]
fn without_icc_containers_talk_to_other_hosts_only() {
    let topology = engines(&["--icc=false"]).up().unwrap();
    let h1 = topology.h(1);
    assert!(by_bridge(h1));
    let between_hosts = probe(&topology);
    let alone = ping_with(&h1.c(1).ns, h1.c(2).ip, 2, &["-W", "1"]).unwrap();
    assert_eq!(alone.received, 0, "{}", alone.text);
    for (from, to) in [(1, 2), (2, 1)] {
        let ping = ping(&topology.h(1).c(from).ns, topology.h(2).c(to).ip, 3).unwrap();
        assert!(ping.clean(), "{}", ping.text);
    }
    let peer = topology.h(2).bridge.subnet();
    let advice = format!("iptables -I DOCKER-USER -i docker0 -o docker0 -d {peer} -j ACCEPT");
    let told = notes(h1);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains("\"-i docker0 -o docker0 -j DROP\""), "{told:?}");
    assert!(told[1].starts_with("icc=false on docker0 ") && told[1].ends_with(&advice), "{told:?}");
    assert_the_advice_helps(&topology, &advice);
    assert_nothing_lost(between_hosts);
}

/// What the kernel has to cut passes only where the rule that is advised stands.
fn assert_the_advice_helps(topology: &Topology, advice: &str) {
    let (h1, h2) = (topology.h(1), topology.h(2));
    let large = |expected: u32| {
        let ping = ping_with(&h1.c(1).ns, h2.c(1).ip, 3, &["-s", "2000", "-M", "dont", "-W", "1"]).unwrap();
        assert_eq!(ping.received, expected, "{}", ping.text);
    };
    large(0);
    // The answers take the other host's slow path.
    iptables(h2, &advice.replacen("iptables ", "", 1).replace(&h2.bridge.subnet(), &h1.bridge.subnet()));
    iptables(h1, advice.strip_prefix("iptables ").unwrap());
    large(3);
    let settled = || notes(h1).len() == 1 && notes(h2).len() == 1;
    eventually("the advice is followed", NOTICED, settled).unwrap();
    assert!(by_bridge(h1), "what Docker drops between its containers it still drops");
}

#[test]
fn a_published_port_is_reached_from_a_container_of_the_same_host() {
    let mut topology = engines(&["--userland-proxy=false"]).up().unwrap();
    let h1 = topology.h(1);
    assert!(direct(h1), "nothing is published yet");
    let between_hosts = probe(&topology);
    let web = serve_a_page(h1);
    eventually("the ports go by the bridge", NOTICED, || by_bridge(h1)).unwrap();
    let told = notes(h1);
    assert!(told.len() == 1 && told[0].contains(&format!("-j DNAT --to-destination {web}:80")), "{told:?}");
    for _ in 0..3 {
        for (client, server) in [
            // Redirected, and answered from port to port of the bridge.
            (&h1.c(1).ns, (h1.ip, 8080)),
            (&h1.c(1).ns, (web, 80)),
            (&topology.h(2).c(1).ns, (web, 80)),
            (&topology.h(2).ns, (h1.ip, 8080)),
        ] {
            assert_eq!(fetch(client, server), PAGE, "{server:?} from {}", client.name());
        }
    }
    assert_nothing_lost(between_hosts);
    assert_answers_get_lost_past_the_bridge(topology.h_mut(1));
}

/// Why it matters: with nobody to take the flag off again, the server's answers reach the client as they are, from an
/// address that it has not asked.
fn assert_answers_get_lost_past_the_bridge(host: &mut Host) {
    host.overlayd_mut().kill9();
    let mut maps = maps(host);
    for (ifindex, port) in maps.ports().unwrap() {
        let flags = port.flags | port_flag::LOCAL;
        maps.put_port(ifindex, Port { flags, ..port }).unwrap();
    }
    let server = (host.ip, 8080);
    let connect = || TcpStream::connect_timeout(&server.into(), Duration::from_secs(1)).is_ok();
    assert!(!host.c(1).ns.run(connect).unwrap());
}

const PAGE: &str = "overlay\n";

/// A web server on port 80, published as 8080 of its host; its own address.
fn serve_a_page(host: &Host) -> Ipv4Addr {
    let serve = ["sh", "-c", "echo overlay > /tmp/page; exec httpd -f -p 80 -h /tmp"];
    let server = host.docker().run("web", Image::NAME, &["-p", "8080:80"], &serve).unwrap();
    let ip = server.ip().unwrap();
    let answers = || host.ns.run(|| TcpStream::connect((ip, 80)).is_ok()).unwrap();
    eventually("the web server answers", SOON, answers).unwrap();
    ip
}

/// One HTTP request; the body.
fn fetch(client: &Netns, server: (Ipv4Addr, u16)) -> String {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&server.into(), SOON)?;
        stream.set_read_timeout(Some(SOON))?;
        write!(stream, "GET /page HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer =
        client.run(ask).unwrap().unwrap_or_else(|e| panic!("{server:?} from {}: {e}", client.name()));
    answer.split_once("\r\n\r\n").map_or(answer.clone(), |(_, body)| body.to_owned())
}
