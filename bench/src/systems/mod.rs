//! The systems that are compared: each two hosts on one wire, with a container each.

mod bare;
mod bed;
mod compared;
mod cpu;
mod docker_overlay;
mod host_gw;
mod kernel_vxlan;
mod offloads;
mod overlayd;
mod ovs_gre;
mod proof;
mod versions;

use std::{fmt, net::IpAddr, path::PathBuf};

use anyhow::{Context, Result, bail};
use harness::Scope;
use overlay_common::Encap;
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

const BARE: &str = "bare";
const HOST_GW: &str = "host-gw";
const KERNEL_VXLAN: &str = "kernel-vxlan";
const DOCKER_OVERLAY: &str = "docker-overlay";
const OVS_GRE: &str = "ovs-gre";
const OVERLAYD_AUTO: &str = "overlayd-auto";
const OVERLAYD_TC: &str = "overlayd-tc-vxlan";
const OVERLAYD_XDP: &str = "overlayd-xdp-vxlan";
const OVERLAYD_DIRECT: &str = "overlayd-tc-direct";
const OVERLAYD_GENEVE: &str = "overlayd-tc-geneve";
const OVERLAYD_GRE: &str = "overlayd-tc-gre";
const OVERLAYD_GRE_L3: &str = "overlayd-tc-gre-l3";
const OVERLAYD_IPIP: &str = "overlayd-tc-ipip";

/// The systems, in the order of the report.
#[must_use]
pub fn all() -> &'static [&'static str] {
    &[
        BARE,
        HOST_GW,
        KERNEL_VXLAN,
        DOCKER_OVERLAY,
        OVS_GRE,
        OVERLAYD_AUTO,
        OVERLAYD_TC,
        OVERLAYD_XDP,
        OVERLAYD_DIRECT,
        OVERLAYD_GENEVE,
        OVERLAYD_GRE,
        OVERLAYD_GRE_L3,
        OVERLAYD_IPIP,
    ]
}

/// Why a system cannot be had on this machine, in words for the report; `None` where nothing stands against it.
///
/// # Errors
/// There is no system of this name.
pub fn missing(name: &str) -> Result<Option<String>> {
    Ok(if known(name)? == OVS_GRE { ovs_gre::missing() } else { None })
}

/// Brings a system up on a wire of its own, and checks it. Any number may be up at once, also of one name.
///
/// # Errors
/// There is no system of this name, or something did not come up: the error says what and shows its log.
pub fn up(name: &str, wire: Wire) -> Result<Box<dyn System>> {
    up_in(Scope::unique()?, name, wire)
}

/// Brings a system up under a given name, by which all of it can be removed after a crash ([`harness::scope::remove`]).
///
/// # Errors
/// As [`up`].
pub fn up_in(scope: Scope, name: &str, wire: Wire) -> Result<Box<dyn System>> {
    let name = known(name)?;
    let system = match name {
        BARE => bare::up(name, scope, wire),
        HOST_GW => host_gw::up(name, scope, wire),
        KERNEL_VXLAN => kernel_vxlan::up(name, scope, wire),
        DOCKER_OVERLAY => docker_overlay::up(name, scope, wire, docker_overlay::Control::of_this_machine()?),
        OVS_GRE => ovs_gre::up(name, scope, wire),
        OVERLAYD_AUTO => overlayd::up(name, scope, wire, "auto", Encap::Vxlan),
        OVERLAYD_TC => overlayd::up(name, scope, wire, "tc", Encap::Vxlan),
        OVERLAYD_XDP => overlayd::up(name, scope, wire, "xdp", Encap::Vxlan),
        OVERLAYD_DIRECT => overlayd::up(name, scope, wire, "tc", Encap::Direct),
        OVERLAYD_GENEVE => overlayd::up(name, scope, wire, "tc", Encap::Geneve),
        OVERLAYD_GRE => overlayd::up(name, scope, wire, "tc", Encap::Gre),
        OVERLAYD_GRE_L3 => overlayd::up(name, scope, wire, "tc", Encap::GreL3),
        OVERLAYD_IPIP => overlayd::up(name, scope, wire, "tc", Encap::Ipip),
        other => bail!("{other} is in the list of systems, and nothing brings it up"),
    };
    system.with_context(|| format!("{name} on the {wire} wire"))
}

fn known(name: &str) -> Result<&'static str> {
    let found = all().iter().find(|known| **known == name);
    found.copied().with_context(|| format!("there is no system `{name}`: it is one of {}", all().join(", ")))
}
