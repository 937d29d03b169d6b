//! Two routers side by side, and every host on both of them.

use std::net::Ipv4Addr;

use anyhow::Result;

use super::{
    ADDRESS, ADDRESS_V6,
    address::{address_v6_of, decimal},
};
use crate::{Netns, Scope, versions::Versions};

/// Between the routers.
const ACROSS: [&str; 2] = ["198.18.0.1", "198.18.0.2"];

/// The same in IPv6.
const ACROSS_V6: [&str; 2] = ["fd00:198::1", "fd00:198::2"];

pub(super) fn lay(scope: &Scope, mtu: u32, versions: Versions) -> Result<Vec<Netns>> {
    let routers = vec![scope.netns("wire")?, scope.netns("wire2")?];
    for router in &routers {
        router.sysctl("ipv4/ip_forward", "1")?;
        // A host's link that is down is left for the way by the other router.
        router.sysctl("ipv4/conf/all/ignore_routes_with_linkdown", "1")?;
        router.sysctl("ipv6/conf/default/ignore_routes_with_linkdown", "1")?;
        router.sysctl("ipv6/conf/all/forwarding", "1")?;
    }
    let (one, two) = (routers[0].path().display(), routers[1].path().display());
    routers[0].ip(&format!(
        "link add name across mtu {mtu} netns {one} type veth peer name across mtu {mtu} netns {two}"
    ))?;
    for (router, side) in routers.iter().zip(0..) {
        let mut lines = vec!["link set across up".to_owned()];
        if versions.v4() {
            lines.push(format!("addr add {}/30 dev across", ACROSS[side]));
            lines.push(match side {
                0 => format!("addr add {ADDRESS}/32 dev lo"),
                _ => format!("route add {ADDRESS}/32 via {}", ACROSS[0]),
            });
        }
        if versions.v6() {
            lines.push(format!("addr add {}/126 dev across nodad", ACROSS_V6[side]));
            lines.push(match side {
                0 => format!("addr add {ADDRESS_V6}/128 dev lo nodad"),
                _ => format!("route add {ADDRESS_V6}/128 via {}", ACROSS_V6[0]),
            });
        }
        router.ip_batch(&lines)?;
    }
    Ok(routers)
}

pub(super) fn plug(
    routers: [&Netns; 2],
    host: &Netns,
    name: &str,
    ip: Ipv4Addr,
    versions: Versions,
) -> Result<()> {
    for (side, router) in routers.iter().enumerate() {
        router.ip(&format!("link set {name} up"))?;
        host.ip(&format!("link set eth{side} up"))?;
        let gateways = Gateways::of(side, ip);
        if versions.v4() {
            let Gateways { v4: (gateway, own), .. } = &gateways;
            router.ip(&format!("addr add {gateway}/31 dev {name}"))?;
            host.ip(&format!("addr add {own}/31 dev eth{side}"))?;
            router.ip_batch(&[
                format!("route add {ip}/32 via {own} metric 10"),
                format!("route add {ip}/32 via {} metric 20", ACROSS[1 - side]),
            ])?;
        }
        if versions.v6() {
            let (Gateways { v6: (gateway, own), .. }, ip) = (&gateways, address_v6_of(ip));
            router.ip(&format!("addr add {gateway}/127 dev {name} nodad"))?;
            host.sysctl(&format!("ipv6/conf/eth{side}/keep_addr_on_down"), "1")?;
            host.ip(&format!("addr add {own}/127 dev eth{side} nodad"))?;
            router.ip_batch(&[
                format!("route add {ip}/128 via {own} metric 10"),
                format!("route add {ip}/128 via {} metric 20", ACROSS_V6[1 - side]),
            ])?;
        }
    }
    let hop = |side: usize, gateway: String| format!("nexthop via {gateway} dev eth{side}");
    if versions.v4() {
        let hops = [0, 1].map(|side| hop(side, Gateways::of(side, ip).v4.0));
        host.ip_batch(&[
            format!("addr add {ip}/32 dev lo"),
            format!("route add default src {ip} {}", hops.join(" ")),
        ])?;
    }
    if versions.v6() {
        let hops = [0, 1].map(|side| hop(side, Gateways::of(side, ip).v6.0));
        let ip = address_v6_of(ip);
        host.ip_batch(&[
            format!("addr add {ip}/128 dev lo nodad"),
            format!("route add default src {ip} {}", hops.join(" ")),
        ])?;
    }
    Ok(())
}

/// The two ends of a host's link to a router: the router's, then its own.
struct Gateways {
    v4: (String, String),
    v6: (String, String),
}

impl Gateways {
    fn of(side: usize, ip: Ipv4Addr) -> Self {
        let [.., last] = ip.octets();
        let v6 = |n: u16| format!("fd00:198:{}::{n:x}", side + 1);
        let (n, pair) = (last & !1, decimal(last) & !1);
        Self {
            v4: (format!("198.18.{}.{n}", side + 1), format!("198.18.{}.{}", side + 1, n + 1)),
            v6: (v6(pair), v6(pair + 1)),
        }
    }
}
