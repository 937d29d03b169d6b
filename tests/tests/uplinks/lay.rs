//! Uplinks of each kind, in place of the veth that every host has on the wire.

use std::{fs, path::Path};

use harness::{Topology, eventually, host::Host, netns::Netns, process::Cmd, wire::address_of};

use crate::{
    SOON,
    kind::{Kind, load},
    tun::Pump,
};

/// The VLAN of the uplinks.
pub(crate) const VLAN: u16 = 7;

/// What the uplink was made on: the veth on the wire, under another name.
pub(crate) const UNDER: &str = "under0";

/// The legs of a bond, and where each goes on the wire of host `h1`.
pub(crate) const LEGS: [(&str, &str); 2] = [("leg0", "h1"), ("leg1", "h1b")];

/// RFC 5737's, for what is below an uplink that has the hosts' addresses.
const BELOW: [&str; 2] = ["198.51.100.17", "198.51.100.27"];

/// What has to live as long as the uplinks.
pub(crate) type Keep = Option<Pump>;

/// Gives both hosts an `eth0` of this kind, with the address that it has on the wire, up.
pub(crate) fn lay(kind: Kind, topology: &Topology) -> Keep {
    let keep = match kind {
        Kind::Vlan => each(topology, vlan),
        Kind::Bond => each(topology, |host, _| bond(topology, host)),
        Kind::WireGuard => wireguard(topology),
        Kind::Tun => return Some(tun(topology)),
        Kind::Nic(driver) => nics(driver, topology),
    };
    for (index, host) in topology.hosts.iter().enumerate() {
        address(&host.ns, index);
    }
    keep
}

fn each(topology: &Topology, lay: impl Fn(&Host, usize)) -> Keep {
    topology.hosts.iter().enumerate().for_each(|(index, host)| lay(host, index));
    None
}

fn address(ns: &Netns, index: usize) {
    ns.ip_batch(&[format!("addr add {}/24 dev eth0", address_of(index)), "link set eth0 up".to_owned()])
        .unwrap();
}

/// The veth gives up its name and its address.
fn rename(ns: &Netns, name: &str) {
    ns.ip_batch(&[
        "link set eth0 down".to_owned(),
        "addr flush dev eth0".to_owned(),
        format!("link set eth0 name {name}"),
    ])
    .unwrap();
}

fn vlan(host: &Host, _: usize) {
    rename(&host.ns, UNDER);
    host.ns
        .ip_batch(&[
            format!("link set {UNDER} up"),
            format!("link add link {UNDER} name eth0 type vlan id {VLAN}"),
        ])
        .unwrap();
}

fn bond(topology: &Topology, host: &Host) {
    let (ns, wire) = (&host.ns, topology.wire.ns().unwrap());
    let (there, here) = (format!("{}b", host.name), ns.path().display());
    rename(ns, LEGS[0].0);
    wire.ip(&format!("link add name {there} type veth peer name {} netns {here}", LEGS[1].0)).unwrap();
    wire.ip(&format!("link set {there} master br0 up")).unwrap();
    ns.ip("link add name eth0 type bond mode active-backup miimon 20").unwrap();
    for (leg, _) in LEGS {
        ns.ip(&format!("link set {leg} master eth0")).unwrap();
    }
}

/// Each host takes from its peer whatever source a packet has, and sends it all: it is for overlayd to tell who is who.
fn wireguard(topology: &Topology) -> Keep {
    let keys: Vec<(String, String)> = topology.hosts.iter().map(|_| key_pair()).collect();
    for (index, host) in topology.hosts.iter().enumerate() {
        let (ns, peer) = (&host.ns, 1 - index);
        rename(ns, UNDER);
        ns.ip_batch(&[
            format!("addr add {}/24 dev {UNDER}", BELOW[index]),
            format!("link set {UNDER} up"),
            "link add name eth0 type wireguard".to_owned(),
        ])
        .unwrap();
        let file = topology.scope.dir().join(format!("{}.key", host.name));
        fs::write(&file, &keys[index].0).unwrap();
        let (public, endpoint) = (keys[peer].1.clone(), format!("{}:51820", BELOW[peer]));
        ns.cmd("wg")
            .args(["set", "eth0", "listen-port", "51820", "private-key", &file.display().to_string()])
            .args(["peer", &public, "allowed-ips", "0.0.0.0/0", "endpoint", &endpoint])
            .check()
            .unwrap();
    }
    None
}

/// A private key and its public one.
fn key_pair() -> (String, String) {
    let private = Cmd::new("wg").arg("genkey").check().unwrap().stdout;
    let public = Cmd::new("wg").arg("pubkey").stdin(private.clone()).check().unwrap().stdout;
    (private, public.trim().to_owned())
}

fn tun(topology: &Topology) -> Pump {
    load("tun");
    for host in &topology.hosts {
        host.ns.ip("link del eth0").unwrap();
    }
    let pump = Pump::between([&topology.h(1).ns, &topology.h(2).ns]);
    for (index, host) in topology.hosts.iter().enumerate() {
        address(&host.ns, index);
    }
    pump
}

/// Two spare network cards of a driver go into the hosts. They come back by themselves when the hosts go.
fn nics(driver: &str, topology: &Topology) -> Keep {
    load(driver);
    let mut found = Vec::new();
    let both = || {
        found = interfaces(driver);
        found.len() >= 2
    };
    eventually(&format!("there are two {driver} interfaces"), SOON, both).unwrap();
    for (host, nic) in topology.hosts.iter().zip(found) {
        host.ns.ip("link del eth0").unwrap();
        let target = host.ns.path().display().to_string();
        Cmd::new("ip").args(["link", "set", &nic, "netns", &target, "name", "eth0"]).check().unwrap();
    }
    None
}

/// The interfaces of a driver in this process's own namespace, which is the one that /sys shows.
fn interfaces(driver: &str) -> Vec<String> {
    let class = fs::read_dir("/sys/class/net").unwrap();
    let names = class.filter_map(|entry| entry.unwrap().file_name().into_string().ok());
    let is_its = |name: &String| {
        let link = fs::read_link(Path::new("/sys/class/net").join(name).join("device/driver"));
        link.is_ok_and(|link| link.ends_with(driver))
    };
    let mut found: Vec<String> = names.filter(is_its).collect();
    found.sort();
    found
}
