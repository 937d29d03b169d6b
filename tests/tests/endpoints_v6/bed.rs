//! Two hosts whose docker0 has an IPv6 subnet, and what they know of it.

use std::{
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use harness::{
    Netns, Topology, eventually,
    host::{BRIDGE, Host},
};
use serde_json::Value;

pub(crate) const SOON: Duration = Duration::from_secs(5);

/// The first host's docker0, and what every container's address begins with.
pub(crate) const GATEWAY: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x17, 0, 0, 0, 0, 0, 1);

/// Container `number` of the first host.
pub(crate) fn address(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0x17, 0, 0, 0, 0, 1, number)
}

/// Two hosts; the first one's docker0 and containers have IPv6 addresses. Its link-local one is what the kernel
/// asks from.
pub(crate) fn topology(containers: u32) -> Topology {
    let topology = Topology::builder().containers(containers).up().unwrap();
    let host = topology.h(1);
    for interface in ["all", "default"] {
        host.ns.sysctl(&format!("ipv6/conf/{interface}/forwarding"), "1").unwrap();
    }
    host.ns.ip(&format!("address add {GATEWAY}/64 dev {BRIDGE} nodad")).unwrap();
    for number in 1..=containers {
        let address = address(u16::try_from(number).unwrap());
        host.c(number).ns.ip(&format!("address add {address}/64 dev eth0 nodad")).unwrap();
    }
    eventually("the gateway is known", SOON, || source(host, GATEWAY).as_deref() == Some("gateway")).unwrap();
    let settled = || {
        let shown = host.ns.ip(&format!("-6 address show dev {BRIDGE} scope link -tentative"));
        shown.is_ok_and(|shown| shown.stdout.contains("fe80:"))
    };
    eventually("docker0's link-local address is settled", SOON, settled).unwrap();
    topology
}

/// Who says where an address lives.
pub(crate) fn source(host: &Host, ip: impl Into<IpAddr>) -> Option<String> {
    host.overlayd().endpoint(ip).unwrap().map(|endpoint| endpoint.source)
}

/// Whether an address is known to live behind a container's port.
pub(crate) fn is_at(host: &Host, ip: Ipv6Addr, container: u32) -> bool {
    let port = host.port_index(container).unwrap();
    host.overlayd().endpoint(ip).unwrap().is_some_and(|endpoint| endpoint.ifindex == port)
}

/// Pings once; whether it was answered.
pub(crate) fn ping(ns: &Netns, to: Ipv6Addr) -> bool {
    let ping = ns.cmd("ping").args(["-6", "-n", "-c", "1", "-W", "1", &to.to_string()]).run();
    ping.unwrap().code == Some(0)
}

/// The MAC address and the state of the kernel's entry for an address on docker0.
pub(crate) fn neighbour(host: &Host, ip: Ipv6Addr) -> (String, String) {
    let shown = host.ns.ip(&format!("-6 -j neighbour show {ip} dev {BRIDGE}")).unwrap().stdout;
    let shown: Value = serde_json::from_str(&shown).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (text(&shown[0]["lladdr"]), text(&shown[0]["state"][0]))
}
