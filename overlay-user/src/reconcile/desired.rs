//! What should be: the store's records, seen from this host.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use ipnet::{IpNet, Ipv4Net};
use overlay_common::{
    Be16, Encap, Mac, Vni,
    map::{RouteSource, Tunnel},
    template::{self, Vxlan},
    wire::eth::ETHERTYPE_IPV4,
};

use super::table;
use crate::{
    hops::Slots,
    local::{Bridge, Local, overlaps},
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
    pub public_ip: Ipv4Addr,
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
    /// The UDP port we listen on.
    pub port: u16,
    /// The peers' subnets.
    pub subnets: BTreeMap<Ipv4Net, RemoteSubnet>,
    /// The routes that lead what the kernel routes out through a bridge: in the main table through the first,
    /// in the table of each further bridge through that one.
    pub kernel_routes: BTreeMap<KernelRouteKey, OverlayRoute>,
    /// The rules that lead the packets of each further bridge to its table.
    pub rules: BTreeSet<OverlayRule>,
}

/// Folds the store's records into the desired state. `hops` tells the ways through the underlay to a peer's address,
/// `path_mtu` the largest outer packet where they carry less than the uplinks. Also returns, one line each, the
/// records that cannot be used, and why.
pub fn fold(
    local: &Local,
    records: &BTreeMap<Ipv4Net, PeerSubnet>,
    source: RouteSource,
    hops: impl Fn(IpAddr) -> Slots,
    path_mtu: impl Fn(IpAddr) -> Option<u32>,
) -> (Desired, Vec<String>) {
    let mut desired = Desired {
        vni: local.vni,
        port: local.port,
        subnets: BTreeMap::new(),
        kernel_routes: BTreeMap::new(),
        rules: local.bridges.iter().skip(1).map(rule).collect(),
    };
    let mut refusals = Vec::new();
    for (subnet, record) in records {
        match refuse(local, record) {
            Some(Refusal::Ours) => {}
            Some(Refusal::Because(reason)) => refusals.push(reason),
            None => {
                let Some(outer) = outer(local.underlay, record.public_ip.into()) else { continue };
                let (_, peer) = outer;
                let hops = hops(peer);
                let most = local.mtu_to(peer, &hops, record.encap);
                let mtu = path_mtu::inner(most, path_mtu(peer), record.encap, peer);
                let Some(tunnel) = tunnel(local, record, outer, hops, mtu) else { continue };
                let remote = RemoteSubnet { public_ip: record.public_ip, tunnel, source };
                let routes = kernel_routes(local, *subnet, mtu);
                desired.kernel_routes.extend(routes.map(|route| ((route.table, route.prefix), route)));
                desired.subnets.insert(*subnet, remote);
            }
        }
    }
    (desired, refusals)
}

enum Refusal {
    /// Our own announcement.
    Ours,
    Because(String),
}

fn refuse(local: &Local, record: &PeerSubnet) -> Option<Refusal> {
    let PeerSubnet { subnet, public_ip, .. } = record;
    let own = local.bridges.iter().find(|bridge| overlaps(*subnet, bridge.address));
    let ours = local.public.has((*public_ip).into());
    match own {
        Some(bridge) if ours && bridge.address.trunc() == *subnet => Some(Refusal::Ours),
        Some(bridge) => Some(Refusal::Because(overlap_message(record, &bridge.name, bridge.address))),
        None if ours || local.underlay.has((*public_ip).into()) => Some(Refusal::Because(format!(
            "subnet {subnet} is announced with this host's own address {public_ip}, but no --bridge has it: \
             ignored; delete its entry, or name its bridge"
        ))),
        None => None,
    }
}

/// What is said where a peer's subnet and one of ours overlap.
pub fn overlap_message(record: &PeerSubnet, bridge: &str, address: Ipv4Net) -> String {
    format!(
        "subnet {} of peer {} overlaps {} of {bridge} on this host: give one of the two bridges another subnet",
        record.subnet,
        record.public_ip,
        address.trunc()
    )
}

/// The addresses between which a tunnel is: the outer source and destination, of one version.
type Outer = (IpAddr, IpAddr);

/// Over which version of IP a host is reached.
fn outer(local: Underlay, host: Underlay) -> Option<Outer> {
    let v4 = local.v4().zip(host.v4()).map(|(src, dst)| (src.into(), dst.into()));
    v4.or_else(|| local.v6().zip(host.v6()).map(|(src, dst)| (src.into(), dst.into())))
}

fn tunnel(local: &Local, record: &PeerSubnet, outer: Outer, hops: Slots, mtu: u32) -> Option<Tunnel> {
    let (src, dst) = outer;
    let vni = record.vni.unwrap_or(local.vni);
    let port = record.port.unwrap_or(local.port);
    let underlay = match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => template::Underlay::V4 { src: src.octets(), dst: dst.octets() },
        (IpAddr::V6(src), IpAddr::V6(dst)) => template::Underlay::V6 { src: src.octets(), dst: dst.octets() },
        _ => return None,
    };
    match record.encap {
        Encap::Vxlan => {
            let template = Vxlan {
                underlay,
                carries: ETHERTYPE_IPV4,
                port,
                vni,
                inner_src: local.vtep_mac,
                inner_dst: record.vtep_mac.unwrap_or(Mac::BROADCAST),
            }
            .compile();
            Some(Tunnel {
                template: template.bytes,
                room_flags: template.room_flags,
                template_len: template.len as u32,
                checksum: template.checksum,
                mtu,
                peer: 0,
                encap: record.encap as u32,
                flags: 0,
                local: src.into(),
                remote: dst.into(),
                vni: vni.key(),
                port: Be16::new(port),
                padding: [0; 2],
                hops,
            })
        }
    }
}

/// A route through each bridge, whose egress programs all know every peer: through the first for the host's own
/// packets, through the others for those of their containers.
fn kernel_routes(local: &Local, prefix: Ipv4Net, mtu: u32) -> impl Iterator<Item = OverlayRoute> {
    local.bridges.iter().enumerate().map(move |(number, bridge)| OverlayRoute {
        table: if number == 0 { MAIN_TABLE } else { table::of_bridge(bridge.index) },
        prefix: prefix.into(),
        gateway: prefix.network().into(),
        ifindex: bridge.index,
        source: bridge.address.addr().into(),
        mtu,
    })
}

fn rule(bridge: &Bridge) -> OverlayRule {
    let (iif, table) = (bridge.name.clone(), table::of_bridge(bridge.index));
    OverlayRule { family: Family::V4, priority: table::RULE_PRIORITY, iif, table }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::local::tests::{direct, local};

    fn record(subnet: &str, public_ip: [u8; 4]) -> (Ipv4Net, PeerSubnet) {
        let subnet = subnet.parse().unwrap();
        let record = PeerSubnet {
            subnet,
            public_ip: public_ip.into(),
            encap: Encap::Vxlan,
            vni: None,
            port: None,
            vtep_mac: None,
        };
        (subnet, record)
    }

    fn fold_all(records: &[(Ipv4Net, PeerSubnet)]) -> (Desired, Vec<String>) {
        fold(&local(), &records.iter().cloned().collect(), RouteSource::Etcd, direct, |_| None)
    }

    #[test]
    fn defaults_come_from_the_network() {
        let (desired, refusals) = fold_all(&[record("172.27.0.0/16", [172, 16, 199, 27])]);
        assert!(refusals.is_empty());
        let remote = &desired.subnets[&"172.27.0.0/16".parse().unwrap()];
        assert_eq!((remote.tunnel.vni, remote.tunnel.port.get()), (local().vni.key(), local().port));
        assert_eq!(remote.tunnel.template[50..56], [0xff; 6], "broadcast where the VTEP's MAC is not known");
        let route = &desired.kernel_routes[&(MAIN_TABLE, "172.27.0.0/16".parse().unwrap())];
        assert_eq!(
            (route.gateway, route.source),
            (IpAddr::from([172, 27, 0, 0]), IpAddr::from([172, 17, 0, 1]))
        );
    }

    #[test]
    fn a_path_mtu_is_the_peers_alone() {
        let records =
            [record("172.27.0.0/16", [172, 16, 199, 27]), record("172.37.0.0/16", [172, 16, 199, 37])];
        let path = |ip: IpAddr| (ip == IpAddr::from([172, 16, 199, 27])).then_some(1400);
        let (desired, _) = fold(&local(), &records.into(), RouteSource::Etcd, direct, path);
        let mtus = |subnet: &str| {
            let subnet: Ipv4Net = subnet.parse().unwrap();
            (desired.subnets[&subnet].tunnel.mtu, desired.kernel_routes[&(MAIN_TABLE, subnet.into())].mtu)
        };
        assert_eq!((mtus("172.27.0.0/16"), mtus("172.37.0.0/16")), ((1350, 1350), (1450, 1450)));
    }

    #[test]
    fn every_further_bridge_has_a_table_and_a_rule() {
        let mut local = local();
        let address = "172.18.0.1/24".parse().unwrap();
        local.bridges.push(Bridge { index: 9, name: "br1".into(), address, ..local.bridges[0].clone() });
        let records = [record("172.27.0.0/16", [172, 16, 199, 27])].into();
        let (desired, _) = fold(&local, &records, RouteSource::Etcd, direct, |_| None);
        let routes: Vec<_> = desired.kernel_routes.values().map(|r| (r.table, r.ifindex, r.source)).collect();
        let (first, second) = (IpAddr::from([172, 17, 0, 1]), IpAddr::from([172, 18, 0, 1]));
        assert_eq!(routes, [(MAIN_TABLE, 3, first), (table::of_bridge(9), 9, second)]);
        let rule =
            OverlayRule { family: Family::V4, priority: 7900, iif: "br1".into(), table: table::of_bridge(9) };
        assert_eq!(desired.rules, [rule].into());
    }

    #[test]
    fn a_record_overrides_vni_and_port() {
        let (subnet, mut peer) = record("172.27.0.0/16", [172, 16, 199, 27]);
        (peer.vni, peer.port) = (Some(Vni::new(42).unwrap()), Some(8472));
        peer.vtep_mac = Some(Mac([2, 0, 0, 0, 0, 9]));
        let (desired, _) = fold_all(&[(subnet, peer)]);
        let tunnel = desired.subnets[&subnet].tunnel;
        assert_eq!((tunnel.vni.get(), tunnel.port.get()), (42, 8472));
        assert_eq!(tunnel.template[50..56], [2, 0, 0, 0, 0, 9]);
    }

    #[test]
    fn our_own_subnet_is_skipped_and_overlaps_are_named() {
        let (desired, refusals) = fold_all(&[
            record("172.17.0.0/16", [172, 16, 199, 17]),
            record("172.17.5.0/24", [172, 16, 199, 27]),
            record("172.16.0.0/12", [172, 16, 199, 37]),
            record("10.9.0.0/24", [172, 16, 199, 17]),
        ]);
        assert!(desired.subnets.is_empty());
        assert_eq!(refusals.len(), 3, "{refusals:?}");
        assert!(refusals.iter().any(|line| line.contains("172.17.5.0/24") && line.contains("docker0")));
        assert!(refusals.iter().any(|line| line.contains("10.9.0.0/24") && line.contains("own address")));
    }
}
