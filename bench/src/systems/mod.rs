//! The systems that are compared: each two hosts on one wire, with a container each.

use std::{fmt, net::IpAddr, path::PathBuf};

use anyhow::{Result, bail};
use serde::Serialize;

/// What joins the two hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Wire {
    /// A veth pair as it is: aggregates of up to 64 kB cross it.
    Veth,
    /// A veth pair on which no frame is larger than its MTU, as on a cable, and whose ends merge what comes (GRO).
    Mtu,
}

impl Wire {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Veth, Self::Mtu];
}

impl fmt::Display for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Veth => "veth",
            Self::Mtu => "mtu",
        })
    }
}

/// One end of the path that is measured.
#[derive(Clone, Debug)]
pub struct Side {
    /// For people, as in `c1 on h1`.
    pub name: String,
    /// The network namespace that a load runs in.
    pub netns: PathBuf,
    /// The address that the other side talks to.
    pub address: IpAddr,
    /// The CPU for all that runs on this side.
    pub cpu: usize,
}

/// A system that is up. Dropping it removes all it has made.
pub trait System: Send {
    /// As in [`all`].
    fn name(&self) -> &str;

    /// The side that connects and sends, on CPU 0.
    fn client(&self) -> &Side;

    /// The side that listens and receives, on CPU 1.
    fn server(&self) -> &Side;

    /// Versions and settings, in a few words for the report.
    fn describe(&self) -> String;

    /// Sends a few packets, and shows by counters that they took the path that is claimed.
    ///
    /// # Errors
    /// They did not arrive, or took another one; the error says which counter tells so.
    fn check(&self) -> Result<()>;
}

/// The systems, in the order of the report.
#[must_use]
pub fn all() -> &'static [&'static str] {
    &[
        "bare",
        "host-gw",
        "kernel-vxlan",
        "docker-overlay",
        "ovs-gre",
        "overlayd-auto",
        "overlayd-tc-vxlan",
        "overlayd-xdp-vxlan",
    ]
}

/// Why a system cannot be had on this machine, in words for the report; `None` where nothing stands against it.
///
/// # Errors
/// There is no system of this name.
pub fn missing(name: &str) -> Result<Option<String>> {
    known(name).map(|()| None)
}

/// Brings a system up on a wire of its own. Any number may be up at once, also of one name.
///
/// # Errors
/// There is no system of this name, or something did not come up: the error says what and shows its log.
pub fn up(name: &str, wire: Wire) -> Result<Box<dyn System>> {
    known(name)?;
    bail!("{name} on the {wire} wire: not yet")
}

fn known(name: &str) -> Result<()> {
    if all().contains(&name) {
        return Ok(());
    }
    bail!("there is no system `{name}`: it is one of {}", all().join(", "))
}
