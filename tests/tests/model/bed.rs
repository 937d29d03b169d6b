//! A host with the daemon, a peer that does not change, and etcd.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    os::unix::process::ExitStatusExt as _,
    thread::sleep,
    time::Duration,
};

use harness::{
    Topology, Versions, eventually,
    host::{BRIDGE, Host},
    kernel_vtep::{KernelVtep, Remote},
    tcx,
    topology::ETCD_PREFIX,
    traffic::{Endpoint, Probe, ping},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use overlay_common::vni::VniKey;
use overlay_user::datapath::{map::Maps, pin::Pins};

use crate::{
    drift,
    expected::{Model, Row},
    step::{NAMES, Step},
};

/// What the keys say is in force within this time, once etcd and the daemon are there.
const RIGHT: Duration = Duration::from_secs(5);

/// What somebody did by hand is undone within this time.
const MENDED: Duration = Duration::from_secs(30);

/// Tunnels that no route leads to any more are cleared later.
const SOON: Duration = Duration::from_secs(15);

/// The peer that does not change: a host with the kernel's vxlan device.
const UNCHANGED: &str = "172.27.0.0/16";

/// How etcd is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Etcd {
    Serves,
    Frozen,
    Killed,
}

pub(crate) struct Bed {
    topology: Topology,
    etcd: Etcd,
    runs: bool,
    model: Model,
    /// What was done by hand takes longer.
    drifted: bool,
}

impl Bed {
    pub(crate) fn up() -> Self {
        // Most keys go at once between two sequences, and are to be gone.
        let builder = Topology::builder().versions(Versions::V4, true).overlayd_args(&["--prune-delay=0"]);
        let mut topology = builder.without_overlayd().up().unwrap();
        let vtep = KernelVtep::create(topology.h(2), 1, 4789).unwrap();
        let value = format!(
            r#"{{"PublicIP":"{}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"{}"}}}}"#,
            topology.h(2).ip,
            vtep.mac
        );
        topology.etcd().put(&key("172.27.0.0-16"), &value).unwrap();
        topology.start_overlayd(0).unwrap();
        let h1 = topology.h(1);
        let status = h1.overlayd().ctl(&["status", "-o", "json"]).unwrap();
        let (subnet, mac) = (h1.bridge.subnet(), status["vtep_mac"].as_str().unwrap());
        vtep.add_peer(topology.h(2), &Remote { subnet: &subnet, ip: h1.ip.into(), mac }).unwrap();
        let there = topology.h(2).c(1).ip;
        let answers = || ping(&topology.h(1).c(1).ns, there, 1).is_ok_and(|ping| ping.clean());
        eventually("the other host answers", SOON, answers).unwrap();
        Self { topology, etcd: Etcd::Serves, runs: true, model: Model::default(), drifted: false }
    }

    /// One sequence, from no keys on.
    pub(crate) fn run(&mut self, steps: &[Step]) {
        let ends =
            [1, 2].map(|n| Endpoint { ns: &self.topology.h(n).c(1).ns, ip: self.topology.h(n).c(1).ip });
        let probe = Probe::start(ends[0], ends[1], 1000, Duration::from_secs(300)).unwrap();
        for step in steps {
            self.take(*step);
        }
        self.settle();
        self.leaves_nothing();
        let report = probe.finish().unwrap();
        assert!(report.clean(), "the peer that did not change: {report}");
        self.clear();
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Put(name, value) => {
                self.put(NAMES[name], &value.json());
                self.model.put(name, value);
            }
            Step::Spoil(name, how) => {
                self.put(NAMES[name], how);
                self.model.spoil(name);
            }
            Step::Delete(name) => {
                self.delete(NAMES[name]);
                self.model.delete(name);
            }
            Step::PutOdd(name, value) => self.put(name, &value.json()),
            Step::DeleteOdd(name) => self.delete(name),
            Step::Compact => {
                self.serve();
                // What is compacted already cannot be once more.
                self.topology.etcd().put(&format!("{ETCD_PREFIX}/overlayd/now"), "").unwrap();
                self.topology.etcd().compact().unwrap();
                self.model.disturb();
            }
            Step::FreezeEtcd | Step::ThawEtcd | Step::KillEtcd | Step::StartEtcd => self.befall_etcd(step),
            Step::KillDaemon | Step::StopDaemon | Step::StartDaemon | Step::HangUp => {
                self.befall_daemon(step);
            }
            Step::Drift(drift) => {
                drift::apply(self.topology.h(1), drift);
                self.drifted = true;
            }
            Step::Wait(time) => sleep(time),
            Step::Settle => self.settle(),
        }
    }

    fn put(&mut self, name: &str, value: &str) {
        self.serve();
        self.topology.etcd().put(&key(name), value).unwrap();
    }

    fn delete(&mut self, name: &str) {
        self.serve();
        self.topology.etcd().del(&key(name)).unwrap();
    }

    fn befall_etcd(&mut self, step: Step) {
        match (step, self.etcd) {
            (Step::FreezeEtcd, Etcd::Serves) => {
                self.topology.etcd().pause().unwrap();
                self.etcd = Etcd::Frozen;
                self.model.disturb();
            }
            (Step::KillEtcd, Etcd::Serves | Etcd::Frozen) => {
                self.topology.etcd_mut().kill().unwrap();
                self.etcd = Etcd::Killed;
                self.model.disturb();
            }
            (Step::ThawEtcd, Etcd::Frozen) | (Step::StartEtcd, Etcd::Killed) => self.serve(),
            _ => {}
        }
    }

    /// etcd serves from now on.
    fn serve(&mut self) {
        match self.etcd {
            Etcd::Serves => return,
            Etcd::Frozen => self.topology.etcd().resume().unwrap(),
            Etcd::Killed => self.topology.etcd_mut().start_again().unwrap(),
        }
        let healthy = || self.topology.etcd().etcdctl(&["endpoint", "health"]).is_ok();
        eventually("etcd serves", SOON, healthy).unwrap();
        self.etcd = Etcd::Serves;
    }

    fn befall_daemon(&mut self, step: Step) {
        if !self.runs {
            if matches!(step, Step::StartDaemon) {
                self.start_daemon();
            }
            return;
        }
        let daemon = self.topology.h_mut(1).overlayd_mut();
        match step {
            Step::KillDaemon => {
                daemon.kill9().unwrap();
            }
            Step::StopDaemon => {
                let status = daemon.stop().unwrap();
                // One that is starting does not know what to end yet.
                let ended = status.success() || status.signal() == Some(Signal::SIGTERM as i32);
                assert!(ended, "{status}\n{}", daemon.log_tail(20));
            }
            Step::HangUp => {
                let pid = Pid::from_raw(daemon.pid().unwrap().cast_signed());
                kill(pid, Signal::SIGHUP).unwrap();
            }
            _ => return,
        }
        self.runs = matches!(step, Step::HangUp);
        self.model.disturb();
    }

    fn start_daemon(&mut self) {
        if self.runs {
            return;
        }
        // With one that is silent it takes longer than the harness waits.
        if self.etcd == Etcd::Frozen {
            self.serve();
        }
        self.topology.h_mut(1).overlayd_mut().start_again().unwrap();
        self.runs = true;
        self.model.begin();
    }

    /// What is away comes back, and what the keys say comes to be in force.
    fn settle(&mut self) {
        self.serve();
        self.start_daemon();
        let within = if self.drifted { MENDED } else { RIGHT };
        if let Err(error) = eventually("it is as the keys say", within, || self.trouble().is_none()) {
            let log = self.topology.h(1).overlayd().log_tail(40);
            panic!("{error}: {}\n{log}", self.trouble().unwrap_or_default());
        }
        assert!(self.topology.h_mut(1).overlayd_mut().running(), "the daemon has ended");
        self.drifted = false;
    }

    fn leaves_nothing(&self) {
        let leftover = || leftover(self.topology.h(1)).is_none();
        if let Err(error) = eventually("nothing is left over", SOON, leftover) {
            panic!("{error}: {}", self::leftover(self.topology.h(1)).unwrap_or_default());
        }
    }

    /// What is not as it should be.
    fn trouble(&self) -> Option<String> {
        let host = self.topology.h(1);
        let rows = match rows(host) {
            Ok(rows) => rows,
            Err(error) => return Some(format!("{error:#}")),
        };
        let mut allowed = self.model.allowed();
        let ip = self.topology.h(2).ip.to_string();
        let unchanged = Row { vni: 1, peer: ip, encap: "vxlan".to_owned() };
        allowed.insert(UNCHANGED.to_owned(), BTreeSet::from([Some(unchanged)]));
        for (subnet, allowed) in &allowed {
            let row = rows.get(subnet).cloned();
            if !allowed.contains(&row) {
                return Some(format!("{subnet} leads to {row:?}, which should be of {allowed:?}"));
            }
        }
        if let Some(stray) = rows.keys().find(|subnet| !allowed.contains_key(*subnet)) {
            return Some(format!("{stray} is nobody's subnet"));
        }
        let routed: BTreeSet<String> = rows.keys().cloned().collect();
        let kernel = kernel_routes(host);
        if kernel != routed {
            return Some(format!("the kernel routes {kernel:?}, the programs {routed:?}"));
        }
        let gateways: BTreeSet<String> =
            rows.keys().filter_map(|subnet| Some(subnet.split_once('/')?.0.to_owned())).collect();
        let neighbours = neighbours(host);
        (neighbours != gateways)
            .then(|| format!("the kernel's neighbours are {neighbours:?} for {gateways:?}"))
    }

    /// Every key goes, and the daemon follows: it is as it was at first.
    fn clear(&mut self) {
        self.serve();
        // All but the hosts' own, which are between.
        for (first, end) in [("", "172."), ("173.", "~")] {
            self.topology.etcd().etcdctl(&["del", "--", &key(first), &key(end)]).unwrap();
        }
        (0..NAMES.len()).for_each(|name| self.model.delete(name));
        self.settle();
        self.model = Model::default();
    }
}

fn key(name: &str) -> String {
    format!("{ETCD_PREFIX}/subnets/{name}")
}

/// What `overlayctl routes` says.
fn rows(host: &Host) -> anyhow::Result<BTreeMap<String, Row>> {
    let said = host.overlayd().ctl(&["routes", "-o", "json"])?;
    let text = |row: &serde_json::Value, field: &str| row[field].as_str().unwrap().to_owned();
    let row = |row: &serde_json::Value| {
        assert_eq!(row["source"], "etcd", "{row}");
        let vni = row["vni"].as_u64().unwrap().try_into().unwrap();
        (text(row, "prefix"), Row { vni, peer: text(row, "peer"), encap: text(row, "encap") })
    };
    Ok(said.as_array().unwrap().iter().map(row).collect())
}

/// The subnets that the kernel routes for the daemon.
fn kernel_routes(host: &Host) -> BTreeSet<String> {
    let said =
        ["-4", "-6"].map(|version| host.ns.ip(&format!("{version} route show proto 79")).unwrap().stdout);
    let prefixes = said.iter().flat_map(|said| said.lines());
    prefixes.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

/// The neighbours by which it does.
fn neighbours(host: &Host) -> BTreeSet<String> {
    let said = host.ns.ip(&format!("neigh show dev {BRIDGE} nud permanent")).unwrap().stdout;
    said.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

/// What is in the maps or pinned, and is for nothing.
fn leftover(host: &Host) -> Option<String> {
    let pins = Pins::new(&host.overlayd().config.pin_dir);
    let maps = Maps::open(&pins).unwrap();
    let routes = maps.routes().unwrap();
    let tunnels: BTreeMap<_, _> = maps.tunnels().unwrap().into_iter().collect();
    let used: BTreeSet<u32> = routes.iter().map(|(_, route)| route.tunnel).collect();
    if !tunnels.keys().eq(&used) {
        return Some(format!("tunnels {:?}, of which {used:?} are used", tunnels.keys()));
    }
    let reached: BTreeSet<IpAddr> = tunnels.values().map(|tunnel| tunnel.remote.into()).collect();
    let peers = maps.peers().unwrap();
    let hosts = peers.iter().filter(|(key, _)| key.vni == VniKey::NONE);
    let believed: BTreeSet<IpAddr> = hosts.map(|(key, _)| key.ip.into()).collect();
    if believed != reached {
        return Some(format!("peers {believed:?}, of which {reached:?} are reached"));
    }
    let ids: BTreeSet<u32> = routes.iter().map(|(_, route)| route.peer).collect();
    let known: BTreeSet<u32> = peers.iter().map(|(_, peer)| peer.id).collect();
    if ids != known {
        return Some(format!("peers' ids {known:?}, of which routes name {ids:?}"));
    }
    let pinned: BTreeSet<u32> =
        pins.pinned_links().unwrap().into_iter().map(|(ifindex, _)| ifindex).collect();
    let attached = tcx::attachments_in(&host.ns).unwrap();
    let devices: BTreeSet<u32> = host.ns.run(tcx::devices).unwrap().unwrap().into_keys().collect();
    if pins.pinned_links().unwrap().len() != attached.len() || !pinned.is_subset(&devices) {
        return Some(format!("links {:?} are pinned, {attached:?} attached", pins.pinned_links()));
    }
    None
}
