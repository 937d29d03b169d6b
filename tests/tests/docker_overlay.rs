//! overlayd on two real Docker engines: containers on their default bridges talk, and Docker goes on as if it were not
//! there.
#![expect(clippy::unwrap_used, reason = "these are tests: they panic where something fails")]

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use harness::{
    Netns, Topology, docker, eventually,
    host::Host,
    image::Image,
    tcx,
    topology::Builder,
    traffic::{Endpoint, Probe, Report, iperf, ping},
};

const SOON: Duration = Duration::from_secs(5);

/// On the wire, but no host of the overlay.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(172, 16, 199, 200);

fn engines() -> Builder {
    Topology::builder().docker()
}

fn end(host: &Host) -> Endpoint<'_> {
    Endpoint { ns: &host.c(1).ns, ip: host.c(1).ip }
}

/// 1000 datagrams a second between the first containers, both ways.
fn probe(topology: &Topology) -> Probe {
    Probe::start(end(topology.h(1)), end(topology.h(2)), 1000, Duration::from_secs(30)).unwrap()
}

/// A second of it: nothing may be lost, nothing may come twice.
fn udp_both_ways(topology: &Topology) -> Report {
    let probe = probe(topology);
    eventually("2000 datagrams", Duration::from_secs(10), || probe.arrived() >= 2000).unwrap();
    probe.finish().unwrap()
}

fn assert_talk(topology: &Topology) {
    for (here, there) in [(1, 2), (2, 1)] {
        let ping = ping(&topology.h(here).c(1).ns, topology.h(there).c(1).ip, 3).unwrap();
        assert!(ping.clean(), "h{here} to h{there}: {}", ping.text);
    }
    let report = udp_both_ways(topology);
    assert!(report.clean(), "{report}");
    // Both ends are at Docker's MTU of 1500: it is the kernel that tells them of the overlay's 1450.
    let (a, b) = (topology.h(1).c(1), topology.h(2).c(1));
    let tcp = iperf::tcp(1).bidirectional().run(&a.ns, &b.ns, b.ip).unwrap();
    assert!(tcp.flow.bits_per_second > 1e7 && tcp.back.unwrap().bits_per_second > 1e7, "{tcp:?}");
}

fn iptables(host: &Host, line: &str) -> String {
    host.ns.cmd("iptables").args(line.split_whitespace()).check().unwrap().stdout
}

#[test]
fn containers_talk_also_one_started_after_overlayd() {
    let mut topology = engines().up().unwrap();
    assert_talk(&topology);
    for (here, there) in [(1, 2), (2, 1)] {
        let ping = ping(&topology.h(here).c(1).ns, topology.h(there).bridge.ip, 3).unwrap();
        assert!(ping.clean(), "h{here}'s container to h{there}'s docker0: {}", ping.text);
    }

    topology.start_container(2, 2).unwrap();
    let (h1, h2) = (topology.h(1), topology.h(2));
    let first = ping(&h1.c(1).ns, h2.c(2).ip, 3).unwrap();
    assert!(first.clean(), "to a container just started: {}", first.text);
    let port = &h2.c(2).port;
    let attached = || tcx::attachments_in(&h2.ns).is_ok_and(|all| all.iter().any(|a| a.ifname == *port));
    eventually("the port is attached by itself", SOON, attached).unwrap();
    let back = ping(&h2.c(2).ns, h1.c(1).ip, 3).unwrap();
    assert!(back.clean(), "from a container started later: {}", back.text);
}

#[test]
fn a_container_that_comes_back_with_its_address_is_reached_at_once() {
    let mut topology = engines().up().unwrap();
    let ip = topology.h(2).c(1).ip;
    assert!(ping(&topology.h(1).c(1).ns, ip, 2).unwrap().clean(), "known before");
    let c1 = topology.h(2).docker().client().container("c1");
    c1.restart().unwrap();
    assert_reached_within_a_second(&topology, ip, "`docker restart`");
    topology.restart_container(2, 1).unwrap();
    assert_eq!(topology.h(2).c(1).ip, ip);
    assert_reached_within_a_second(&topology, ip, "another container with the same address");
    // An upgrade of Docker: all containers stop, and its rules are made anew.
    topology.h_mut(2).docker_mut().restart().unwrap();
    c1.start().unwrap();
    assert_eq!(c1.ip().unwrap(), ip);
    assert_reached_within_a_second(&topology, ip, "a restart of the engine");
    let c1 = Netns::borrow(format!("/proc/{}/ns/net", c1.pid().unwrap()));
    let back = ping(&c1, topology.h(1).c(1).ip, 3).unwrap();
    assert!(back.clean(), "{}", back.text);
}

fn assert_reached_within_a_second(topology: &Topology, ip: Ipv4Addr, after: &str) {
    let start = Instant::now();
    let once = || ping(&topology.h(1).c(1).ns, ip, 1).is_ok_and(|ping| ping.clean());
    // A lost request alone takes two seconds to be given up.
    eventually(after, SOON, once).unwrap();
    let took = start.elapsed();
    assert!(took < Duration::from_secs(1), "reached {took:?} after {after}");
}

/// Where a packet that the kernel forwards is seen.
const HOOKS: [(&str, &str); 3] = [("raw", "PREROUTING"), ("mangle", "FORWARD"), ("mangle", "POSTROUTING")];

#[test]
fn a_warm_flow_touches_neither_bridge_nor_netfilter() {
    let topology = engines().up().unwrap();
    for host in &topology.hosts {
        // Without a target they only count. Only the flow is UDP here, and its outer packets.
        HOOKS
            .iter()
            .for_each(|(table, chain)| drop(iptables(host, &format!("-t {table} -A {chain} -p udp"))));
    }
    let count = || topology.hosts.iter().map(|h| (udp_seen(h), bridged(h))).collect::<Vec<_>>();
    let probe = probe(&topology);
    eventually("the flow is warm", SOON, || probe.arrived() >= 200).unwrap();
    let (before, from) = (count(), probe.arrived());
    eventually("5000 datagrams", Duration::from_secs(15), || probe.arrived() >= from + 5000).unwrap();
    let after = count();
    let report = probe.finish().unwrap();
    assert!(report.clean(), "{report}");
    for ((rules_before, bridge_before), (rules_after, bridge_after)) in before.iter().zip(&after) {
        assert_eq!(rules_before, rules_after);
        let bridged = bridge_after - bridge_before;
        assert!(bridged <= 20, "a few packets of ARP at most, not {bridged}");
    }
}

/// What the counting rules say, one line each.
fn udp_seen(host: &Host) -> Vec<String> {
    let counted = host.ns.exec(&["iptables-save", "-c"]).unwrap().stdout;
    let lines: Vec<String> = counted.lines().filter(|l| l.ends_with("-p udp")).map(str::to_owned).collect();
    assert_eq!(lines.len(), HOOKS.len(), "{counted}");
    lines
}

/// Packets that went through docker0, up and down.
fn bridged(host: &Host) -> u64 {
    let said = host.ns.exec(&["ip", "-j", "-s", "link", "show", "docker0"]).unwrap().stdout;
    let link: serde_json::Value = serde_json::from_str(&said).unwrap();
    ["rx", "tx"].map(|way| link[0]["stats64"][way]["packets"].as_u64().unwrap()).iter().sum()
}

/// All rules of a host as Docker left them: without counters and the comments that hold the time.
fn rules(host: &Host) -> String {
    let both = ["iptables-save", "ip6tables-save"].map(|save| host.ns.exec(&[save]).unwrap().stdout);
    let strip = |line: &str| line.split(" [").next().unwrap_or_default().to_owned();
    let lines = both.iter().flat_map(|text| text.lines()).filter(|line| !line.starts_with('#'));
    lines.map(strip).collect::<Vec<_>>().join("\n")
}

#[test]
fn dockers_rules_published_ports_and_the_way_outside_stay_as_they_are() {
    // With Docker's proxy for published ports, its default, and without.
    let engine = |index, scope: &harness::Scope| {
        let proxy = ["--userland-proxy=true", "--userland-proxy=false"][index];
        Box::new(docker::OnHost::new(index, scope).args(&[proxy])) as _
    };
    let mut topology = Topology::builder().engine(engine).without_overlayd().up().unwrap();
    let outside = topology.scope.netns("outside").unwrap();
    topology.wire.plug(&outside, "outside", OUTSIDE, &[]).unwrap();
    let webs = [1, 2].map(|number| serve_a_page(topology.h(number)));
    let before: Vec<String> = topology.hosts.iter().map(rules).collect();
    for part in [":FORWARD DROP", "-s 172.17.0.0/16 ! -o docker0 -j MASQUERADE", "--dport 8080 -j DNAT"] {
        assert!(before[0].contains(part), "no `{part}` in\n{}", before[0]);
    }
    // What Docker does for want of the proxy.
    assert_eq!([&before[0], &before[1]].map(|rules| rules.contains("--src-type LOCAL")), [false, true]);
    assert_docker_works(&topology, &outside);

    (0..2).for_each(|index| topology.start_overlayd(index).unwrap());
    let traffic = probe(&topology);
    assert_docker_works(&topology, &outside);
    for (client, web) in [(2, webs[0]), (1, webs[1])] {
        assert_eq!(fetch(&topology.h(client).c(1).ns, (web, 80)), PAGE, "by way of the overlay");
    }
    eventually("traffic of the overlay meanwhile", SOON, || traffic.arrived() >= 1000).unwrap();
    let report = traffic.finish().unwrap();
    assert!(report.clean(), "{report}");
    assert_eq!(topology.hosts.iter().map(rules).collect::<Vec<_>>(), before, "while overlayd runs");

    for host in &mut topology.hosts {
        let detached = host.overlayd_mut().detach().unwrap();
        assert_eq!(detached.code, Some(0), "{}", detached.text());
    }
    let (c1, remote) = (&topology.h(1).c(1).ns, topology.h(2).c(1).ip);
    assert_eq!(ping(c1, remote, 1).unwrap().received, 0, "the overlay is gone");
    assert_docker_works(&topology, &outside);
    assert_eq!(topology.hosts.iter().map(rules).collect::<Vec<_>>(), before, "after detach");
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

/// The published port for another host, a container there, and one of the same host; and a container's way out, masqueraded.
fn assert_docker_works(topology: &Topology, outside: &Netns) {
    for (server, other) in [(1, 2), (2, 1)].map(|(a, b)| (topology.h(a), topology.h(b))) {
        for client in [&other.ns, &other.c(1).ns, outside, &server.c(1).ns] {
            assert_eq!(fetch(client, (server.ip, 8080)), PAGE, "{} from {}", server.name, client.name());
        }
        let container = &server.c(1).ns;
        assert!(ping(container, OUTSIDE, 2).unwrap().clean(), "{}", server.name);
        assert_eq!(source_seen(outside, container), server.ip, "the outside knows hosts only");
    }
}

/// One HTTP request; the body.
fn fetch(client: &Netns, server: (Ipv4Addr, u16)) -> String {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&server.into(), SOON)?;
        stream.set_read_timeout(Some(SOON))?;
        write!(stream, "GET /page HTTP/1.0\r\n\r\n")?;
        std::io::read_to_string(stream)
    };
    let answer =
        client.run(ask).unwrap().unwrap_or_else(|e| panic!("{server:?} from {}: {e}", client.name()));
    answer.split_once("\r\n\r\n").map_or(answer.clone(), |(_, body)| body.to_owned())
}

/// Who a server outside takes a container for that connects to it.
fn source_seen(outside: &Netns, container: &Netns) -> IpAddr {
    let listener = outside.run(|| TcpListener::bind((OUTSIDE, 0))).unwrap().unwrap();
    let server: SocketAddr = listener.local_addr().unwrap();
    let mut client = container.run(|| TcpStream::connect_timeout(&server, SOON)).unwrap().unwrap();
    // Connected, so it is in the queue.
    let (mut stream, source) = listener.accept().unwrap();
    client.write_all(b"x").unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.read_exact(&mut [0]).unwrap();
    source.ip()
}

#[test]
fn the_rules_of_docker_28_do_not_stop_the_overlay() {
    let mut topology = engines().without_overlayd().up().unwrap();
    let outside = topology.scope.netns("outside").unwrap();
    topology.wire.plug(&outside, "outside", OUTSIDE, &[]).unwrap();
    for host in &topology.hosts {
        // What Docker >= 28 adds for each container and for each bridge.
        for ip in [host.c(1).ip, serve_a_page(host)] {
            iptables(host, &format!("-t raw -A PREROUTING -d {ip} ! -i docker0 -j DROP"));
        }
        iptables(host, "-t filter -A DOCKER ! -i docker0 -o docker0 -j DROP");
        iptables(host, "-P FORWARD DROP");
    }
    assert_rules_stop_plain_routing(&topology);
    assert_docker_works(&topology, &outside);
    (0..2).for_each(|index| topology.start_overlayd(index).unwrap());
    assert_talk(&topology);
    for (here, there) in [(1, 2), (2, 1)] {
        let (here, there) = (topology.h(here), topology.h(there));
        assert!(ping(&here.ns, there.c(1).ip, 2).unwrap().clean(), "host to remote container");
        assert!(ping(&here.c(1).ns, there.bridge.ip, 2).unwrap().clean(), "container to remote host");
    }
    assert_docker_works(&topology, &outside);
    for host in &topology.hosts {
        let raw = iptables(host, "-t raw -S PREROUTING -v");
        assert!(raw.contains("-c 0 0 -j DROP"), "none came by the rule: {raw}");
    }
}

/// The rules are real: a plain route between the hosts does not get a packet past them. Their counters start anew.
fn assert_rules_stop_plain_routing(topology: &Topology) {
    let (h1, h2) = (topology.h(1), topology.h(2));
    let way = format!("{} via {}", h2.bridge.subnet(), h2.ip);
    h1.ns.ip(&format!("route add {way}")).unwrap();
    assert_eq!(ping(&h1.c(1).ns, h2.c(1).ip, 1).unwrap().received, 0);
    h1.ns.ip(&format!("route del {way}")).unwrap();
    let raw = iptables(h2, "-t raw -S PREROUTING -v");
    assert!(raw.contains("-c 1 84 -j DROP"), "{raw}");
    iptables(h2, "-t raw -Z PREROUTING");
}

/// Docker's `icc=false` drops what is forwarded from docker0 to docker0. The fast path never gets there, so what it
/// takes passes: any packet of up to the overlay's MTU; and the kernel tells senders of that MTU before it filters.
/// What the kernel itself would have to forward is told: see netfilter.rs.
#[test]
fn without_icc_containers_of_other_hosts_are_reached() {
    let isolated = |index, scope: &harness::Scope| {
        Box::new(docker::OnHost::new(index, scope).args(&["--icc=false"])) as _
    };
    let mut topology = Topology::builder().engine(isolated).up().unwrap();
    assert!(rules(topology.h(1)).contains("-i docker0 -o docker0 -j DROP"));
    topology.start_container(1, 2).unwrap();
    let h1 = topology.h(1);
    assert_eq!(ping(&h1.c(1).ns, h1.c(2).ip, 1).unwrap().received, 0, "on one host, Docker's word holds");
    assert_talk(&topology);
    assert!(ping(&topology.h(2).c(1).ns, h1.c(2).ip, 3).unwrap().clean());
}
