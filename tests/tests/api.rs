//! The API socket, asked as its users do: with curl.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails, in its helpers too")]

use std::{fs, path::Path, time::Duration};

use harness::{Topology, eventually, overlayd::Config, process::Cmd, two_hosts};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const SOON: Duration = Duration::from_secs(5);

/// The status of an answer, and its body.
fn ask(socket: &Path, path: &str) -> (u16, String) {
    ask_with(socket, path, &[])
}

fn ask_with(socket: &Path, path: &str, more: &[&str]) -> (u16, String) {
    let said = Cmd::new("curl")
        .args(["-s", "--max-time", "5", "-w", "\n%{http_code}", "--unix-socket"])
        .arg(socket.display().to_string())
        .args(more)
        .arg(format!("http://localhost{path}"))
        .run()
        .unwrap();
    let (body, code) = said.stdout.rsplit_once('\n').unwrap();
    (code.parse().unwrap(), body.to_owned())
}

fn socket(topology: &Topology) -> std::path::PathBuf {
    topology.h(1).overlayd().config.socket()
}

fn signal(topology: &Topology, signal: Signal) {
    let pid = topology.h(1).overlayd().pid().unwrap();
    kill(Pid::from_raw(pid as i32), signal).unwrap();
}

#[test]
fn health_and_readiness_are_told() {
    let mut topology = two_hosts().unwrap();
    let socket = socket(&topology);
    assert_eq!(ask(&socket, "/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(ask(&socket, "/readyz"), (200, "ready\n".to_owned()));
    let (code, status) = ask(&socket, "/status");
    assert_eq!(code, 200);
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!((status["state"].as_str(), status["routes"].as_u64()), (Some("ok"), Some(1)));
    assert_eq!(ask(&socket, "/elsewhere").0, 404);
    assert_eq!(ask_with(&socket, "/healthz", &["-X", "POST"]).0, 405);

    // Without etcd packets go on: that is ready, and says so.
    topology.etcd().pause().unwrap();
    eventually("it says that it is degraded", Duration::from_secs(15), || {
        let (code, body) = ask(&socket, "/readyz");
        code == 200 && body.contains("degraded: ")
    })
    .unwrap();
    topology.etcd().resume().unwrap();
    eventually("it is well", Duration::from_secs(15), || ask(&socket, "/readyz").1 == "ready\n").unwrap();

    // Without its uplink a host is no part of the network.
    topology.h(1).ns.ip("link set eth0 name lan0").unwrap();
    topology.h(1).ns.ip("addr flush dev lan0").unwrap();
    eventually("it is not ready", SOON, || ask(&socket, "/readyz").0 == 503).unwrap();
    assert_eq!(ask(&socket, "/healthz").0, 200);
    topology.h_mut(1).overlayd_mut().stop().unwrap();
    assert!(!socket.exists());
}

#[test]
fn a_daemon_that_is_killed_leaves_a_socket_that_the_next_one_replaces() {
    let mut topology = two_hosts().unwrap();
    let socket = socket(&topology);
    topology.h_mut(1).overlayd_mut().kill9().unwrap();
    assert!(socket.exists());
    topology.h_mut(1).overlayd_mut().start_again().unwrap();
    assert_eq!(ask(&socket, "/readyz").0, 200);
    // Reading the configuration again is a start in place.
    signal(&topology, Signal::SIGHUP);
    eventually("it is ready again", SOON, || ask(&socket, "/readyz").0 == 200).unwrap();
    topology.h_mut(1).overlayd_mut().kill9().unwrap();
    assert_eq!(topology.h_mut(1).overlayd_mut().detach().unwrap().code, Some(0));
    assert!(!socket.exists());
}

#[test]
fn a_socket_that_answers_is_not_taken_and_nothing_is_left_of_the_try() {
    let topology = two_hosts().unwrap();
    let taken = socket(&topology);
    let h2 = topology.h(2);
    let dir = topology.scope.dir().join("second");
    let config = Config {
        state_dir: dir.clone(),
        pin_dir: topology.scope.pin_dir("second"),
        ..h2.overlayd().config.clone()
    };
    let mut arguments = config.arguments();
    arguments.retain(|argument| !argument.starts_with("--socket="));
    arguments.push(format!("--socket={}", taken.display()));
    let overlayd = harness::binaries::find("overlayd").unwrap();
    let said = Cmd::new(overlayd).netns(h2.ns.path()).args(arguments).run().unwrap();
    assert_eq!(said.code, Some(1), "{}", said.text());
    assert!(
        said.stderr.contains("another overlayd answers") && said.stderr.contains("--socket"),
        "{}",
        said.text()
    );
    assert!(!fs::exists(&dir).unwrap());
    assert_eq!(ask(&taken, "/readyz").0, 200);
}

#[test]
fn one_that_hangs_is_found_out() {
    let topology = two_hosts().unwrap();
    signal(&topology, Signal::SIGSTOP);
    // Nobody answers, which is an answer.
    assert_eq!(ask_with(&socket(&topology), "/healthz", &["--max-time", "1"]).0, 0);
    signal(&topology, Signal::SIGCONT);
    eventually("it is well", SOON, || ask(&socket(&topology), "/healthz").0 == 200).unwrap();
}
