//! Every system comes up on both wires, takes the path that it claims, and leaves nothing behind.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

use std::{fs, path::Path, time::Duration};

use harness::{
    Netns, Scope, eventually, netns,
    scope::{Remains, remove},
    wire::address_of,
};
use libtest_mimic::{Arguments, Trial};
use overlay_bench::systems::{self, System, Wire};

fn main() {
    let arguments = Arguments::from_args();
    let all = Wire::ALL.iter().flat_map(|wire| systems::all().iter().map(|name| (*name, *wire)));
    let mut trials: Vec<Trial> = all
        .filter(|(name, wire)| concerns_this_run(name, *wire))
        .map(|(name, wire)| trial(name, wire))
        .collect();
    let more: [(&str, fn()); 2] = [
        ("a_way_around_the_tunnel_is_told", a_way_around_the_tunnel_is_told),
        ("a_frame_that_no_cable_takes_is_told", a_frame_that_no_cable_takes_is_told),
    ];
    trials.extend(more.map(|(name, test)| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
    }));
    libtest_mimic::run(&arguments, trials).exit();
}

/// A system that comes up on the one wire does so on the other, which asks less of it: both are for the long run.
fn concerns_this_run(name: &str, wire: Wire) -> bool {
    wire == Wire::Mtu || name == "overlayd-auto" || std::env::var_os("OVERLAYD_TEST_FULL").is_some()
}

/// What its output has in brackets is why it is skipped.
fn trial(name: &'static str, wire: Wire) -> Trial {
    let trial = Trial::test(format!("{wire}::{name}"), move || {
        comes_up_checks_and_goes(name, wire);
        Ok(())
    });
    match systems::missing(name).unwrap() {
        Some(why) => trial.with_kind(format!("skipped: {why}")).with_ignored_flag(true),
        None => trial,
    }
}

fn comes_up_checks_and_goes(name: &str, wire: Wire) {
    let scope = Scope::unique().unwrap();
    let scope_name = scope.name().to_owned();
    let system = systems::up_in(scope, name, wire).unwrap_or_else(|e| panic!("{e:#}"));
    assert_eq!((system.name(), system.client().cpu, system.server().cpu), (name, 0, 1));
    println!("{name}, {wire}: {}", system.describe());
    system.check().unwrap_or_else(|e| panic!("a second time: {e:#}"));
    assert_each_side_has_its_cpu(&scope_name);
    assert_silence_is_told(&*system);
    drop(system);
    assert!(Remains::of(&scope_name).is_empty(), "{:?}", Remains::of(&scope_name));
    let left = || processes_naming(&format!("overlayd.{scope_name}/"));
    let gone = eventually("its processes are gone", Duration::from_secs(5), || left().is_empty());
    gone.unwrap_or_else(|e| panic!("{e}: {:?}", left()));
    assert!(remove(&scope_name, Duration::ZERO).is_empty());
}

/// Whoever does not answer took no path at all.
fn assert_silence_is_told(system: &dyn System) {
    let client = Netns::borrow(&system.client().netns);
    client.ip(&format!("route add blackhole {}", system.server().address)).unwrap();
    assert_told(system, system.name());
}

/// The check fails, and its error has this in it.
fn assert_told(system: &dyn System, what: &str) {
    let error = format!("{:#}", system.check().expect_err("the path is another one"));
    assert!(error.contains(what), "no `{what}` in: {error}");
}

fn a_way_around_the_tunnel_is_told() {
    let scope = Scope::unique().unwrap();
    let [h1, h2] = ["h1", "h2"].map(|host| Netns::borrow(Path::new(netns::DIR).join(scope.netns_name(host))));
    let system = systems::up_in(scope, "kernel-vxlan", Wire::Veth).unwrap();
    for (host, subnet, gateway) in
        [(h1, "172.27.0.0/16", address_of(1)), (h2, "172.17.0.0/16", address_of(0))]
    {
        host.ip(&format!("route replace {subnet} via {gateway}")).unwrap();
        host.exec(&["iptables", "-w", "-I", "DOCKER-USER", "-i", "eth0", "-j", "ACCEPT"]).unwrap();
    }
    assert_told(&*system, "flannel.1");
}

fn a_frame_that_no_cable_takes_is_told() {
    let system = systems::up("bare", Wire::Mtu).unwrap();
    let client = Netns::borrow(&system.client().netns);
    client.exec(&["ethtool", "-K", "eth0", "gso", "on", "tso", "on"]).unwrap();
    assert_told(&*system, "frames of more than 1514 bytes");
    client.exec(&["ethtool", "-K", "eth0", "tso", "off"]).unwrap();
    system.check().unwrap();
    client.exec(&["ethtool", "-K", "eth0", "gro", "off"]).unwrap();
    assert_told(&*system, "GRO merged nothing");
}

/// Every daemon of a system may run on one CPU, that of its host.
fn assert_each_side_has_its_cpu(scope: &str) {
    for (pid, arguments) in processes_naming(&format!("overlayd.{scope}/")) {
        let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { continue };
        let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim();
        assert!(matches!(allowed, "0" | "1"), "{arguments} may run on {allowed}");
    }
}

/// The ids and arguments of those processes which have this text among their arguments.
fn processes_naming(text: &str) -> Vec<(String, String)> {
    let pids = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned());
    let arguments = |pid: String| {
        let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        Some((pid, String::from_utf8_lossy(&bytes).replace('\0', " ")))
    };
    pids.filter_map(arguments).filter(|(_, arguments)| arguments.contains(text)).collect()
}
