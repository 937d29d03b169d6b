//! Everything one wants to see when a test has failed.

use std::fmt::Write as _;

use crate::{Netns, Topology, host::Host};

/// How much of each daemon's log is shown.
const LINES: usize = 30;

/// The state of all hosts and containers, as text.
#[must_use]
pub fn dump(topology: &Topology) -> String {
    let mut text = String::new();
    if let Some(wire) = topology.wire.ns() {
        section(&mut text, "wire", "bridge fdb", &said(wire, &["bridge", "fdb", "show", "br", "br0"]));
    }
    for host in &topology.hosts {
        of_host(&mut text, host);
    }
    if let Some(etcd) = &topology.etcd {
        let keys = etcd.get_prefix("/").map_or_else(|e| format!("{e:#}"), |keys| format!("{keys:#?}"));
        section(&mut text, "etcd", "keys", &keys);
        section(&mut text, "etcd", "log", &crate::process::tail(&etcd.log(), LINES));
    }
    text
}

fn of_host(text: &mut String, host: &Host) {
    interfaces(text, &host.name, &host.ns);
    let fdb = said(&host.ns, &["bridge", "fdb", "show", "br", &host.bridge.name]);
    section(text, &host.name, "bridge fdb", &fdb);
    for container in &host.containers {
        interfaces(text, &format!("{}/{}", host.name, container.name), &container.ns);
    }
    let Some(overlayd) = &host.overlayd else { return };
    for command in ["status", "peers", "routes", "endpoints", "drops"] {
        let said = overlayd.ctl_output(&[command]);
        let said = said.map_or_else(|e| format!("{e:#}"), |o| format!("exit code {:?}{}", o.code, o.text()));
        section(text, &host.name, &format!("overlayctl {command}"), &said);
    }
    section(text, &host.name, "overlayd's log", &overlayd.log_tail(LINES));
}

fn interfaces(text: &mut String, name: &str, ns: &Netns) {
    for what in ["addr", "route", "neigh"] {
        section(text, name, &format!("ip {what}"), &said(ns, &["ip", what]));
    }
}

fn said(ns: &Netns, argv: &[&str]) -> String {
    ns.exec(argv).map_or_else(|e| format!("{e:#}"), |o| o.stdout)
}

fn section(text: &mut String, of: &str, what: &str, said: &str) {
    let _ = write!(text, "--- {of}: {what}\n{}\n", said.trim_end());
}
