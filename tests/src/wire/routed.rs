//! Two routers in a row.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::Result;

use super::{ADDRESS, ADDRESS_V6, address_of, address_v6_of};
use crate::{Netns, Scope, versions::Versions};

/// Between the two routers: RFC 2544's addresses, which no test uses elsewhere.
const ROUTERS: [Ipv4Addr; 2] = [Ipv4Addr::new(198, 18, 0, 1), Ipv4Addr::new(198, 18, 0, 2)];

/// The same in IPv6.
const ROUTERS_V6: [&str; 2] = ["fd00:198::1", "fd00:198::2"];

pub(super) fn lay(scope: &Scope, narrow: u32, versions: Versions) -> Result<Vec<Netns>> {
    let (near, far) = (scope.netns("wire")?, scope.netns("wire2")?);
    let (here, there) = (near.path().display(), far.path().display());
    near.ip(&format!(
        "link add name far mtu {narrow} netns {here} type veth peer name near mtu {narrow} netns {there}"
    ))?;
    near.ip("link set far up")?;
    far.ip("link set near up")?;
    if versions.v4() {
        lay_v4(&near, &far)?;
    }
    if versions.v6() {
        lay_v6(&near, &far)?;
    }
    Ok(vec![near, far])
}

fn lay_v4(near: &Netns, far: &Netns) -> Result<()> {
    let first = gateway(address_of(0));
    let [one, two] = ROUTERS;
    near.ip_batch(&[
        format!("addr add {one}/30 dev far"),
        format!("addr add {ADDRESS}/32 dev lo"),
        format!("route add {}/24 via {two}", Ipv4Addr::from_bits(ADDRESS.to_bits() & !0xff)),
    ])?;
    far.ip_batch(&[
        format!("addr add {two}/30 dev near"),
        format!("route add {first}/31 via {one}"),
        format!("route add {ADDRESS}/32 via {one}"),
    ])?;
    [near, far].into_iter().try_for_each(|router| router.sysctl("ipv4/ip_forward", "1"))
}

fn lay_v6(near: &Netns, far: &Netns) -> Result<()> {
    let first = gateway_v6(address_v6_of(address_of(0)));
    let [one, two] = ROUTERS_V6;
    for router in [near, far] {
        router.sysctl("ipv6/conf/all/forwarding", "1")?;
    }
    near.ip_batch(&[
        format!("addr add {one}/126 dev far nodad"),
        format!("addr add {ADDRESS_V6}/128 dev lo nodad"),
        format!("route add fd00:199::/64 via {two}"),
    ])?;
    far.ip_batch(&[
        format!("addr add {two}/126 dev near nodad"),
        format!("route add {first}/127 via {one}"),
        format!("route add {ADDRESS_V6}/128 via {one}"),
    ])
}

/// The two ends share a prefix of 31 bits (RFC 3021), or of 127 (RFC 6164), so that every host is on a subnet of its own.
pub(super) fn plug(router: &Netns, host: &Netns, name: &str, ip: Ipv4Addr, versions: Versions) -> Result<()> {
    router.ip(&format!("link set {name} up"))?;
    host.ip("link set eth0 up")?;
    if versions.v4() {
        let gateway = gateway(ip);
        router.ip(&format!("addr add {gateway}/31 dev {name}"))?;
        host.ip_batch(&[format!("addr add {ip}/31 dev eth0"), format!("route add default via {gateway}")])?;
    }
    if versions.v6() {
        let ip = address_v6_of(ip);
        let gateway = gateway_v6(ip);
        router.ip(&format!("addr add {gateway}/127 dev {name} nodad"))?;
        host.sysctl("ipv6/conf/eth0/keep_addr_on_down", "1")?;
        host.ip_batch(&[
            format!("addr add {ip}/127 dev eth0 nodad"),
            format!("route add default via {gateway}"),
        ])?;
    }
    Ok(())
}

fn gateway(ip: Ipv4Addr) -> Ipv4Addr {
    Ipv4Addr::from_bits(ip.to_bits() - 1)
}

fn gateway_v6(ip: Ipv6Addr) -> Ipv6Addr {
    Ipv6Addr::from_bits(ip.to_bits() - 1)
}
