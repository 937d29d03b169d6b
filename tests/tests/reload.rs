//! SIGHUP: the configuration is read again, by the same process, and no packet is lost; the service manager is told.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails, in its helpers too")]

use std::{
    fs,
    os::unix::{net::UnixDatagram, process::ExitStatusExt as _},
    path::Path,
    time::Duration,
};

use harness::{
    Topology, eventually,
    host::Host,
    topology::StoreKind,
    traffic::{Endpoint, Probe},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const SOON: Duration = Duration::from_secs(10);

fn takes(host: &Host) -> String {
    let Ok(status) = host.overlayd().ctl(&["status", "-o", "json"]) else { return String::new() };
    status["takes"].to_string()
}

fn hang_up(host: &Host) {
    let pid = host.overlayd().pid().unwrap();
    kill(Pid::from_raw(pid as i32), Signal::SIGHUP).unwrap();
}

fn log(host: &Host) -> String {
    fs::read_to_string(&host.overlayd().config.log).unwrap()
}

/// All that was said since the last time.
fn told(manager: &UnixDatagram) -> String {
    let (mut text, mut bytes) = (String::new(), [0; 4096]);
    while let Ok(len) = manager.recv(&mut bytes) {
        text.push_str(&String::from_utf8_lossy(&bytes[..len]));
        text.push('\n');
    }
    text
}

fn listen(path: &Path) -> UnixDatagram {
    let manager = UnixDatagram::bind(path).unwrap();
    manager.set_nonblocking(true).unwrap();
    manager
}

/// Who is told once more while it starts again is not there to hear it yet: it is to be heard all the same.
#[test]
fn told_again_and_again_it_ends_as_it_was_told_last() {
    let mut topology = Topology::builder().without_overlayd().up().unwrap();
    let file = topology.scope.dir().join("overlayd.toml");
    fs::write(&file, "accept = [\"gre\"]\n").unwrap();
    let mut config = topology.overlayd_config(0);
    config.args.push(format!("--config={}", file.display()));
    let host = &mut topology.hosts[0];
    host.overlayd = Some(harness::overlayd::Overlayd::start(&host.ns, config).unwrap());
    topology.start_overlayd(1).unwrap();
    topology.await_routes().unwrap();
    let before = topology.h(1).overlayd().pid();
    let ends = [1, 2].map(|n| Endpoint { ns: &topology.h(n).c(1).ns, ip: topology.h(n).c(1).ip });
    let probe = Probe::start(ends[0], ends[1], 1000, Duration::from_secs(60)).unwrap();
    for n in 0..150 {
        hang_up(topology.h(1));
        // Seven milliseconds, and a few more each time: at every moment of a start.
        let until = probe.arrived() + 14 + n % 10;
        eventually("a moment is over", SOON, || probe.arrived() >= until).unwrap();
    }
    fs::write(&file, "accept = [\"geneve\"]\n").unwrap();
    hang_up(topology.h(1));
    let in_force = || takes(topology.h(1)).contains("geneve");
    eventually("what was told last is in force", SOON, in_force).unwrap();
    let report = probe.finish().unwrap();
    assert!(report.clean(), "{report}");
    let daemon = topology.h_mut(1).overlayd_mut();
    assert!(daemon.running() && daemon.pid() == before, "{}", daemon.log_tail(20));
}

#[test]
fn told_to_start_again_and_to_end_it_ends() {
    let mut topology = Topology::builder().store(StoreKind::Peers).up().unwrap();
    for _ in 0..6 {
        hang_up(topology.h(1));
        let daemon = topology.h_mut(1).overlayd_mut();
        // As systemd takes it: by itself, or of the signal.
        let status = daemon.stop().unwrap();
        let ended = status.success() || status.signal() == Some(Signal::SIGTERM as i32);
        assert!(ended, "{status}\n{}", daemon.log_tail(20));
        daemon.start_again().unwrap();
    }
}

#[test]
fn the_configuration_is_read_again_and_nothing_is_lost() {
    let mut topology = Topology::builder().without_overlayd().up().unwrap();
    let file = topology.scope.dir().join("overlayd.toml");
    let socket = topology.scope.dir().join("notify");
    let manager = listen(&socket);
    fs::write(&file, "accept = [\"gre\"]\n").unwrap();
    for index in 0..2 {
        let mut config = topology.overlayd_config(index);
        if index == 0 {
            config.args.push(format!("--config={}", file.display()));
            let variables =
                [("NOTIFY_SOCKET", socket.display().to_string()), ("WATCHDOG_USEC", "4000000".into())];
            config.env.extend(variables.map(|(name, value)| (name.to_owned(), value)));
        }
        let host = &mut topology.hosts[index];
        host.overlayd = Some(harness::overlayd::Overlayd::start(&host.ns, config).unwrap());
    }
    topology.await_routes().unwrap();
    let h1 = topology.h(1);
    assert!(takes(h1).contains("gre") && !takes(h1).contains("geneve"), "{}", takes(h1));
    assert!(told(&manager).contains("READY=1"));
    let ends = [1, 2].map(|n| Endpoint { ns: &topology.h(n).c(1).ns, ip: topology.h(n).c(1).ip });
    let probe = Probe::start(ends[0], ends[1], 1000, Duration::from_secs(60)).unwrap();

    // What cannot be read changes nothing.
    fs::write(&file, "accept = [\"carrier pigeon\"]\n").unwrap();
    hang_up(h1);
    eventually("the mistake is told", SOON, || log(h1).contains("the configuration is not read again"))
        .unwrap();
    assert!(log(h1).contains("carrier pigeon"));

    fs::write(&file, "accept = [\"geneve\"]\n").unwrap();
    let before = h1.overlayd().pid();
    hang_up(h1);
    eventually("the new configuration is in force", SOON, || takes(h1).contains("geneve")).unwrap();
    let mut said = String::new();
    eventually("the manager is told", SOON, || {
        said.push_str(&told(&manager));
        said.contains("RELOADING=1") && said.matches("READY=1").count() == 1 && said.contains("WATCHDOG=1")
    })
    .unwrap();
    assert_eq!(h1.overlayd().pid(), before);
    let report = probe.finish().unwrap();
    assert!(report.clean(), "{report}");
    topology.h_mut(1).overlayd.as_mut().unwrap().stop().unwrap();
    assert!(told(&manager).contains("STOPPING=1"));
}
