//! Programs on a host's devices, whichever way the kernel has for them.

use anyhow::Result;
use serde_json::Value;

use crate::{
    Netns,
    host::{Host, UPLINK},
    tcx,
};

/// Filters and qdiscs of clsact on all devices of a namespace, as `tc` prints them.
///
/// # Errors
/// `tc` failed.
pub fn clsact(ns: &Netns) -> Result<String> {
    let mut all = ns.exec(&["tc", "qdisc", "show"])?.stdout;
    all = all.lines().filter(|line| line.contains("clsact")).collect::<Vec<_>>().join("\n");
    for device in ns.run(tcx::devices)??.values() {
        for hook in ["ingress", "egress"] {
            all.push_str(&ns.cmd("tc").args(["filter", "show", "dev", device, hook]).run()?.stdout);
        }
    }
    Ok(all)
}

/// How many programs a host's devices have, over tcx or as direct-action filters.
///
/// # Errors
/// The kernel does not say.
pub fn attached(host: &Host) -> Result<usize> {
    let filters = clsact(&host.ns)?.lines().filter(|line| line.contains("direct-action")).count();
    Ok(tcx::attachments_in(&host.ns)?.len() + filters)
}

/// Whether the uplink has an XDP program in native mode.
///
/// # Errors
/// There is no uplink.
pub fn has_xdp(host: &Host) -> Result<bool> {
    let links: Value = serde_json::from_str(&host.ns.ip(&format!("-d -j link show dev {UPLINK}"))?.stdout)?;
    // XDP_ATTACHED_DRV.
    Ok(links[0]["xdp"]["mode"] == 1)
}
