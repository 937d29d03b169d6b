//! What overlayd refuses: one line, the right exit code, nothing left behind, and traffic flows meanwhile.

#![expect(clippy::unwrap_used, reason = "set-up that fails is a test that fails")]

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use harness::{
    Topology, binaries, eventually,
    footprint::Footprint,
    process::{Cmd, Output},
    topology::{Builder, StoreKind},
    traffic::{Endpoint, Probe},
};

const SOON: Duration = Duration::from_secs(5);

/// Two hosts whose overlayd runs, and traffic between their containers.
struct Bed {
    topology: Topology,
    probe: Probe,
}

/// The directories that one refused start was given. Neither is there before.
struct Dirs {
    pins: PathBuf,
    state: PathBuf,
}

impl Bed {
    fn up(builder: Builder) -> Self {
        let topology = builder.up().unwrap();
        let [a, b] = [1, 2].map(|n| topology.h(n).c(1));
        let (a, b) = (Endpoint { ns: &a.ns, ip: a.ip }, Endpoint { ns: &b.ns, ip: b.ip });
        let probe = Probe::start(a, b, 200, Duration::from_secs(60)).unwrap();
        eventually("traffic flows", SOON, || probe.arrived() > 20).unwrap();
        Self { topology, probe }
    }

    fn dirs(&self, name: &str) -> Dirs {
        let pins = self.topology.scope.pin_dir(&format!("refused-{name}"));
        Dirs { pins, state: self.topology.scope.dir().join(format!("refused-{name}")) }
    }

    /// All that there is on host 1, the running daemon's things included.
    fn footprint(&self, dirs: &[&Dirs]) -> Footprint {
        let config = &self.topology.h(1).overlayd().config;
        let mut all = vec![config.pin_dir.as_path(), &config.state_dir];
        all.extend(dirs.iter().flat_map(|dirs| [dirs.pins.as_path(), &dirs.state]));
        Footprint::of(&self.topology, 1, &all).unwrap()
    }

    /// overlayd on host 1, beside the one that runs there, with directories of its own.
    fn overlayd(&self, dirs: &Dirs, args: &[&str]) -> Cmd {
        let cmd = self.topology.h(1).ns.cmd(binaries::find("overlayd").unwrap());
        cmd.args([
            format!("--pin-dir={}", dirs.pins.display()),
            format!("--state-dir={}", dirs.state.display()),
            format!("--socket={}.sock", dirs.state.display()),
        ])
        .args(args)
    }

    /// Starts it and expects this exit code and one line with all of `says`.
    fn refuses(&self, name: &str, args: &[&str], code: i32, says: &[&str]) {
        let dirs = self.dirs(name);
        self.refuses_cmd(&self.overlayd(&dirs, args), &[&dirs], code, says);
    }

    fn refuses_cmd(&self, cmd: &Cmd, dirs: &[&Dirs], code: i32, says: &[&str]) {
        let before = self.footprint(dirs);
        let output = cmd.run().unwrap();
        expect(&output, &cmd.line(), code, says);
        let changes = before.difference(&self.footprint(dirs));
        assert!(changes.is_empty(), "`{}` left:\n{}", cmd.line(), changes.join("\n"));
    }

    fn down(self) {
        let report = self.probe.finish().unwrap();
        assert!(report.clean(), "{report}");
    }
}

fn expect(output: &Output, line: &str, code: i32, says: &[&str]) {
    assert_eq!(output.code, Some(code), "`{line}`{}", output.text());
    assert_eq!((output.stdout.as_str(), output.stderr.lines().count()), ("", 1), "`{line}`{}", output.text());
    for part in says {
        assert!(output.stderr.contains(part), "no {part:?} in the answer of `{line}`{}", output.text());
    }
}

#[test]
fn interfaces_that_do_not_fit() {
    let bed = Bed::up(Topology::builder());
    let ns = &bed.topology.h(1).ns;
    for line in [
        "link add down0 type veth peer name down1",
        "link add bare0 type veth peer name bare1",
        "link set bare0 up",
        "link set bare1 up",
        "link add br1 type bridge",
    ] {
        ns.ip(line).unwrap();
    }
    let etcd = format!("--etcd-endpoints={}", bed.topology.etcd().endpoint());
    let refuses = |name: &str, iface: &str, bridge: &str, says: &[&str]| {
        let args = [format!("--iface={iface}"), format!("--bridge={bridge}"), etcd.clone()];
        bed.refuses(name, &args.each_ref().map(String::as_str), 1, says);
    };
    refuses("iface", "eth9", "docker0", &["eth9", "--iface", "eth0"]);
    refuses("down", "down0", "docker0", &["uplink down0 is down", "ip link set"]);
    refuses("bare", "bare0", "docker0", &["uplink bare0 has no IPv4 address", "--iface"]);
    refuses("bridge", "eth0", "docker9", &["docker9", "--bridge", "docker0"]);
    refuses("veth", "eth0", "bare0", &["bare0 is not a bridge but veth", "--bridge"]);
    refuses("bridge-down", "eth0", "br1", &["bridge br1 is down", "ip link set"]);
    ns.ip("link set br1 up").unwrap();
    refuses("bridge-bare", "eth0", "br1", &["bridge br1 has no IPv4 address"]);
    bed.down();
}

#[test]
fn a_subnet_that_a_peer_has() {
    let bed = Bed::up(Topology::builder());
    let ns = &bed.topology.h(1).ns;
    for line in ["link add br1 type bridge", "addr add 172.27.5.1/24 dev br1", "link set br1 up"] {
        ns.ip(line).unwrap();
    }
    let says = ["172.27.0.0/16", "172.16.199.27", "172.27.5.0/24", "br1", "overlaps"];
    let etcd = format!("--etcd-endpoints={}", bed.topology.etcd().endpoint());
    bed.refuses("etcd", &["--iface=eth0", "--bridge=br1", &etcd], 1, &says);
    let peers = bed.topology.scope.dir().join("peers.toml");
    fs::write(&peers, "[[peer]]\nsubnet = \"172.27.0.0/16\"\nhost = \"172.16.199.27\"\n").unwrap();
    let peers = format!("--peers={}", peers.display());
    bed.refuses("file", &["--iface=eth0", "--bridge=br1", &peers], 1, &says);
    bed.down();
}

#[test]
fn an_etcd_that_does_not_answer() {
    let bed = Bed::up(Topology::builder());
    // Nobody has this port, nobody has this address, and this one accepts and stays silent.
    let silent =
        bed.topology.wire.ns().unwrap().run(|| TcpListener::bind("172.16.199.1:0")).unwrap().unwrap();
    let silent = (silent.local_addr().unwrap().to_string(), silent);
    let places = ["172.16.199.1:1", "172.16.199.250:2379", silent.0.as_str()];
    let dirs = ["closed", "nobody", "silent"].map(|name| bed.dirs(name));
    let before = bed.footprint(&dirs.each_ref());
    thread::scope(|scope| {
        for (place, dirs) in places.iter().zip(&dirs) {
            let cmd = bed.overlayd(dirs, &["--iface=eth0", &format!("--etcd-endpoints=http://{place}")]);
            scope.spawn(move || {
                let start = Instant::now();
                expect(&cmd.run().unwrap(), &cmd.line(), 1, &[place, "--etcd-endpoints"]);
                assert!(start.elapsed() <= Duration::from_secs(10), "{place}: {:?}", start.elapsed());
            });
        }
    });
    let changes = before.difference(&bed.footprint(&dirs.each_ref()));
    assert!(changes.is_empty(), "{}", changes.join("\n"));
    bed.down();
}

#[test]
fn a_command_line_or_file_that_is_wrong() {
    let bed = Bed::up(Topology::builder().store(StoreKind::Peers));
    for (name, args, says) in [
        ("none", &[][..], &["--iface"][..]),
        ("unknown", &["--ifcae=eth0"], &["--ifcae", "--iface"]),
        ("port", &["--iface=eth0", "--port=70000"], &["--port", "70000"]),
        ("vni", &["--iface=eth0", "--vni=16777216"], &["--vni", "16777216", "16777215"]),
        ("ip", &["--iface=eth0", "--public-ip=127.0.0.1"], &["--public-ip", "127.0.0.1"]),
        (
            "both",
            &["--iface=eth0", "--peers=x", "--etcd-endpoints=http://x:1"],
            &["--peers", "--etcd-endpoints"],
        ),
        ("twice", &["--iface=eth0", "--bridge=docker0", "--bridge=docker0"], &["docker0", "twice"]),
        ("exit", &["--iface=eth0", "--on-exit=stay"], &["--on-exit", "stay", "keep", "detach"]),
        ("url", &["--iface=eth0", "--etcd-endpoints=ftp://x"], &["ftp://x", "http"]),
        ("prefix", &["--iface=eth0", "--etcd-prefix=net"], &["--etcd-prefix", "net"]),
        ("missing", &["--config=/nonesuch/overlayd.toml"], &["/nonesuch/overlayd.toml", "No such file"]),
        ("word", &["frobnicate"], &["frobnicate"]),
    ] {
        bed.refuses(name, args, 2, says);
    }
    let file = bed.topology.scope.dir().join("overlayd.toml");
    let config = format!("--config={}", file.display());
    for (text, says) in [
        ("iface = \"eth0\"\nvin = 7\n", &["line 2", "vin"][..]),
        ("iface = \"eth0\"\n\nport = \"x\"\n", &["line 3", "x"]),
        ("iface = \"eth0\nport = 1\n", &["line 1"]),
        ("iface = \"eth0\"\nvni = 0\n", &["vni", "0"]),
    ] {
        fs::write(&file, text).unwrap();
        bed.refuses("config", &[&config], 2, says);
    }
    let file = file.display().to_string();
    let dirs = bed.dirs("config");
    bed.refuses_cmd(&bed.overlayd(&dirs, &[&config]), &[&dirs], 2, &[&file]);
    bed.down();
}

#[test]
fn a_peers_file_that_is_wrong() {
    let bed = Bed::up(Topology::builder().store(StoreKind::Peers));
    let file = bed.topology.scope.dir().join("bad.toml");
    let peers = format!("--peers={}", file.display());
    let row = "[[peer]]\nsubnet = \"172.27.0.0/16\"\nhost = \"172.16.199.27\"\n";
    for (text, says) in [
        (format!("{row}hots = 1\n"), ["bad.toml:4", "hots"]),
        (format!("{row}vni = 0\n"), ["bad.toml:4", "vni"]),
        (format!("{row}{row}"), ["bad.toml:5", "172.27.0.0/16"]),
        (row.replace("172.27.0.0/16", "172.27.0.1/16"), ["bad.toml:2", "host bits"]),
    ] {
        fs::write(&file, text).unwrap();
        bed.refuses("peers", &["--iface=eth0", &peers], 1, &says);
    }
    fs::remove_file(&file).unwrap();
    bed.refuses("gone", &["--iface=eth0", &peers], 1, &["bad.toml", "--peers"]);
    bed.down();
}

#[test]
fn a_pin_directory_that_would_not_last() {
    let bed = Bed::up(Topology::builder().store(StoreKind::Peers));
    let config = bed.topology.h(1).overlayd().config.clone();
    let peers = format!("--peers={}", bed.topology.peers_file(0).display());
    let args = ["--iface=eth0", peers.as_str()];
    let dirs = Dirs { pins: bed.topology.scope.dir().join("pins"), ..bed.dirs("disk") };
    bed.refuses_cmd(&bed.overlayd(&dirs, &args), &[&dirs], 1, &["not on a bpffs", "--pin-dir"]);
    // Somebody's own directory stays.
    fs::create_dir(&dirs.pins).unwrap();
    bed.refuses_cmd(&bed.overlayd(&dirs, &args), &[&dirs], 1, &["not on a bpffs", "--pin-dir"]);

    // `ip netns exec` makes a mount namespace of its own, with a /sys of its own.
    let name = bed.topology.h(1).ns.name();
    let inside = |script: &str| Cmd::new("ip").args(["netns", "exec", &name, "sh", "-c", script]);
    let overlayd = binaries::find("overlayd").unwrap();
    let (dirs, iface) = (bed.dirs("private"), args.join(" "));
    let state = dirs.state.display();
    let own = format!("--pin-dir={} --state-dir={state} --socket={state}.sock", dirs.pins.display());
    // A second start of the daemon that runs, and a detach of it, by who knows no better.
    let same = format!("--pin-dir={} --state-dir={}", config.pin_dir.display(), config.state_dir.display());
    let mount = "mount -t bpf bpf /sys/fs/bpf &&";
    for script in [
        format!("exec {overlayd} {own} {iface}"),
        format!("{mount} exec {overlayd} {own} {iface}"),
        format!("exec {overlayd} {same} {iface}"),
        format!("exec {overlayd} detach {same}"),
        format!("{mount} exec {overlayd} detach {same}"),
    ] {
        bed.refuses_cmd(
            &inside(&script),
            &[&dirs],
            1,
            &["mount namespace", "nsenter --net", "ip netns exec"],
        );
    }
    bed.down();
}

#[test]
fn a_user_who_is_not_root() {
    let bed = Bed::up(Topology::builder().store(StoreKind::Peers));
    let config = bed.topology.h(1).overlayd().config.clone();
    let peers = format!("--peers={}", bed.topology.peers_file(0).display());
    let ns = &bed.topology.h(1).ns;
    // Copies, for the build's directory may be closed to others.
    let copy = |name: &str| {
        let to = bed.topology.scope.dir().join(name);
        fs::copy(binaries::find(name).unwrap(), &to).unwrap();
        let args = ["--reuid=65534", "--regid=65534", "--clear-groups", &to.display().to_string()];
        ns.cmd("setpriv").args(args)
    };
    let (overlayd, overlayctl) = (copy("overlayd"), copy("overlayctl"));
    let dirs = bed.dirs("nobody");
    let own = [format!("--pin-dir={}", dirs.pins.display()), format!("--state-dir={}", dirs.state.display())];
    let same = |what: &str, dir: &Path| format!("--{what}={}", dir.display());
    let same = [same("pin-dir", &config.pin_dir), same("state-dir", &config.state_dir)];
    let says = ["root", "sudo"];
    bed.refuses_cmd(&overlayd.clone().args(["--iface=eth0", &peers]).args(&own), &[&dirs], 1, &says);
    bed.refuses_cmd(&overlayd.clone().args(["--iface=eth0", &peers]).args(&same), &[&dirs], 1, &says);
    bed.refuses_cmd(&overlayd.arg("detach").args(&same), &[&dirs], 1, &says);
    for command in ["status", "routes"] {
        bed.refuses_cmd(&overlayctl.clone().arg(&same[0]).arg(command), &[&dirs], 1, &says);
    }
    bed.down();
}

#[test]
fn a_second_daemon() {
    let bed = Bed::up(Topology::builder().store(StoreKind::Peers));
    let config = bed.topology.h(1).overlayd().config.clone();
    let pid = bed.topology.h(1).overlayd().pid().unwrap().to_string();
    let peers = format!("--peers={}", bed.topology.peers_file(0).display());
    let args = ["--iface=eth0", peers.as_str()];
    let dirs = bed.dirs("second");
    // Its own pins but the other's state, and all the other's.
    for pins in [&dirs.pins, &config.pin_dir] {
        let both = Dirs { pins: pins.clone(), state: config.state_dir.clone() };
        bed.refuses_cmd(&bed.overlayd(&both, &args), &[&dirs], 1, &["already runs", &pid, "--state-dir"]);
    }
    // All its own, but the uplink has a data path.
    bed.refuses_cmd(&bed.overlayd(&dirs, &args), &[&dirs], 1, &["attached to eth0 already", "--pin-dir"]);
    // From another host's namespace the pins are not to be adopted.
    let foreign = bed.topology.h(2).ns.cmd(binaries::find("overlayd").unwrap());
    let foreign = foreign.args([
        format!("--pin-dir={}", config.pin_dir.display()),
        format!("--state-dir={}", dirs.state.display()),
        format!("--socket={}.sock", dirs.state.display()),
    ]);
    bed.refuses_cmd(&foreign.args(args), &[&dirs], 1, &["another network namespace", "--pin-dir"]);
    bed.down();
}

#[test]
fn overlayctl_where_nothing_runs() {
    let bed = Bed::up(Topology::builder().store(StoreKind::Peers));
    let dirs = bed.dirs("nothing");
    let ctl = || {
        let cmd = bed.topology.h(1).ns.cmd(binaries::find("overlayctl").unwrap());
        cmd.arg(format!("--pin-dir={}", dirs.pins.display()))
    };
    for command in ["status", "peers", "routes", "endpoints", "drops"] {
        bed.refuses_cmd(&ctl().arg(command), &[&dirs], 4, &["no overlayd", "--pin-dir"]);
    }
    bed.refuses_cmd(&ctl().arg("frob"), &[&dirs], 2, &["frob"]);
    bed.refuses_cmd(&ctl().args(["status", "-o", "yaml"]), &[&dirs], 2, &["yaml", "json"]);
    bed.down();
}
