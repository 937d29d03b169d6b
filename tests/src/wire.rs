//! The underlay: what joins the hosts.

mod address;
mod routed;
mod two_paths;

use std::net::Ipv4Addr;

use anyhow::{Context, Result, bail};

pub(crate) use self::address::step;
pub use self::address::{ADDRESS, ADDRESS_V6, MAX_HOSTS, address_of, address_v6_of, bridge_v6_of};
use crate::{Netns, Scope, versions::Versions};

/// How the hosts are joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WireKind {
    /// A bridge in a namespace of its own, which has an address too.
    #[default]
    Bridge,
    /// One veth pair between two hosts, and nothing in the way.
    Veth,
    /// Two routers. The first host is on the one, which has an address too, all others on the other, each on a
    /// subnet of its own. Only the link between the routers has this MTU.
    Routed {
        /// Bytes.
        narrow: u32,
    },
    /// Two routers, and every host is on both of them, by `eth0` on the one and by `eth1` on the other, which has
    /// this MTU on the hosts' side. Its address is on its `lo`, and its default route leads by both. Where one
    /// of its links is down, its router reaches it by way of the other one.
    TwoPaths {
        /// Bytes.
        second: u32,
    },
}

impl WireKind {
    /// The uplinks of every host.
    #[must_use]
    pub fn uplinks(self) -> &'static [&'static str] {
        match self {
            Self::TwoPaths { .. } => &["eth0", "eth1"],
            _ => &["eth0"],
        }
    }
}

/// The wire between the hosts.
#[derive(Debug)]
pub struct Wire {
    /// The bridge's namespace, or the routers'; a plain veth pair has none.
    namespaces: Vec<Netns>,
    kind: WireKind,
    mtu: u32,
    versions: Versions,
}

impl Wire {
    /// Lays a wire of this kind, on which these versions of IP are spoken.
    ///
    /// # Errors
    /// No root.
    pub fn lay(scope: &Scope, kind: WireKind, mtu: u32, versions: Versions) -> Result<Self> {
        let namespaces = match kind {
            WireKind::Veth => Vec::new(),
            WireKind::Bridge => vec![lay_bridge(scope, mtu, versions)?],
            WireKind::Routed { narrow } => routed::lay(scope, narrow, versions)?,
            WireKind::TwoPaths { .. } => two_paths::lay(scope, mtu, versions)?,
        };
        Ok(Self { namespaces, kind, mtu, versions })
    }

    /// The wire's namespace, the first router's where it is routed; a plain veth pair has none.
    #[must_use]
    pub fn ns(&self) -> Option<&Netns> {
        self.namespaces.first()
    }

    /// All of its namespaces: the bridge's, or the routers'.
    #[must_use]
    pub fn namespaces(&self) -> &[Netns] {
        &self.namespaces
    }

    /// The uplinks of every host.
    #[must_use]
    pub fn uplinks(&self) -> &'static [&'static str] {
        self.kind.uplinks()
    }

    /// Plugs a host in, which speaks all that the wire does: it gets an `eth0`. On a veth wire the first host waits for
    /// the second.
    ///
    /// # Errors
    /// No root, or a veth wire has its two hosts already.
    pub fn plug(&self, host: &Netns, name: &str, ip: Ipv4Addr, before: &[&Netns]) -> Result<()> {
        self.plug_speaking(host, name, ip, before, self.versions)
    }

    /// Plugs a host in that speaks these versions of IP alone.
    ///
    /// # Errors
    /// As [`Self::plug`].
    pub fn plug_speaking(
        &self,
        host: &Netns,
        name: &str,
        ip: Ipv4Addr,
        before: &[&Netns],
        versions: Versions,
    ) -> Result<()> {
        let mtu = self.mtu;
        match (self.kind, before) {
            (WireKind::Bridge, _) => {
                let wire = self.ns().context("a bridge has a namespace")?;
                pair(wire, name, host, "eth0", mtu)?;
                wire.ip(&format!("link set {name} master br0 up"))?;
            }
            (WireKind::Routed { .. }, _) => {
                let router = if before.is_empty() { self.namespaces.first() } else { self.namespaces.last() };
                let router = router.context("there are two routers")?;
                pair(router, name, host, "eth0", mtu)?;
                return routed::plug(router, host, name, ip, versions);
            }
            (WireKind::TwoPaths { second }, _) => {
                let [one, two] = &self.namespaces[..] else { bail!("there are two routers") };
                pair(one, name, host, "eth0", mtu)?;
                pair(two, name, host, "eth1", second)?;
                return two_paths::plug([one, two], host, name, ip, versions);
            }
            (WireKind::Veth, []) => return Ok(()),
            (WireKind::Veth, [first]) => {
                let (a, b) = (first.path().display(), host.path().display());
                host.ip(&format!(
                    "link add name eth0 mtu {mtu} netns {a} type veth peer name eth0 mtu {mtu} netns {b}"
                ))?;
                address(first, address_of(0), versions)?;
            }
            (WireKind::Veth, _) => bail!("a veth wire joins two hosts, {name} is one too many"),
        }
        address(host, ip, versions)
    }
}

/// Lays a pair from the wire to a host.
fn pair(wire: &Netns, name: &str, host: &Netns, device: &str, mtu: u32) -> Result<()> {
    let (host, here) = (host.path().display(), wire.path().display());
    let pair = format!("type veth peer name {device} mtu {mtu} netns {host}");
    wire.ip(&format!("link add name {name} mtu {mtu} netns {here} {pair}")).map(drop)
}

fn lay_bridge(scope: &Scope, mtu: u32, versions: Versions) -> Result<Netns> {
    let ns = scope.netns("wire")?;
    // The wire is a switch, not a host: netfilter has no say on what it forwards.
    for key in ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables", "bridge-nf-call-arptables"] {
        ns.sysctl_if_present(&format!("bridge/{key}"), "0")?;
    }
    let mut lines = vec!["link add name br0 type bridge".to_owned(), format!("link set br0 mtu {mtu} up")];
    if versions.v4() {
        lines.push(format!("addr add {ADDRESS}/24 dev br0"));
    }
    if versions.v6() {
        lines.push(format!("addr add {ADDRESS_V6}/64 dev br0 nodad"));
    }
    ns.ip_batch(&lines)?;
    Ok(ns)
}

fn address(host: &Netns, ip: Ipv4Addr, versions: Versions) -> Result<()> {
    let mut lines = Vec::new();
    if versions.v4() {
        lines.push(format!("addr add {ip}/24 dev eth0"));
    }
    lines.push("link set eth0 up".to_owned());
    if versions.v6() {
        // Whoever sets the link up again finds it still there, as network managers see to.
        host.sysctl("ipv6/conf/eth0/keep_addr_on_down", "1")?;
        lines.push(format!("addr add {}/64 dev eth0 nodad", address_v6_of(ip)));
    }
    host.ip_batch(&lines)
}
