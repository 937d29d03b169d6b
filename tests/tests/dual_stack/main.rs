//! IPv4 and IPv6, inside and outside: what is announced, how each subnet is reached, and that packets get there.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails, in its helpers too")]

mod change;
mod checksum;
mod reach;
mod refusals;
mod trace;

use std::{net::IpAddr, time::Duration};

use harness::{
    Topology, eventually,
    host::Host,
    topology::Builder,
    traffic::{Endpoint, ping},
    versions::Versions,
};

pub(crate) const SOON: Duration = Duration::from_secs(10);

/// Hosts with both versions inside, and these outside.
pub(crate) fn hosts(underlay: Versions) -> Builder {
    Topology::builder().versions(underlay, true)
}

/// The two addresses of a host's first container.
pub(crate) fn inside(host: &Host) -> [IpAddr; 2] {
    let c1 = host.c(1);
    [c1.ip.into(), c1.ip_v6.unwrap().into()]
}

/// Waits until both ends answer. An IPv6 address of a bridge serves once no duplicate of it has been found, a second
/// or two after its first container is there.
pub(crate) fn await_path(ends: [Endpoint<'_, IpAddr>; 2]) {
    let [a, b] = ends;
    let answers = |from: Endpoint<'_, IpAddr>, to: Endpoint<'_, IpAddr>| {
        ping(from.ns, to.ip, 1).is_ok_and(|ping| ping.clean())
    };
    eventually("both ends answer", SOON, || answers(a, b) && answers(b, a)).unwrap();
}

/// What `overlayctl peers` says: subnet, and the address at which it is reached.
pub(crate) fn reached(host: &Host) -> Vec<(String, String)> {
    let peers = host.overlayd().ctl(&["peers", "-o", "json"]).unwrap();
    let mut rows = Vec::new();
    for peer in peers.as_array().unwrap() {
        let address = peer["public_ip"].as_str().unwrap();
        let subnets = peer["subnets"].as_array().unwrap().iter();
        rows.extend(subnets.map(|subnet| (subnet.as_str().unwrap().to_owned(), address.to_owned())));
    }
    rows.sort();
    rows
}
