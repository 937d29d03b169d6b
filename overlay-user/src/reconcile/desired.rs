//! What should be: the store's records, seen from this host.

mod judge;
mod outer;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use overlay_common::{
    Vni,
    map::{RouteSource, Tunnel},
    wire::ipv6,
};

use self::judge::Judgement;
pub use self::judge::overlap_message;
use super::table;
use crate::{
    hops::Slots,
    local::{Bridge, Local},
    netlink::{Family, MAIN_TABLE, OverlayRoute, OverlayRule},
    path_mtu,
    store::PeerSubnet,
    underlay::Underlay,
};

/// The table and the prefix of a route of the kernel.
pub type KernelRouteKey = (u32, IpNet);

/// A peer's subnet and how to reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteSubnet {
    /// The host that owns it.
    pub host: Underlay,
    /// The addresses that its packets may come from.
    pub sources: Vec<IpAddr>,
    /// The key of GRE packets from and to it.
    pub gre_key: Option<u32>,
    /// The tunnel to it; the peer's id is filled in by the plan.
    pub tunnel: Tunnel,
    /// Where the record came from.
    pub source: RouteSource,
}

/// Everything that should be in the maps and in the kernel's tables because of peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// The network of our bridges.
    pub vni: Vni,
    /// The UDP port we listen on for VXLAN.
    pub port: u16,
    /// The UDP port we listen on for Geneve.
    pub geneve_port: u16,
    /// The peers' subnets.
    pub subnets: BTreeMap<IpNet, RemoteSubnet>,
    /// The routes that lead what the kernel routes out through a bridge: in the main table through the first,
    /// in the table of each further bridge through that one.
    pub kernel_routes: BTreeMap<KernelRouteKey, OverlayRoute>,
    /// The rules that lead the packets of each further bridge to its table.
    pub rules: BTreeSet<OverlayRule>,
}

/// Folds the store's records into the desired state. `hops` tells the ways through the underlay to a peer's address,
/// `path_mtu` the largest outer packet where they carry less than the uplinks. Also returns, one line each, the
/// records that cannot be used (as they should be), and why.
pub fn fold(
    local: &Local,
    records: &BTreeMap<IpNet, PeerSubnet>,
    source: RouteSource,
    hops: impl Fn(IpAddr) -> Slots,
    path_mtu: impl Fn(IpAddr) -> Option<u32>,
) -> (Desired, Vec<String>) {
    let mut desired = Desired {
        vni: local.vni,
        port: local.port,
        geneve_port: local.geneve_port,
        subnets: BTreeMap::new(),
        kernel_routes: BTreeMap::new(),
        rules: rules(local),
    };
    let mut troubles = Vec::new();
    for record in records.values() {
        let outer = match judge::judge(local, record) {
            Judgement::Usable(outer) => outer,
            Judgement::Ours | Judgement::Unspoken => continue,
            Judgement::Refused(reason) => {
                troubles.push(reason);
                continue;
            }
        };
        let peer = outer.remote();
        let hops = hops(peer);
        let encap = outer.encap(local, record, &hops);
        let overhead = outer.overhead(encap, record);
        let most = local.mtu_over(&hops, overhead);
        let mtu = path_mtu::inner(most, path_mtu(peer), overhead);
        let mtu = match fitting(record, most, mtu) {
            Ok(mtu) => mtu,
            Err((mtu, trouble)) => {
                troubles.push(trouble);
                let Some(mtu) = mtu else { continue };
                mtu
            }
        };
        let tunnel = outer.tunnel(local, record, encap, hops, mtu);
        for route in kernel_routes(local, record.subnet, mtu) {
            desired.kernel_routes.insert((route.table, route.prefix), route);
        }
        let &PeerSubnet { host, gre_key, .. } = record;
        let sources = record.sources().collect();
        desired.subnets.insert(record.subnet, RemoteSubnet { host, sources, gre_key, tunnel, source });
    }
    troubles.extend(refuse_foreign_sources(&mut desired.subnets));
    (desired, troubles)
}

/// Packets from a host's own address are that host's, whoever else says that his come from there: what he could send in its
/// name is for nobody to give away. Returns what was refused, one line each.
fn refuse_foreign_sources(subnets: &mut BTreeMap<IpNet, RemoteSubnet>) -> Vec<String> {
    let owners: BTreeMap<IpAddr, Underlay> = subnets
        .values()
        .flat_map(|remote| remote.host.addresses().map(|address| (address, remote.host)))
        .collect();
    let mut refused = Vec::new();
    for (subnet, remote) in subnets {
        let RemoteSubnet { host, sources, .. } = remote;
        sources.retain(|source| {
            let foreign = owners.get(source).filter(|owner| !owner.shares(*host));
            refused.extend(foreign.map(|owner| {
                format!(
                    "subnet {subnet}: peer {host} says that its packets come from {source} too, which is peer {owner}: not \
                     believed; correct its --src-ip"
                )
            }));
            foreign.is_none()
        });
    }
    refused
}

/// The addresses at which the peers are reached that the store's records name.
pub fn peers<'a>(local: &Local, records: impl IntoIterator<Item = &'a PeerSubnet>) -> BTreeSet<IpAddr> {
    records.into_iter().filter_map(|record| peer(local, record)).collect()
}

/// Bytes of outer headers in front of the packets of a record, over these ways; `None` for one that is not served.
pub fn overhead(local: &Local, record: &PeerSubnet, hops: &Slots) -> Option<u32> {
    match judge::judge(local, record) {
        Judgement::Usable(outer) => Some(outer.overhead(outer.encap(local, record, hops), record)),
        _ => None,
    }
}

/// The address at which the peer of a record is reached; `None` for one that is not served.
pub fn peer(local: &Local, record: &PeerSubnet) -> Option<IpAddr> {
    match judge::judge(local, record) {
        Judgement::Usable(outer) => Some(outer.remote()),
        _ => None,
    }
}

/// The MTU of a subnet, of which `most` fits the uplinks and `mtu` what routers on the way told besides. IPv6 has a
/// least one (RFC 8200 section 5): where the uplinks carry less, the subnet is not served. Where only a router says so,
/// whom nothing proves to be one, small packets are not given up for it.
fn fitting(record: &PeerSubnet, most: u32, mtu: u32) -> Result<u32, (Option<u32>, String)> {
    let PeerSubnet { subnet, host, .. } = record;
    let least = ipv6::MIN_MTU;
    if matches!(subnet, IpNet::V4(_)) || mtu >= least {
        return Ok(mtu);
    }
    if most < least {
        let line = format!(
            "subnet {subnet} of peer {host} is not served: packets of {most} bytes fit the way there, and IPv6 needs \
             {least}; raise the uplinks' MTU, or --mtu"
        );
        return Err((None, line));
    }
    let line = format!(
        "on the way to peer {host} packets of {mtu} bytes fit, and IPv6 needs {least}: larger ones to {subnet} are lost; \
         raise the MTU of that way"
    );
    Err((Some(least), line))
}

/// The bridges that have a subnet of a version, in their order.
fn speaking(local: &Local, family: Family) -> impl Iterator<Item = (&Bridge, IpAddr)> {
    local.bridges.iter().filter_map(move |bridge| {
        let mut gateways = bridge.gateways();
        Some((bridge, gateways.find(|gateway| Family::from(*gateway) == family)?))
    })
}

/// The table of a bridge, by its number among those that have a subnet of a version.
fn table_of(number: usize, bridge: &Bridge) -> u32 {
    if number == 0 { MAIN_TABLE } else { table::of_bridge(bridge.index) }
}

/// A route through each bridge, whose egress programs all know every peer: through the first for the host's own
/// packets, through the others for those of their containers.
fn kernel_routes(local: &Local, prefix: IpNet, mtu: u32) -> impl Iterator<Item = OverlayRoute> {
    let through = speaking(local, prefix.into()).enumerate();
    through.map(move |(number, (bridge, source))| OverlayRoute {
        table: table_of(number, bridge),
        prefix,
        gateway: prefix.network(),
        ifindex: bridge.index,
        source,
        mtu,
    })
}

/// The rules that lead the packets of each further bridge to its table.
pub fn rules(local: &Local) -> BTreeSet<OverlayRule> {
    let of = |family| {
        speaking(local, family).skip(1).map(move |(bridge, _)| {
            let (iif, table) = (bridge.name.clone(), table::of_bridge(bridge.index));
            OverlayRule { family, priority: table::RULE_PRIORITY, iif, table }
        })
    };
    Family::BOTH.into_iter().flat_map(of).collect()
}

#[cfg(test)]
mod tests;
