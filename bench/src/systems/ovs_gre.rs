//! Open vSwitch with a GRE tunnel between bridges that docker0 is joined to, as the how-tos have it; but in userspace.
//!
//! The userspace datapath is not the one in the kernel that people run. It stands here because it runs on any kernel, and no
//! claim is made over it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use harness::{
    Scope,
    process::{Background, Cmd},
    traffic::tap::Like,
    wait::eventually,
};
use serde_json::Value;

use super::{
    Side, System, Wire,
    bed::{Bed, Host, UPLINK},
    compared::Compared,
    cpu,
    host_gw::BRIDGE,
    proof::{Counter, DataPath},
    versions,
};

/// The bridge that has the underlay's address, the one that docker0 is joined to, and the tunnel's port on it.
const UNDERLAY: &str = "br-phy";
const OVERLAY: &str = "ovs-br0";
const TUNNEL: &str = "gre1";

/// 1500 less the outer Ethernet, IPv4 and GRE headers of 14 + 20 + 4. With Docker's own 1500, larger packets are lost
/// without a word, and TCP moves nothing.
const MTU: &str = "--mtu=1462";

/// IP's number for GRE.
const GRE: u8 = 47;

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

struct OvsGre {
    words: String,
    /// The switches before their databases.
    switches: Vec<Switch>,
}

struct Switch {
    _vswitchd: Background,
    _ovsdb: Background,
    control: Control,
}

/// Where a host's daemons listen.
struct Control {
    dir: PathBuf,
}

pub(super) fn missing() -> Option<String> {
    let found =
        |program: &str| Cmd::new(program).arg("--version").run().is_ok_and(|said| said.code == Some(0));
    let absent = ["ovs-vswitchd", "ovsdb-server", "ovs-vsctl"].into_iter().find(|program| !found(program));
    absent.map(|program| format!("{program} is not installed: run `cargo xtask setup`"))
}

pub(super) fn up(name: &'static str, scope: Scope, wire: Wire) -> Result<Box<dyn System>> {
    let mut bed = Bed::lay(scope, wire)?;
    bed.start_engines(&[MTU])?;
    let sides = bed.start_containers(None)?;
    let start = |(host, other): (&Host, &Host)| {
        Switch::start(host, other, &bed.scope.dir()).with_context(|| format!("Open vSwitch on {}", host.name))
    };
    let switches: Vec<Switch> = bed.pairs().into_iter().map(start).collect::<Result<_>>()?;
    let words = format!(
        "{}, userspace datapath (not the kernel's, so that no claim is made over it), one GRE tunnel; {}, containers on \
         {BRIDGE} at MTU 1462",
        versions::line("ovs-vswitchd")?,
        versions::docker(&bed)?
    );
    Compared::ready(name, bed, sides, OvsGre { words, switches })
}

impl Switch {
    fn start(host: &Host, other: &Host, scratch: &Path) -> Result<Self> {
        let control = Control { dir: scratch.join(format!("{}-ovs", host.name)) };
        std::fs::create_dir_all(&control.dir)?;
        let database = control.file("conf.db");
        Cmd::new("ovsdb-tool").args(["create", &database, SCHEMA]).check()?;
        let socket = control.file("db.sock");
        let ovsdb =
            control.daemon(host, "ovsdb-server", &[&database, &format!("--remote=punix:{socket}")])?;
        eventually("ovsdb-server listens", super::SOON, || Path::new(&socket).exists())?;
        control.vsctl("--no-wait init")?;
        let vswitchd = control.daemon(host, "ovs-vswitchd", &[&format!("unix:{socket}")])?;
        control.join(host, other)?;
        // Its packet threads start with the first bridge.
        cpu::pin(vswitchd.pid().cast_signed(), host.cpu)?;
        Ok(Self { _vswitchd: vswitchd, _ovsdb: ovsdb, control })
    }
}

impl Control {
    fn file(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    fn daemon(&self, host: &Host, program: &str, args: &[&str]) -> Result<Background> {
        let control = self.file(&format!("{program}.ctl"));
        let cpu = host.cpu.to_string();
        let cmd = host.ns.cmd("taskset").args(["-c", &cpu, program]).args(args);
        let cmd = cmd.args(["--no-chdir", "-vconsole:warn", "-vsyslog:off", &format!("--unixctl={control}")]);
        cmd.env("OVS_RUNDIR", &self.dir.display().to_string()).spawn(&self.dir.join(format!("{program}.log")))
    }

    /// Runs `ovs-vsctl`, its arguments separated by blanks.
    fn vsctl(&self, args: &str) -> Result<String> {
        let database = format!("--db=unix:{}", self.file("db.sock"));
        let cmd = Cmd::new("ovs-vsctl").args([&database, "--timeout=15"]).args(args.split_whitespace());
        Ok(cmd.check()?.stdout)
    }

    /// The userspace datapath builds the outer headers itself, so it must own the uplink, and have the host's address on
    /// a bridge of its own. The rest is as in the how-tos.
    fn join(&self, host: &Host, other: &Host) -> Result<()> {
        let links: Value = serde_json::from_str(&host.ns.ip(&format!("-j link show {UPLINK}"))?.stdout)?;
        let mac = links[0]["address"].as_str().with_context(|| format!("{UPLINK} has no address"))?;
        self.vsctl(&format!(
            "add-br {UNDERLAY} -- set bridge {UNDERLAY} datapath_type=netdev fail-mode=standalone other_config:hwaddr={mac}"
        ))?;
        host.ns.ip(&format!("addr flush dev {UPLINK}"))?;
        self.vsctl(&format!("add-port {UNDERLAY} {UPLINK}"))?;
        host.ns.ip_batch(&[
            format!("link set {UNDERLAY} up"),
            format!("addr add {}/24 dev {UNDERLAY}", host.ip),
        ])?;
        self.vsctl(&format!("add-br {OVERLAY} -- set bridge {OVERLAY} datapath_type=netdev"))?;
        self.vsctl(&format!(
            "add-port {OVERLAY} {TUNNEL} -- set interface {TUNNEL} type=gre options:remote_ip={}",
            other.ip
        ))?;
        host.ns.ip_batch(&[
            format!("link set {OVERLAY} master {BRIDGE} up"),
            format!("route add {} dev {BRIDGE}", other.subnet),
        ])?;
        // docker0 is where containers of both hosts are, and the gateway of neither to the other.
        for device in ["all", BRIDGE] {
            host.ns.sysctl(&format!("ipv4/conf/{device}/send_redirects"), "0")?;
        }
        Ok(())
    }

    /// What the tunnel's port has counted, received and sent.
    fn tunnelled(&self) -> Result<[u64; 2]> {
        let cmd = Cmd::new("ovs-ofctl").args(["dump-ports", OVERLAY, TUNNEL]);
        let said = cmd.env("OVS_RUNDIR", &self.dir.display().to_string()).check()?.stdout;
        // `rx pkts=1, bytes=2, …` on a line, and the same with `tx` on the next.
        let counts: Vec<u64> =
            said.split("pkts=").skip(1).filter_map(|rest| rest.split(',').next()?.parse().ok()).collect();
        <[u64; 2]>::try_from(counts).map_err(|_| anyhow!("{TUNNEL} has no counters: {said}"))
    }
}

impl DataPath for OvsGre {
    fn describe(&self) -> String {
        self.words.clone()
    }

    fn outer(&self, _from: &Side, _to: &Side) -> Result<Like> {
        Ok(Like::Protocol(GRE))
    }

    fn counters(&self, host: &Host, _other: &Host) -> Result<Vec<Counter>> {
        let [received, sent] = self.switches[host.cpu].control.tunnelled()?;
        let tunnel = |way, packets| Counter::carries(format!("{TUNNEL} {way}"), packets);
        Ok(vec![tunnel("received", received), tunnel("sent", sent)])
    }

    /// The switch takes frames from the uplink as packet sockets do.
    fn merges(&self) -> bool {
        false
    }
}
