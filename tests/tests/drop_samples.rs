//! `overlayctl drops --follow`: which packets are dropped, told while somebody listens and only then.

#![expect(clippy::unwrap_used, reason = "set-up that fails is a test that fails")]

use std::{
    fs,
    net::{Ipv4Addr, UdpSocket},
    path::PathBuf,
    time::{Duration, Instant},
};

use harness::{
    Topology, binaries, eventually,
    process::{Background, Cmd},
    topology::StoreKind,
    traffic::{Endpoint, Probe, ping},
    wire,
};
use nix::sys::signal::Signal;
use overlay_user::datapath::{map::Maps, pin::Pins};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(5);
/// An address that no container has.
const FORGED: Ipv4Addr = Ipv4Addr::new(172, 99, 0, 9);

struct Bed {
    topology: Topology,
    pins: Pins,
}

struct Listener {
    process: Background,
    log: PathBuf,
}

impl Bed {
    fn up() -> Self {
        let topology = Topology::builder().store(StoreKind::Peers).up().unwrap();
        let pins = Pins::new(&topology.h(1).overlayd().config.pin_dir);
        let container = topology.h(1).c(1);
        container.ns.ip(&format!("addr add {FORGED}/32 dev lo")).unwrap();
        // The gateway does not answer who asks from a forged address.
        assert!(ping(&container.ns, topology.h(1).bridge.ip, 1).unwrap().clean());
        Self { topology, pins }
    }

    fn follow(&self) -> Cmd {
        let cmd = self.topology.h(1).ns.cmd(binaries::find("overlayctl").unwrap());
        cmd.arg(format!("--pin-dir={}", self.pins.root().display())).args(["drops", "--follow", "-o", "json"])
    }

    fn listen(&self, name: &str) -> Listener {
        let log = self.topology.scope.dir().join(format!("{name}.samples"));
        Listener { process: self.follow().spawn(&log).unwrap(), log }
    }

    /// A tunnel packet from the wire, which is nobody's peer.
    fn send_from_a_stranger(&self, vni: u32, packets: usize) {
        let (host, container) = (self.topology.h(1).ip, self.topology.h(1).c(1).ip);
        let send = || {
            let socket = UdpSocket::bind((wire::ADDRESS, 0)).unwrap();
            for _ in 0..packets {
                socket.send_to(&vxlan(vni, container), (host, 4789)).unwrap();
            }
        };
        self.topology.wire.ns().unwrap().run(send).unwrap();
    }

    /// A packet to a peer's container, from an address that is not the sender's.
    fn send_forged(&self) {
        let (ns, to) = (&self.topology.h(1).c(1).ns, self.topology.h(2).c(1).ip);
        ns.run(|| UdpSocket::bind((FORGED, 7001)).unwrap().send_to(b"forged", (to, 7002)).unwrap()).unwrap();
    }

    /// Empties the ring buffer; how many samples were in it.
    fn drain(&self) -> usize {
        let mut samples = Maps::samples(&self.pins).unwrap();
        std::iter::from_fn(|| samples.next().map(drop)).count()
    }

    fn dropped(&self, reason: &str) -> u64 {
        let drops = self.topology.h(1).overlayd().ctl(&["drops", "--reason", reason, "-o", "json"]).unwrap();
        assert_eq!(drops.as_array().unwrap().len(), 1, "{drops}");
        drops[0]["packets"].as_u64().unwrap()
    }
}

impl Listener {
    fn rows(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.log).unwrap();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let row = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        whole.lines().map(row).collect()
    }

    /// Does something again and again until a row of this reason comes.
    fn hears(&self, reason: &str, provoke: impl Fn()) -> Value {
        let of = |row: &Value| row["reason"] == reason;
        eventually(&format!("{reason} is sampled"), SOON, || {
            provoke();
            self.rows().iter().any(of)
        })
        .unwrap();
        self.rows().into_iter().find(of).unwrap()
    }
}

/// The payload of UDP: VXLAN and an empty IPv4 packet.
fn vxlan(vni: u32, to: Ipv4Addr) -> Vec<u8> {
    let mut bytes = vec![8, 0, 0, 0];
    bytes.extend((vni << 8).to_be_bytes());
    bytes.extend([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 7, 8, 0]);
    bytes.extend([0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0, 172, 27, 0, 9]);
    bytes.extend(to.octets());
    bytes
}

#[test]
fn drops_are_told_with_their_addresses() {
    let mut bed = Bed::up();
    let [a, b] = [1, 2].map(|n| bed.topology.h(n).c(1));
    let [from, to] = [a, b].map(|container| Endpoint { ns: &container.ns, ip: container.ip });
    let probe = Probe::start(from, to, 100, Duration::from_secs(60)).unwrap();
    let (port, peer) = (a.port.clone(), b.ip.to_string());

    // Counted, but sampled for nobody.
    bed.send_from_a_stranger(111, 50);
    bed.send_forged();
    eventually("the drops are counted", SOON, || bed.dropped("unknown_peer") >= 50).unwrap();
    assert_eq!(bed.drain(), 0, "samples for nobody");

    // The daemon has no part in it.
    bed.topology.h_mut(1).overlayd_mut().kill9();
    let mut listener = bed.listen("first");
    let row = listener.hears("unknown_peer", || bed.send_from_a_stranger(222, 1));
    assert_eq!((&row["program"], &row["interface"]), (&"uplink_ingress".into(), &"eth0".into()), "{row}");
    assert_eq!(row["tunnel"]["src"], wire::ADDRESS.to_string(), "{row}");
    assert_eq!(row["tunnel"]["dst"], bed.topology.h(1).ip.to_string(), "{row}");
    assert_eq!((&row["tunnel"]["port"], &row["tunnel"]["vni"]), (&4789.into(), &222.into()), "{row}");
    assert_eq!(row["ip"]["src"], "172.27.0.9", "{row}");
    assert_eq!(row["ip"]["dst"], bed.topology.h(1).c(1).ip.to_string(), "{row}");
    let row = listener.hears("source_spoofed", || bed.send_forged());
    assert_eq!((&row["program"], &row["interface"]), (&"workload_egress".into(), &port.into()), "{row}");
    assert_eq!((&row["ip"]["src"], &row["ip"]["dst"]), (&FORGED.to_string().into(), &peer.into()), "{row}");
    assert_eq!((&row["ip"]["src_port"], &row["ip"]["dst_port"]), (&7001.into(), &7002.into()), "{row}");

    // Only one can read a ring buffer.
    let second = bed.follow().run().unwrap();
    assert_eq!((second.code, second.stdout.as_str()), (Some(1), ""), "{}", second.text());
    assert!(second.stderr.lines().count() == 1 && second.stderr.contains("only one"), "{}", second.text());

    assert_eq!(listener.process.terminate(SOON).unwrap().code(), Some(0));
    assert!(listener.rows().iter().all(|row| row["tunnel"]["vni"] != 111));
    let report = probe.finish().unwrap();
    assert!(report.clean(), "{report}");
}

#[test]
fn a_flood_of_drops_is_sampled_and_no_more() {
    let bed = Bed::up();
    let listener = bed.listen("flood");
    listener.hears("unknown_peer", || bed.send_from_a_stranger(1, 1));
    let (before, counted, start) = (listener.rows().len(), bed.dropped("unknown_peer"), Instant::now());
    bed.send_from_a_stranger(2, 5_000);
    eventually("all are counted", SOON, || bed.dropped("unknown_peer") >= counted + 5_000).unwrap();
    // The other reason is heard all the same.
    listener.hears("source_spoofed", || bed.send_forged());
    let rows = listener.rows();
    let flood = rows.iter().skip(before).filter(|row| row["reason"] == "unknown_peer").count() as u128;
    // One in 10 ms on each CPU.
    let cpus = std::thread::available_parallelism().unwrap().get() as u128;
    let most = (start.elapsed().as_millis() / 10 + 1) * cpus;
    assert!(flood >= 1 && flood <= most, "{flood} samples in {:?}, {most} at most", start.elapsed());
}

#[test]
fn a_listener_that_is_killed_is_sampled_for_no_longer() {
    let bed = Bed::up();
    let mut listener = bed.listen("killed");
    listener.hears("unknown_peer", || bed.send_from_a_stranger(1, 1));
    listener.process.signal(Signal::SIGKILL).unwrap();
    eventually("sampling ends by itself", Duration::from_secs(3), || {
        bed.drain();
        bed.send_from_a_stranger(2, 5);
        std::thread::sleep(Duration::from_millis(50));
        bed.drain() == 0
    })
    .unwrap();
    // The next one listens as if nothing had been, and only to what comes.
    let next = bed.listen("next");
    let row = next.hears("unknown_peer", || bed.send_from_a_stranger(3, 1));
    assert_eq!(row["tunnel"]["vni"], 3, "{row}");
    assert!(!listener.process.alive());
}

#[test]
fn it_ends_when_nobody_reads_and_when_overlayd_is_detached() {
    let mut bed = Bed::up();
    let script =
        format!("{} | true; echo ${{PIPESTATUS[0]}}", bed.follow().line().split("] ").last().unwrap());
    let piped = bed.topology.h(1).ns.cmd("bash").args(["-c", &script]).run().unwrap();
    assert_eq!((piped.stdout.trim(), piped.stderr.as_str()), ("0", ""), "{}", piped.text());
    let wrong = bed.follow().args(["--reason", "nonesuch"]).run().unwrap();
    assert_eq!(wrong.code, Some(2), "{}", wrong.text());
    assert!(wrong.stderr.contains("unknown_peer"), "{}", wrong.text());

    let mut listener = bed.listen("detached");
    listener.hears("unknown_peer", || bed.send_from_a_stranger(1, 1));
    assert_eq!(bed.topology.h_mut(1).overlayd_mut().detach().unwrap().code, Some(0));
    eventually("it ends", SOON, || !listener.process.alive()).unwrap();
    let said = fs::read_to_string(&listener.log).unwrap();
    assert!(said.contains("overlayctl: overlayd has been detached"), "{said}");
}
