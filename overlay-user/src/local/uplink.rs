//! The uplinks: which links they are, and the addresses from which this host speaks over them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, bail};
use ipnet::IpNet;
use overlay_common::map::program;

use super::SMALLEST_MTU;
use crate::{
    config::Config,
    netlink::{Link, Netlink},
    path_mtu::LEAST_OVERHEAD,
    underlay::Underlay,
};

/// An interface to the other hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// Its ifindex.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its place among `--iface`, from 0.
    pub place: usize,
    /// Its MTU, bytes.
    pub mtu: u32,
    /// Whether it is administratively up. No packet leaves by one that is down.
    pub up: bool,
    /// Whether its packets have an Ethernet header. Those of WireGuard and tun have none.
    pub ethernet: bool,
}

impl Uplink {
    fn new(link: Link, place: usize) -> Self {
        let Link { index, name, mtu, up, ethernet, .. } = link;
        Self { index, name, place, mtu, up, ethernet }
    }

    /// The program that takes what comes in on it.
    pub const fn program(&self) -> &'static str {
        if self.ethernet { program::UPLINK_INGRESS } else { program::UPLINK_L3 }
    }
}

/// The links that `--iface` names, in its order, and the names that no link has.
pub(super) async fn find(config: &Config, netlink: &Netlink) -> anyhow::Result<(Vec<Uplink>, Vec<String>)> {
    let (mut uplinks, mut missing) = (Vec::new(), Vec::new());
    for (place, name) in config.ifaces.iter().enumerate() {
        match netlink.link_by_name(name).await? {
            Some(link) => uplinks.push(Uplink::new(link, place)),
            None => missing.push(name.clone()),
        }
    }
    if let (true, Some(name)) = (uplinks.is_empty(), missing.first()) {
        super::refuse_missing(netlink, name, "--iface").await?;
    }
    ensure_usable(&uplinks)?;
    Ok((uplinks, missing))
}

/// One at least is up, and none is too small.
fn ensure_usable(uplinks: &[Uplink]) -> anyhow::Result<()> {
    if let Some(small) = uplinks.iter().find(|uplink| uplink.mtu < SMALLEST_MTU + LEAST_OVERHEAD) {
        bail!(
            "uplink {} has MTU {}: too small for an overlay, {} is the least",
            small.name,
            small.mtu,
            SMALLEST_MTU + LEAST_OVERHEAD
        );
    }
    if uplinks.iter().any(|uplink| uplink.up) {
        return Ok(());
    }
    match uplinks {
        [one] => bail!("uplink {0} is down: bring it up first with `ip link set {0} up`", one.name),
        several => {
            let names: Vec<&str> = several.iter().map(|uplink| uplink.name.as_str()).collect();
            bail!("the uplinks {} are down: bring one up first with `ip link set … up`", names.join(", "))
        }
    }
}

/// What peers send to, and what this host sends from. They differ behind NAT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Addresses {
    pub(super) public: Underlay,
    pub(super) underlay: Underlay,
}

impl Addresses {
    /// `--public-ip` where it is this host's own, on whichever link; else the uplinks' first, in their order.
    pub(super) async fn find(config: &Config, uplinks: &[Uplink], netlink: &Netlink) -> anyhow::Result<Self> {
        let mut first = (None, None);
        for uplink in uplinks {
            let (v4, v6) = oldest(&netlink.addresses(uplink.index).await?);
            first = (first.0.or(v4), first.1.or(v6));
        }
        let v4 = choose(config.public_v4, first.0, uplinks, netlink).await?;
        let v6 = choose(config.public_v6, first.1, uplinks, netlink).await?;
        let public = Underlay::new(v4.map(|(public, _)| public), v6.map(|(public, _)| public));
        let underlay = Underlay::new(v4.map(|(_, own)| own), v6.map(|(_, own)| own));
        let found = public.zip(underlay);
        let (public, underlay) = found.with_context(|| {
            format!(
                "uplink {} has no IPv4 address, nor a global IPv6 one: give it one, or choose another with --iface",
                names(uplinks)
            )
        })?;
        Ok(Self { public, underlay })
    }
}

/// Of an uplink's addresses the one of each version that has been there longest, so that another one beside it changes
/// nothing: of IPv4 the kernel lists the oldest first, of IPv6 the newest.
fn oldest(addresses: &[IpNet]) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
    let v4 = addresses.iter().find_map(|net| match net.addr() {
        IpAddr::V4(v4) => Some(v4),
        IpAddr::V6(_) => None,
    });
    let v6 = addresses.iter().rev().find_map(|net| match net.addr() {
        IpAddr::V6(v6) if !v6.is_unicast_link_local() && !v6.is_loopback() => Some(v6),
        _ => None,
    });
    (v4, v6)
}

/// The public address of one IP version, and the one to send from.
async fn choose<A: Copy + Into<IpAddr>>(
    given: Option<A>,
    first: Option<A>,
    uplinks: &[Uplink],
    netlink: &Netlink,
) -> anyhow::Result<Option<(A, A)>> {
    let Some(public) = given else { return Ok(first.map(|ip| (ip, ip))) };
    let given = public.into();
    if netlink.link_with_address(given).await?.is_some() {
        return Ok(Some((public, public)));
    }
    let version = if given.is_ipv4() { "IPv4" } else { "global IPv6" };
    let first = first.with_context(|| {
        format!(
            "--public-ip {given} is not this host's, and uplink {} has no {version} address to send from: give it \
             one, or correct --public-ip",
            names(uplinks)
        )
    })?;
    Ok(Some((public, first)))
}

fn names(uplinks: &[Uplink]) -> String {
    uplinks.iter().map(|uplink| uplink.name.as_str()).collect::<Vec<_>>().join(", ")
}
