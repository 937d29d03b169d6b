//! The harness itself: what it makes is there, works, and goes.

use std::{panic, path::Path, time::Duration};

use harness::{
    Netns, Scope, Topology, eventually, frame,
    process::Cmd,
    scope::Remains,
    snapshot::Snapshot,
    topology::StoreKind,
    traffic::{Endpoint, Injector, Probe, Sniffer, iperf, ping, ping_from, ping_with},
    wire::WireKind,
};

const SOON: Duration = Duration::from_secs(5);

fn bare() -> harness::topology::Builder {
    Topology::builder().store(StoreKind::Peers).without_overlayd()
}

fn ends(topology: &Topology) -> [Endpoint<'_>; 2] {
    [topology.h(1), topology.h(2)].map(|h| Endpoint { ns: &h.ns, ip: h.ip })
}

#[test]
fn everything_goes_when_a_test_panics() {
    let (tell, told) = std::sync::mpsc::channel();
    let result = panic::catch_unwind(move || {
        let topology = bare().up().unwrap();
        let name = topology.scope.name().to_owned();
        let sleeper = topology.h(1).c(1).ns.cmd("sleep").arg("1000");
        let sleeper = sleeper.spawn(&topology.scope.dir().join("sleeper.log")).unwrap();
        let pid = sleeper.pid().cast_signed();
        let container = &topology.h(1).c(1).ns;
        eventually("it is inside", SOON, || container.processes().contains(&pid)).unwrap();
        tell.send((name, sleeper.pid())).unwrap();
        assert_eq!(topology.hosts.len(), 3, "a deliberate failure");
    });
    assert!(result.is_err());
    let (name, sleeper) = told.recv().unwrap();
    assert!(Remains::of(&name).is_empty(), "{:?}", Remains::of(&name));
    assert!(!Path::new("/proc").join(sleeper.to_string()).exists());
}

#[test]
fn removal_by_name_needs_no_memory_of_what_was_made() {
    let topology = bare().up().unwrap();
    let name = topology.scope.name().to_owned();
    let sleeper = topology.h(2).ns.cmd("sleep").arg("1000");
    let mut sleeper = sleeper.spawn(&topology.scope.dir().join("sleeper.log")).unwrap();
    // It is started outside, and enters: before that it is nobody's.
    let pid = sleeper.pid().cast_signed();
    eventually("it is inside", SOON, || topology.h(2).ns.processes().contains(&pid)).unwrap();
    topology.keep();
    // Two hosts, two containers and the wire.
    assert_eq!(Remains::of(&name).namespaces.len(), 5);
    assert_eq!(harness::scope::remove(&name, Duration::from_secs(1)), [""; 0]);
    assert!(Remains::of(&name).is_empty(), "{:?}", Remains::of(&name));
    assert!(!sleeper.alive());
}

#[test]
fn hosts_reach_each_other_on_every_kind_of_wire() {
    for wire in [WireKind::Bridge, WireKind::Veth, WireKind::Routed { narrow: 1400 }] {
        let topology = bare().wire(wire).up().unwrap();
        for (from, to) in [(1, 2), (2, 1)] {
            let ping = ping(&topology.h(from).ns, topology.h(to).ip, 3).unwrap();
            assert!(ping.clean(), "{wire:?}: {}", ping.text);
        }
    }
}

#[test]
fn a_routed_wire_is_narrow_between_its_first_host_and_the_others_only() {
    let topology = bare().hosts(3).wire(WireKind::Routed { narrow: 1400 }).up().unwrap();
    for (from, to) in [(1, 2), (2, 1), (1, 3)] {
        let from = &topology.h(from).ns;
        let ping = |size| ping_with(from, topology.h(to).ip, 2, &["-M", "do", "-s", size]).unwrap();
        let refused = ping("1373");
        assert!(refused.received == 0 && refused.text.contains("mtu = 1400"), "{}", refused.text);
        assert!(ping("1372").clean());
    }
    let wide = ping_with(&topology.h(2).ns, topology.h(3).ip, 2, &["-M", "do", "-s", "1472"]).unwrap();
    assert!(wide.clean(), "{}", wide.text);
}

#[test]
fn containers_reach_their_gateway_and_no_other_host_without_overlayd() {
    let topology = bare().hosts(3).containers(2).up().unwrap();
    let (h1, h3) = (topology.h(1), topology.h(3));
    assert_eq!(h3.c(2).ip.to_string(), "172.37.0.3");
    assert_eq!(h3.bridge.subnet(), "172.37.0.0/16");
    assert!(ping(&h3.c(2).ns, h3.bridge.ip, 2).unwrap().clean());
    assert!(ping(&h3.c(1).ns, h3.c(2).ip, 2).unwrap().clean());
    assert!(ping_from(&h3.ns, h3.bridge.ip, h3.c(1).ip, 2).unwrap().clean());
    assert_eq!(ping(&h1.c(1).ns, h3.c(1).ip, 2).unwrap().received, 0);
}

#[test]
fn a_restarted_container_has_its_address_and_a_new_port() {
    let mut topology = bare().up().unwrap();
    let index = |t: &Topology| {
        let devices = t.h(1).ns.run(harness::tcx::devices).unwrap().unwrap();
        devices.into_iter().find(|(_, name)| *name == t.h(1).c(1).port).unwrap().0
    };
    let (ip, before) = (topology.h(1).c(1).ip, index(&topology));
    topology.restart_container(1, 1).unwrap();
    assert_eq!(topology.h(1).c(1).ip, ip);
    assert_ne!(index(&topology), before, "the port's index is a new one");
    assert!(ping(&topology.h(1).ns, ip, 2).unwrap().clean());
    topology.h_mut(1).remove_container("c1").unwrap();
    assert_eq!(ping(&topology.h(1).ns, ip, 2).unwrap().received, 0);
    assert!(topology.h_mut(1).remove_container("c1").is_err());
}

#[test]
fn etcd_keeps_what_it_was_told_over_a_kill_and_answers_nothing_while_paused() {
    let scope = Scope::unique().unwrap();
    let ns = scope.netns("etcd").unwrap();
    let mut etcd =
        harness::etcd::Etcd::start(&ns, std::net::Ipv4Addr::LOCALHOST, &scope.dir().join("e")).unwrap();
    etcd.put("/a/x", "{\"one\": 1}").unwrap();
    etcd.put("/a/y", "-two").unwrap();
    assert_eq!(etcd.get("/a/x").unwrap().as_deref(), Some("{\"one\": 1}"));
    assert_eq!(etcd.get("/a/none").unwrap(), None);
    etcd.del("/a/x").unwrap();
    etcd.kill().unwrap();
    assert!(etcd.get("/a/y").is_err());
    etcd.start_again().unwrap();
    assert_eq!(
        etcd.get_prefix("/a/").unwrap().into_iter().collect::<Vec<_>>(),
        [("/a/y".into(), "-two".into())]
    );
    etcd.pause().unwrap();
    assert!(etcd.get("/a/y").is_err());
    etcd.resume().unwrap();
    assert_eq!(etcd.get("/a/y").unwrap().as_deref(), Some("-two"));
}

#[test]
fn the_probe_counts_exactly_the_dropped_datagrams() {
    let topology = bare().wire(WireKind::Veth).up().unwrap();
    // The low half of the sequence number lies 12 bytes into the payload.
    let drop = |n: u32| {
        let rule = format!("0>>22&0x3C@20={n}");
        let args = ["-A", "INPUT", "-p", "udp", "-m", "u32", "--u32", &rule, "-j", "DROP"];
        topology.h(2).ns.cmd("iptables").args(args).check().unwrap();
    };
    drop(7);
    drop(130);
    let [a, b] = ends(&topology);
    let probe = Probe::start(a, b, 1000, Duration::from_millis(500)).unwrap();
    let report = probe.join().unwrap();
    assert_eq!(report.forth.lost(), [7, 130], "{report}");
    assert_eq!(report.forth.duplicates(), 0, "{report}");
    assert!(report.back.clean(), "{report}");
    assert!((450..=500).contains(&report.back.sent), "{report}");
}

#[test]
fn the_probe_ends_when_told_and_sees_an_outage() {
    let topology = bare().wire(WireKind::Bridge).up().unwrap();
    let [a, b] = ends(&topology);
    let probe = Probe::start(a, b, 1000, Duration::from_secs(20)).unwrap();
    eventually("traffic flows", SOON, || probe.arrived() > 100).unwrap();
    let wire = topology.wire.ns().unwrap();
    wire.ip("link set h2 nomaster").unwrap();
    let before = probe.arrived();
    // Not a wait for anything: the outage has to last for some packets.
    std::thread::sleep(Duration::from_millis(100));
    wire.ip("link set h2 master br0").unwrap();
    eventually("traffic flows again", SOON, || probe.arrived() > before + 100).unwrap();
    assert!(probe.sending());
    let report = probe.finish().unwrap();
    assert!(report.forth.lost().len() >= 50 && report.back.lost().len() >= 50, "{report}");
    assert!(report.forth.received() >= 100 && report.forth.duplicates() == 0, "{report}");
}

#[test]
fn what_is_injected_on_the_wire_is_sniffed_and_delivered() {
    let topology = bare().up().unwrap();
    let (h1, wire) = (topology.h(1), topology.wire.ns().unwrap());
    let ip = h1.ip;
    let socket = h1.ns.run(move || std::net::UdpSocket::bind((ip, 7777))).unwrap().unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    let sniffers = [Sniffer::on(&h1.ns, "eth0").unwrap(), Sniffer::everywhere(wire).unwrap()];
    let (stranger, own) = ("10.9.9.9:1234".parse().unwrap(), std::net::SocketAddrV4::new(h1.ip, 7777));
    let packet = frame::Ipv4::udp(stranger, own, b"a stranger's word").bytes();
    let sent = frame::eth(h1.mac("eth0").unwrap(), [2; 6], frame::IPV4, &packet);
    // What is no frame is an error, and so is a device that is not there.
    let injector = Injector::open(wire, "h1").unwrap();
    assert!(injector.send(&[0; 13]).is_err() && Injector::open(wire, "h9").is_err());
    h1.ns
        .exec(&["sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.eth0.rp_filter=0"])
        .unwrap();
    for _ in 0..3 {
        injector.send(&sent).unwrap();
    }
    for _ in 0..3 {
        let mut buffer = [0; 64];
        let (len, from) = socket.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..len], from), (&b"a stranger's word"[..], stranger.into()));
    }
    let ways = [false, true];
    for (sniffer, outgoing) in sniffers.into_iter().zip(ways) {
        let frames = sniffer.finish().unwrap();
        let seen: Vec<bool> = frames.iter().filter(|f| f.bytes == sent).map(|f| f.outgoing).collect();
        assert_eq!(seen, [outgoing; 3]);
    }
}

#[test]
fn iperf_measures_both_protocols_and_directions() {
    let topology = bare().wire(WireKind::Veth).up().unwrap();
    let (h1, h2) = (topology.h(1), topology.h(2));
    let tcp = iperf::tcp(1).bidirectional().run(&h1.ns, &h2.ns, h2.ip).unwrap();
    assert!(tcp.flow.bits_per_second > 1e7 && tcp.back.unwrap().bits_per_second > 1e7, "{tcp:?}");
    let udp = iperf::udp(1, 10_000_000, 1400).reverse().run(&h1.ns, &h2.ns, h2.ip).unwrap();
    assert!((1e6..1.5e7).contains(&udp.flow.bits_per_second) && udp.flow.lost_percent < 50.0, "{udp:?}");
    let text = iperf::udp(1, 10_000_000, 1400).text(&h1.ns, &h2.ns, h2.ip).unwrap().stdout;
    assert!(iperf::summary(&text).iter().any(|line| iperf::arrived(line)), "{text}");
    assert!(iperf::tcp(1).run(&h1.ns, &h2.ns, std::net::Ipv4Addr::new(172, 16, 199, 99)).is_err());
}

#[test]
fn a_snapshot_sees_links_and_namespaces_come_and_go() {
    let scope = Scope::unique().unwrap();
    let ns = scope.netns("a").unwrap();
    let before = Snapshot::take_in(&ns).unwrap();
    ns.ip("link add v0 type veth peer name v1").unwrap();
    let other = scope.netns("b").unwrap();
    let after = Snapshot::take_in(&ns).unwrap();
    let difference = before.difference(&after);
    // Other tests make namespaces meanwhile.
    let seen = |kind, what: &str| difference.0.iter().any(|c| c.kind == kind && c.what == what && c.appeared);
    assert!(seen("link", "v0") && seen("link", "v1") && seen("namespace", &other.name()), "{difference}");
    ns.ip("link del v0").unwrap();
    let again = Snapshot::take_in(&ns).unwrap();
    assert_eq!(again.links, before.links);
    let gone = after.difference(&again);
    assert!(gone.0.iter().any(|c| c.what == "v0" && !c.appeared), "{gone}");
}

#[test]
fn a_command_that_hangs_is_ended_with_all_it_started() {
    let scope = Scope::unique().unwrap();
    let ns = scope.netns("a").unwrap();
    let cmd = ns.cmd("sh").args(["-c", "echo started; sleep 1000 & wait"]);
    let error = cmd.timeout(Duration::from_millis(300)).run().unwrap_err().to_string();
    assert!(error.contains("did not end within") && error.contains("started"), "{error}");
    eventually("nothing runs inside", SOON, || ns.processes().is_empty()).unwrap();
}

#[test]
fn errors_say_what_was_run_where_and_what_it_said() {
    let scope = Scope::unique().unwrap();
    let ns = scope.netns("a").unwrap();
    let error = ns.ip("link show nonesuch").unwrap_err().to_string();
    for part in [ns.name().as_str(), "ip link show nonesuch", "exit code 1", "does not exist"] {
        assert!(error.contains(part), "{error}");
    }
    let error = format!("{:#}", Cmd::new("nonesuch-program").run().unwrap_err());
    assert!(error.contains("nonesuch-program"), "{error}");
    assert!(Netns::borrow("/run/netns/nonesuch").run(|| ()).is_err());
    assert!(Scope::named("Not/legal").is_err());
}
