//! What should be: the store's records, seen from this host.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use ipnet::{IpNet, Ipv4Net};
use overlay_common::{
    Be16, Encap, Mac, Vni,
    addr::MapIp,
    map::{Hop, MAX_HOPS, RouteSource, Tunnel},
    template::{Underlay, Vxlan},
    wire::eth::ETHERTYPE_IPV4,
};

use super::table;
use crate::{
    local::{Bridge, Local, overlaps},
    netlink::{Family, MAIN_TABLE, OverlayRoute, OverlayRule},
    path_mtu,
    store::PeerSubnet,
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

/// Folds the store's records into the desired state. `next_hop` tells the underlay neighbour through which
/// a peer is reached, `path_mtu` the largest outer packet where the way to it carries less than the uplink. Also
/// returns, one line each, the records that cannot be used, and why.
pub fn fold(
    local: &Local,
    records: &BTreeMap<IpNet, PeerSubnet>,
    source: RouteSource,
    next_hop: impl Fn(Ipv4Addr) -> Ipv4Addr,
    path_mtu: impl Fn(Ipv4Addr) -> Option<u32>,
) -> (Desired, Vec<String>) {
    let mut desired = Desired {
        vni: local.vni,
        port: local.port,
        subnets: BTreeMap::new(),
        kernel_routes: BTreeMap::new(),
        rules: local.bridges.iter().skip(1).map(rule).collect(),
    };
    let mut refusals = Vec::new();
    for record in records.values() {
        match judge(local, record) {
            Judgement::Ours => {}
            Judgement::Refused(reason) => refusals.push(reason),
            Judgement::Usable(subnet, public_ip) => {
                let mtu = path_mtu::inner(local.mtu, path_mtu(public_ip), record.encap);
                let tunnel = tunnel(local, record, public_ip, next_hop(public_ip), mtu);
                let remote = RemoteSubnet { public_ip, tunnel, source };
                let routes = kernel_routes(local, subnet, mtu);
                desired.kernel_routes.extend(routes.map(|route| ((route.table, route.prefix), route)));
                desired.subnets.insert(subnet, remote);
            }
        }
    }
    (desired, refusals)
}

/// What is made of a record.
enum Judgement {
    /// Our own announcement.
    Ours,
    Refused(String),
    /// A subnet that is reached over an address.
    Usable(Ipv4Net, Ipv4Addr),
}

fn judge(local: &Local, record: &PeerSubnet) -> Judgement {
    let PeerSubnet { subnet, host, .. } = record;
    let ours = host.has(local.public_ip.into());
    let IpNet::V4(v4) = subnet else {
        // The IPv6 part of our own key.
        return if ours { Judgement::Ours } else { Judgement::Refused(refuse_v6(record)) };
    };
    let own = local.bridges.iter().find(|bridge| overlaps(*v4, bridge.address));
    match own {
        Some(bridge) if ours && bridge.address.trunc() == *v4 => Judgement::Ours,
        Some(bridge) => Judgement::Refused(overlap_message(record, &bridge.name, bridge.address)),
        None if ours || host.has(local.underlay_ip.into()) => Judgement::Refused(format!(
            "subnet {subnet} is announced with this host's own address {host}, but no --bridge has it: \
             ignored; delete its entry, or name its bridge"
        )),
        None => match host.v4() {
            Some(public_ip) => Judgement::Usable(*v4, public_ip),
            None => Judgement::Refused(refuse_v6(record)),
        },
    }
}

fn refuse_v6(PeerSubnet { subnet, host, .. }: &PeerSubnet) -> String {
    format!("subnet {subnet} of peer {host} is not served: this version speaks IPv4 only, inside and outside")
}

/// What is said where a peer's subnet and one of ours overlap.
pub fn overlap_message(record: &PeerSubnet, bridge: &str, address: Ipv4Net) -> String {
    format!(
        "subnet {} of peer {} overlaps {} of {bridge} on this host: give one of the two bridges another subnet",
        record.subnet,
        record.host,
        address.trunc()
    )
}

fn tunnel(local: &Local, record: &PeerSubnet, public_ip: Ipv4Addr, next_hop: Ipv4Addr, mtu: u32) -> Tunnel {
    let vni = record.vni.unwrap_or(local.vni);
    let port = record.port.unwrap_or(local.port);
    match record.encap {
        Encap::Vxlan => {
            let (src, dst) = (local.underlay_ip.octets(), public_ip.octets());
            let template = Vxlan {
                underlay: Underlay::V4 { src, dst },
                carries: ETHERTYPE_IPV4,
                port,
                vni,
                inner_src: local.vtep_mac,
                inner_dst: record.vtep_mac.unwrap_or(Mac::BROADCAST),
            }
            .compile();
            Tunnel {
                template: template.bytes,
                room_flags: template.room_flags,
                template_len: template.len as u32,
                checksum: template.checksum,
                mtu,
                peer: 0,
                encap: record.encap as u32,
                flags: 0,
                local: MapIp::from(local.underlay_ip),
                remote: MapIp::from(public_ip),
                vni: vni.key(),
                port: Be16::new(port),
                padding: [0; 2],
                hops: [Hop { uplink: local.uplink.index, next_hop: next_hop.into() }; MAX_HOPS],
            }
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
    use crate::local::tests::local;

    fn record(subnet: &str, host: [u8; 4]) -> (IpNet, PeerSubnet) {
        let subnet = subnet.parse().unwrap();
        let record = PeerSubnet {
            subnet,
            host: Ipv4Addr::from(host).into(),
            encap: Encap::Vxlan,
            vni: None,
            port: None,
            vtep_mac: None,
            zero_checksum: false,
        };
        (subnet, record)
    }

    fn fold_all(records: &[(IpNet, PeerSubnet)]) -> (Desired, Vec<String>) {
        fold(&local(), &records.iter().cloned().collect(), RouteSource::Etcd, |ip| ip, |_| None)
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
        let path = |ip: Ipv4Addr| (ip.octets()[3] == 27).then_some(1400);
        let (desired, _) = fold(&local(), &records.into(), RouteSource::Etcd, |ip| ip, path);
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
        let (desired, _) = fold(&local, &records, RouteSource::Etcd, |ip| ip, |_| None);
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
        let tunnel = desired.subnets[&"172.27.0.0/16".parse().unwrap()].tunnel;
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

    #[test]
    fn ipv6_inside_or_outside_is_refused_by_name_and_the_rest_is_served() {
        let mut over_v6 = record("172.37.0.0/16", [172, 16, 199, 37]);
        over_v6.1.host = "2001:db8::37".parse::<std::net::Ipv6Addr>().unwrap().into();
        let (desired, refusals) = fold_all(&[
            record("172.27.0.0/16", [172, 16, 199, 27]),
            record("fd00:27::/64", [172, 16, 199, 27]),
            record("fd00:17::/64", [172, 16, 199, 17]),
            over_v6,
        ]);
        assert_eq!(desired.subnets.keys().map(ToString::to_string).collect::<Vec<_>>(), ["172.27.0.0/16"]);
        assert_eq!(refusals.len(), 2, "ours is none: {refusals:?}");
        assert!(refusals.iter().any(|line| line.contains("fd00:27::/64 of peer 172.16.199.27")));
        assert!(refusals.iter().any(|line| line.contains("172.37.0.0/16 of peer 2001:db8::37")));
    }
}
