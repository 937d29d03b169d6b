//! The underlay: what joins the hosts.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, bail};

use crate::{Netns, Scope};

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
}

/// The bridge's own address: what runs there outlives every host.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 16, 199, 1);

/// Host addresses are 17, 27, 37 …: this many fit.
pub const MAX_HOSTS: usize = 24;

/// Between the two routers: RFC 2544's addresses, which no test uses elsewhere.
const ROUTERS: [Ipv4Addr; 2] = [Ipv4Addr::new(198, 18, 0, 1), Ipv4Addr::new(198, 18, 0, 2)];

/// The wire between the hosts.
#[derive(Debug)]
pub struct Wire {
    /// The bridge's namespace, or the routers'; a plain veth pair has none.
    namespaces: Vec<Netns>,
    kind: WireKind,
    mtu: u32,
}

impl Wire {
    /// Lays a wire of this kind.
    ///
    /// # Errors
    /// No root.
    pub fn lay(scope: &Scope, kind: WireKind, mtu: u32) -> Result<Self> {
        let namespaces = match kind {
            WireKind::Veth => Vec::new(),
            WireKind::Bridge => vec![lay_bridge(scope, mtu)?],
            WireKind::Routed { narrow } => lay_routers(scope, narrow)?,
        };
        Ok(Self { namespaces, kind, mtu })
    }

    /// The wire's namespace, the first router's where it is routed; a plain veth pair has none.
    #[must_use]
    pub fn ns(&self) -> Option<&Netns> {
        self.namespaces.first()
    }

    /// Plugs a host in: it gets an `eth0`. On a veth wire the first host waits for the second.
    ///
    /// # Errors
    /// No root, or a veth wire has its two hosts already.
    pub fn plug(&self, host: &Netns, name: &str, ip: Ipv4Addr, before: &[&Netns]) -> Result<()> {
        let mtu = self.mtu;
        match (self.kind, before) {
            (WireKind::Bridge, _) => {
                let wire = self.ns().context("a bridge has a namespace")?;
                self.pair(wire, host, name)?;
                wire.ip(&format!("link set {name} master br0 up"))?;
            }
            (WireKind::Routed { .. }, _) => {
                let router = if before.is_empty() { self.namespaces.first() } else { self.namespaces.last() };
                return self.plug_routed(router.context("there are two routers")?, host, name, ip);
            }
            (WireKind::Veth, []) => return Ok(()),
            (WireKind::Veth, [first]) => {
                let (a, b) = (first.path().display(), host.path().display());
                host.ip(&format!(
                    "link add name eth0 mtu {mtu} netns {a} type veth peer name eth0 mtu {mtu} netns {b}"
                ))?;
                address(first, address_of(0))?;
            }
            (WireKind::Veth, _) => bail!("a veth wire joins two hosts, {name} is one too many"),
        }
        address(host, ip)
    }

    /// Lays a pair from the wire to a host's `eth0`.
    fn pair(&self, wire: &Netns, host: &Netns, name: &str) -> Result<()> {
        let (mtu, host, here) = (self.mtu, host.path().display(), wire.path().display());
        let pair = format!("type veth peer name eth0 mtu {mtu} netns {host}");
        wire.ip(&format!("link add name {name} mtu {mtu} netns {here} {pair}")).map(drop)
    }

    /// The two ends share a prefix of 31 bits (RFC 3021), so that every host is on a subnet of its own.
    fn plug_routed(&self, router: &Netns, host: &Netns, name: &str, ip: Ipv4Addr) -> Result<()> {
        self.pair(router, host, name)?;
        let gateway = Ipv4Addr::from_bits(ip.to_bits() - 1);
        router.ip_batch(&[format!("addr add {gateway}/31 dev {name}"), format!("link set {name} up")])?;
        host.ip_batch(&[
            format!("addr add {ip}/31 dev eth0"),
            "link set eth0 up".to_owned(),
            format!("route add default via {gateway}"),
        ])
    }
}

fn lay_bridge(scope: &Scope, mtu: u32) -> Result<Netns> {
    let ns = scope.netns("wire")?;
    // The wire is a switch, not a host: netfilter has no say on what it forwards.
    for key in ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables", "bridge-nf-call-arptables"] {
        ns.sysctl_if_present(&format!("bridge/{key}"), "0")?;
    }
    ns.ip_batch(&[
        "link add name br0 type bridge".to_owned(),
        format!("link set br0 mtu {mtu} up"),
        format!("addr add {ADDRESS}/24 dev br0"),
    ])?;
    Ok(ns)
}

fn lay_routers(scope: &Scope, narrow: u32) -> Result<Vec<Netns>> {
    let (near, far) = (scope.netns("wire")?, scope.netns("wire2")?);
    let (here, there) = (near.path().display(), far.path().display());
    near.ip(&format!(
        "link add name far mtu {narrow} netns {here} type veth peer name near mtu {narrow} netns {there}"
    ))?;
    let first = Ipv4Addr::from_bits(address_of(0).to_bits() - 1);
    let [one, two] = ROUTERS;
    near.ip_batch(&[
        format!("addr add {one}/30 dev far"),
        "link set far up".to_owned(),
        format!("addr add {ADDRESS}/32 dev lo"),
        format!("route add {}/24 via {two}", Ipv4Addr::from_bits(ADDRESS.to_bits() & !0xff)),
    ])?;
    far.ip_batch(&[
        format!("addr add {two}/30 dev near"),
        "link set near up".to_owned(),
        format!("route add {first}/31 via {one}"),
        format!("route add {ADDRESS}/32 via {one}"),
    ])?;
    for router in [&near, &far] {
        router.sysctl("ipv4/ip_forward", "1")?;
    }
    Ok(vec![near, far])
}

/// The underlay address of host number `index`.
#[must_use]
pub fn address_of(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(172, 16, 199, step(index))
}

/// 17, 27, 37 …: the last byte of a host's address and the second byte of its containers' subnet.
pub(crate) fn step(index: usize) -> u8 {
    assert!(index < MAX_HOSTS, "the builder checks the number of hosts");
    u8::try_from(17 + 10 * index).unwrap_or(u8::MAX)
}

fn address(host: &Netns, ip: Ipv4Addr) -> Result<()> {
    host.ip_batch(&[format!("addr add {ip}/24 dev eth0"), "link set eth0 up".to_owned()])
}
