//! The underlay: what joins the hosts.

use std::net::Ipv4Addr;

use anyhow::{Result, bail};

use crate::{Netns, Scope};

/// How the hosts are joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WireKind {
    /// A bridge in a namespace of its own, which has an address too.
    #[default]
    Bridge,
    /// One veth pair between two hosts, and nothing in the way.
    Veth,
}

/// The bridge's own address: what runs there outlives every host.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 16, 199, 1);

/// Host addresses are 17, 27, 37 …: this many fit.
pub const MAX_HOSTS: usize = 24;

/// The wire between the hosts.
#[derive(Debug)]
pub struct Wire {
    ns: Option<Netns>,
    mtu: u32,
}

impl Wire {
    /// Lays a wire of this kind.
    ///
    /// # Errors
    /// No root.
    pub fn lay(scope: &Scope, kind: WireKind, mtu: u32) -> Result<Self> {
        if kind == WireKind::Veth {
            return Ok(Self { ns: None, mtu });
        }
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
        Ok(Self { ns: Some(ns), mtu })
    }

    /// The wire's namespace; a plain veth pair has none.
    #[must_use]
    pub fn ns(&self) -> Option<&Netns> {
        self.ns.as_ref()
    }

    /// Plugs a host in: it gets an `eth0`. On a veth wire the first host waits for the second.
    ///
    /// # Errors
    /// No root, or a veth wire has its two hosts already.
    pub fn plug(&self, host: &Netns, name: &str, ip: Ipv4Addr, before: &[&Netns]) -> Result<()> {
        let mtu = self.mtu;
        match (&self.ns, before) {
            (Some(wire), _) => {
                let (host, here) = (host.path().display(), wire.path().display());
                wire.ip_batch(&[
                    format!("link add name {name} mtu {mtu} netns {here} type veth peer name eth0 mtu {mtu} netns {host}"),
                    format!("link set {name} master br0 up"),
                ])?;
            }
            (None, []) => return Ok(()),
            (None, [first]) => {
                let (a, b) = (first.path().display(), host.path().display());
                host.ip(&format!(
                    "link add name eth0 mtu {mtu} netns {a} type veth peer name eth0 mtu {mtu} netns {b}"
                ))?;
                address(first, address_of(0))?;
            }
            (None, _) => bail!("a veth wire joins two hosts, {name} is one too many"),
        }
        address(host, ip)
    }
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
