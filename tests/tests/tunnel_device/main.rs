//! The tunnel device: what it is, what it survives, what it lets through, and who else may have its port.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails, in its helpers too")]

mod aggregate;
mod forge;
mod forged;
mod gro;
mod life;
mod taken;

use std::time::Duration;

use harness::{
    Topology, eventually,
    host::Host,
    maps,
    traffic::{Endpoint, Probe},
};
use overlay_user::datapath::{map::Maps, pin::Pins};
use serde_json::Value;

/// What the kernel tells the daemon about is repaired at once; what it does not, at the next resync.
const SOON: Duration = Duration::from_secs(5);
const RESYNC: Duration = Duration::from_secs(15);

/// The link as `ip -d` tells it, where there is one.
fn link(host: &Host, name: &str) -> Option<Value> {
    let all = host.ns.exec(&["ip", "-d", "-j", "link", "show"]).unwrap();
    let all: Vec<Value> = serde_json::from_str(&all.stdout).unwrap();
    all.into_iter().find(|link| link["ifname"] == name)
}

fn index(host: &Host, name: &str) -> Option<u64> {
    link(host, name).and_then(|link| link["ifindex"].as_u64())
}

fn is_up(host: &Host, name: &str) -> bool {
    link(host, name).is_some_and(|link| link["flags"].as_array().unwrap().contains(&"UP".into()))
}

/// The VNIs that a device takes, as `bridge` tells them.
fn vnis(host: &Host, name: &str) -> Vec<u64> {
    let all = host.ns.exec(&["bridge", "-j", "vni", "show"]).unwrap();
    let all: Vec<Value> = serde_json::from_str(&all.stdout).unwrap_or_default();
    let device = all.into_iter().find(|device| device["ifname"] == name);
    let entries = device.map(|device| device["vnis"].as_array().unwrap().clone()).unwrap_or_default();
    entries
        .iter()
        .flat_map(|entry| {
            let start = entry["vni"].as_u64().unwrap();
            start..=entry["vniEnd"].as_u64().unwrap_or(start)
        })
        .collect()
}

/// What the programs know of a port: ifindex and flags.
fn entry(host: &Host, port: u32) -> Option<(u64, u64)> {
    let entry = maps::lookup(&host.overlayd().config.pin_dir, "TUNNEL_DEVICES", port).ok()?;
    Some((entry["ifindex"].as_u64()?, entry["flags"].as_u64()?))
}

/// The programs on the ingress of a device, with their links.
fn guards(host: &Host, name: &str) -> Vec<harness::tcx::Attachment> {
    let all = harness::tcx::attachments_in(&host.ns).unwrap();
    all.into_iter().filter(|attachment| attachment.ifname == name).collect()
}

fn notes(host: &Host) -> Vec<String> {
    Maps::open(&Pins::new(&host.overlayd().config.pin_dir)).unwrap().notes().unwrap()
}

/// State and trouble, as `overlayctl status` tells them.
fn status(host: &Host) -> (String, String) {
    let status = host.overlayd().ctl(&["status", "-o", "json"]).unwrap();
    let text = |key: &str| status[key].as_str().unwrap_or_default().to_owned();
    (text("state"), text("message"))
}

/// True where everything about `ovl0` is as it should be.
fn is_whole(host: &Host) -> bool {
    let index = index(host, "ovl0");
    is_up(host, "ovl0")
        && vnis(host, "ovl0") == [1]
        && guards(host, "ovl0").len() == 1
        && entry(host, 4789) == index.map(|index| (index, 0))
}

fn probe(topology: &Topology, seconds: u64) -> Probe {
    let ends = [1, 2].map(|n| topology.h(n).c(1)).map(|c| Endpoint { ns: &c.ns, ip: c.ip });
    let probe = Probe::start(ends[0], ends[1], 500, Duration::from_secs(seconds)).unwrap();
    eventually("traffic flows", SOON, || probe.arrived() > 100).unwrap();
    probe
}
