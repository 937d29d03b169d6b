//! A real Docker engine whose docker0 has both versions: containers of two such hosts talk, and Docker's rules, which are
//! the user's as well, are nobody's business.

use harness::{
    Netns, Topology, Versions,
    docker::OnHost,
    traffic::{ping, transfer},
};

use crate::bed::{self, VERSIONS, end, no_drops};

/// Rules of both versions without comments and counters.
fn rules(ns: &Netns) -> Vec<String> {
    let save = |program: &str| ns.exec(&[program]).unwrap().stdout;
    let text = [save("iptables-save"), save("ip6tables-save")].concat();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    // `:FORWARD DROP [12:1004]`
    lines.map(|line| line.split(" [").next().unwrap_or_default().to_owned()).collect()
}

fn all_rules(topology: &Topology) -> Vec<Vec<String>> {
    topology.hosts.iter().map(|host| rules(&host.ns)).collect()
}

#[test]
fn containers_of_dual_stack_engines_talk_and_the_rules_stay() {
    talk_and_the_rules_stay(&[]);
}

/// The engine has rules for IPv6 as it has them for IPv4, which became its default in version 27.
#[test]
fn containers_of_engines_with_ip6tables_talk_and_the_rules_stay() {
    talk_and_the_rules_stay(&["--experimental", "--ip6tables"]);
}

fn talk_and_the_rules_stay(args: &'static [&'static str]) {
    let builder = bed::builder(Versions::Both).without_overlayd();
    let builder = builder.engine(move |index, scope| Box::new(OnHost::new(index, scope).args(args)));
    let mut topology = builder.up().unwrap();
    // A firewall as an operator may have it.
    for host in &topology.hosts {
        for rule in [
            ["-P", "FORWARD", "DROP"].as_slice(),
            &["-A", "INPUT", "-p", "tcp", "--dport", "9", "-j", "DROP"],
        ] {
            host.ns.cmd("ip6tables").arg("-w").args(rule).check().unwrap();
        }
    }
    let before = all_rules(&topology);
    let masquerades =
        |rules: &Vec<String>| rules.iter().any(|r| r.contains("fd00:") && r.ends_with("MASQUERADE"));
    assert!(before.iter().all(|rules| masquerades(rules) != args.is_empty()), "{before:?}");
    assert!(before.iter().all(|rules| rules.iter().any(|rule| rule == ":FORWARD DROP")), "{before:?}");
    for host in 0..2 {
        topology.start_overlayd(host).unwrap();
    }
    topology.await_routes().unwrap();
    bed::settle(&topology);
    everybody_talks(&topology);
    no_drops(&topology);
    assert_eq!(all_rules(&topology), before, "while overlayd runs");
    for host in 1..=2 {
        topology.h_mut(host).overlayd_mut().stop().unwrap();
        assert_eq!(topology.h_mut(host).overlayd_mut().detach().unwrap().code, Some(0));
    }
    assert_eq!(all_rules(&topology), before, "after overlayd");
}

fn everybody_talks(topology: &Topology) {
    for (here, there) in [(topology.h(1), topology.h(2)), (topology.h(2), topology.h(1))] {
        for version in VERSIONS {
            let (from, to) = (&here.c(1).ns, version.ip(there.c(1)));
            for ping in [
                ping(from, to, 3).unwrap(),
                ping(from, version.gateway(there), 3).unwrap(),
                ping(&here.ns, to, 3).unwrap(),
            ] {
                assert!(ping.clean(), "{version:?} from {}: {}", here.name, ping.text);
            }
            transfer(end(here, 1, version), end(there, 1, version), 1 << 20).unwrap();
        }
    }
}
