//! Open vSwitch on a host as the how-tos have it: a bridge with a tunnel's port that docker0 is joined to. Its datapath is
//! in the kernel, where that has one, or in userspace, which runs on any.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{
    Netns,
    process::{Background, Cmd},
    wait::eventually,
};

/// The bridge that has the underlay's address, and the one that docker0 is joined to.
const UNDERLAY: &str = "br-phy";
const OVERLAY: &str = "ovs-br0";

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

/// How long what takes no time may take, on a machine with much to do.
const SOON: Duration = Duration::from_secs(10);

/// Where a bridge of the switch forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datapath {
    /// In the kernel's module.
    Kernel,
    /// In the switch's own process, which needs the uplink for itself: [`Switch::take_uplink`].
    Userspace,
}

/// The daemons of one host. Dropping it ends them.
#[derive(Debug)]
pub struct Switch {
    /// The switch before its database.
    vswitchd: Background,
    _ovsdb: Background,
    dir: PathBuf,
}

/// The programs that are not installed.
#[must_use]
pub fn missing() -> Option<&'static str> {
    let found =
        |program: &str| Cmd::new(program).arg("--version").run().is_ok_and(|said| said.code == Some(0));
    ["ovs-vswitchd", "ovsdb-server", "ovs-vsctl"].into_iter().find(|program| !found(program))
}

impl Switch {
    /// Starts the daemons in a namespace, with all their files in a directory of their own; where a CPU is given, on that
    /// alone, their threads to come too.
    ///
    /// # Errors
    /// One of them does not start; the error holds the end of its log.
    pub fn start(ns: &Netns, dir: PathBuf, cpu: Option<usize>) -> Result<Self> {
        std::fs::create_dir_all(&dir)?;
        let file = |name: &str| dir.join(name).display().to_string();
        let (database, socket) = (file("conf.db"), file("db.sock"));
        Cmd::new("ovsdb-tool").args(["create", &database, SCHEMA]).check()?;
        let daemon = |program: &str, args: &[&str]| {
            let cmd = match cpu {
                Some(cpu) => ns.cmd("taskset").args(["-c", &cpu.to_string(), program]),
                None => ns.cmd(program),
            };
            let cmd = cmd.args(args).args(["--no-chdir", "-vconsole:warn", "-vsyslog:off"]);
            let cmd = cmd.arg(format!("--unixctl={}", file(&format!("{program}.ctl"))));
            cmd.env("OVS_RUNDIR", &dir.display().to_string()).spawn(&dir.join(format!("{program}.log")))
        };
        let ovsdb = daemon("ovsdb-server", &[&database, &format!("--remote=punix:{socket}")])?;
        eventually("ovsdb-server listens", SOON, || Path::new(&socket).exists())?;
        vsctl(&dir, "--no-wait init")?;
        let vswitchd = daemon("ovs-vswitchd", &[&format!("unix:{socket}")])?;
        Ok(Self { vswitchd, _ovsdb: ovsdb, dir })
    }

    /// The switch's process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.vswitchd.pid()
    }

    /// Runs `ovs-vsctl`, its arguments separated by blanks.
    ///
    /// # Errors
    /// It failed.
    pub fn vsctl(&self, args: &str) -> Result<String> {
        vsctl(&self.dir, args)
    }

    /// Gives the switch the host's uplink, as the datapath in userspace needs it: it builds the outer headers itself, and
    /// looks for the way among the addresses of its own bridges.
    ///
    /// # Errors
    /// There is no such uplink, or the switch refuses it.
    pub fn take_uplink(&self, ns: &Netns, uplink: &str, address: Ipv4Addr) -> Result<()> {
        let links: Value = serde_json::from_str(&ns.ip(&format!("-j link show {uplink}"))?.stdout)?;
        let mac = links[0]["address"].as_str().with_context(|| format!("{uplink} has no address"))?;
        self.vsctl(&format!(
            "add-br {UNDERLAY} -- set bridge {UNDERLAY} datapath_type=netdev fail-mode=standalone other_config:hwaddr={mac}"
        ))?;
        ns.ip(&format!("addr flush dev {uplink}"))?;
        self.vsctl(&format!("add-port {UNDERLAY} {uplink}"))?;
        ns.ip_batch(&[format!("link set {UNDERLAY} up"), format!("addr add {address}/24 dev {UNDERLAY}")])
    }

    /// Joins a bridge of the host to one of the switch, as the how-tos do.
    ///
    /// # Errors
    /// There is no such bridge.
    pub fn join(&self, ns: &Netns, bridge: &str, datapath: Datapath) -> Result<()> {
        let kind = if datapath == Datapath::Kernel { "system" } else { "netdev" };
        self.vsctl(&format!("add-br {OVERLAY} -- set bridge {OVERLAY} datapath_type={kind}"))?;
        ns.ip_batch(&[format!("link set {OVERLAY} master {bridge} up")])
    }

    /// Adds a tunnel to a peer to that bridge: its name, `ovs-vsctl`'s type of interface, and further options, as in
    /// `options:key=7`.
    ///
    /// # Errors
    /// The switch refuses it.
    pub fn add_tunnel(&self, name: &str, kind: &str, remote: Ipv4Addr, options: &str) -> Result<()> {
        self.vsctl(&format!(
            "add-port {OVERLAY} {name} -- set interface {name} type={kind} options:remote_ip={remote} {options}"
        ))?;
        Ok(())
    }

    /// Takes a tunnel away.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn remove_tunnel(&self, name: &str) -> Result<()> {
        self.vsctl(&format!("del-port {OVERLAY} {name}")).map(drop)
    }

    /// What a port has counted, as `ovs-ofctl` says it.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn port(&self, name: &str) -> Result<String> {
        let cmd = Cmd::new("ovs-ofctl").args(["dump-ports", OVERLAY, name]);
        Ok(cmd.env("OVS_RUNDIR", &self.dir.display().to_string()).check()?.stdout)
    }
}

fn vsctl(dir: &Path, args: &str) -> Result<String> {
    let database = format!("--db=unix:{}", dir.join("db.sock").display());
    let cmd = Cmd::new("ovs-vsctl").args([&database, "--timeout=15"]).args(args.split_whitespace());
    Ok(cmd.check()?.stdout)
}
