use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use overlay_common::{Be16, Encap, Vni, map::RouteSource};
use proptest::prelude::*;

use super::*;
use crate::{
    local::{
        Bridge, Local,
        tests::{direct, local},
    },
    reconcile::{
        desired::{Desired, fold},
        table,
    },
    store::PeerSubnet,
};

/// This host, which speaks both versions of IP, inside and outside.
fn here() -> Local {
    let underlay = Underlay::new(Some([192, 0, 2, 100].into()), "fd00:199::100".parse().ok()).unwrap();
    let mut local = Local { public: underlay, underlay, ..local() };
    local.bridges[0].address_v6 = "fd00:17::1/64".parse().ok();
    local
}

/// The last host speaks IPv6 alone, the others IPv4, and IPv6 as far as a record knows.
const LAST_HOST: u8 = 5;

fn address_v6(host: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0x199, 0, 0, 0, 0, 0, host.into())
}

/// Some subnets of a few hosts, with a few VNIs and ports.
fn records() -> impl Strategy<Value = BTreeMap<IpNet, PeerSubnet>> {
    let port = prop::sample::select(vec![4789u16, 8472]);
    let record = (0u8..12, any::<[bool; 2]>(), 1..=LAST_HOST, 1u32..3, port).prop_map(
        |(subnet, [inner_v6, outer_v6], host, vni, port)| {
            let subnet = if inner_v6 {
                IpNet::new(Ipv6Addr::new(0xfd00, 0x100 + u16::from(subnet), 0, 0, 0, 0, 0, 0).into(), 64)
            } else {
                IpNet::new([10, subnet, 0, 0].into(), 16)
            };
            let v4 = (host != LAST_HOST).then_some(Ipv4Addr::new(192, 0, 2, host));
            let v6 = (outer_v6 || host == LAST_HOST).then_some(address_v6(host));
            let record = PeerSubnet {
                subnet: subnet.unwrap(),
                host: Underlay::new(v4, v6).unwrap(),
                encap: Encap::Vxlan,
                vni: Vni::new(vni).ok(),
                port: Some(port),
                gre_key: None,
                bridge: None,
                vtep_mac: None,
                src_ips: Vec::new(),
                routed: false,
                zero_checksum: outer_v6,
            };
            (record.subnet, record)
        },
    );
    prop::collection::btree_map(0u8..24, record, 0..12).prop_map(|map| map.into_values().collect())
}

fn desired(records: &BTreeMap<IpNet, PeerSubnet>) -> Desired {
    fold(&here(), records, RouteSource::Etcd, direct, |_| None).0
}

/// The same, over some bridges in some order (by ifindex), and with a path MTU to every host.
fn desired_over(records: &BTreeMap<IpNet, PeerSubnet>, bridges: &[u32], path_mtu: Option<u32>) -> Desired {
    let mut local = here();
    let bridge =
        |index: &u32| Bridge { index: *index, name: format!("br{index}"), ..local.bridges[0].clone() };
    local.bridges = bridges.iter().map(bridge).collect();
    fold(&local, records, RouteSource::Etcd, direct, |_| path_mtu).0
}

/// The address at which a record's host is reached, and the MTU to its containers.
fn expected(record: &PeerSubnet, path_mtu: Option<u32>) -> (IpAddr, u32) {
    let over_v6 = match record.subnet {
        IpNet::V4(_) => record.host.v4().is_none(),
        IpNet::V6(_) => record.host.v6().is_some(),
    };
    let (address, overhead) = match over_v6 {
        true => (record.host.v6().unwrap().into(), 70),
        false => (record.host.v4().unwrap().into(), 50),
    };
    let mtu = path_mtu.unwrap_or(1500).min(1500) - overhead;
    let least = if matches!(record.subnet, IpNet::V6(_)) { 1280 } else { 0 };
    (address, mtu.max(least))
}

/// One to three bridges.
fn bridges() -> impl Strategy<Value = Vec<u32>> {
    (Just(vec![3, 4, 5]).prop_shuffle(), 1..=3usize).prop_map(|(mut bridges, count)| {
        bridges.truncate(count);
        bridges
    })
}

/// Whatever was applied so far, no route may point to a tunnel or a peer that is not there.
fn assert_routes_are_whole(observed: &Observed) {
    for (key, route) in &observed.routes {
        let tunnel = observed.tunnels.get(&route.tunnel).unwrap_or_else(|| panic!("{key:?} has no tunnel"));
        assert_eq!(tunnel.get().peer, route.peer);
        assert!(observed.peers.values().any(|peer| peer.id == route.peer), "{key:?} has no peer");
    }
    for route in observed.kernel_routes.values() {
        let neighbour = (route.ifindex, route.gateway);
        assert!(observed.neighbours.contains(&neighbour), "{route:?} has no neighbour");
    }
}

fn carry_out(observed: &mut Observed, plan: &Plan) {
    for change in &plan.changes {
        if let Change::PutTunnel(id, _) = change {
            assert!(!observed.tunnels.contains_key(id), "a tunnel in use is overwritten");
        }
        observed.record(change);
        assert_routes_are_whole(observed);
    }
}

/// What the kernel lets pass must fit the tunnel, at every step, in both directions of a change.
fn assert_kernel_mtus_fit(observed: &Observed) {
    for ((_, prefix), kernel) in &observed.kernel_routes {
        let route = &observed.routes[&RouteKey::new(local().vni, *prefix)];
        assert!(kernel.mtu <= observed.tunnels[&route.tunnel].get().mtu, "{kernel:?}");
    }
}

proptest! {
    #[test]
    fn the_kernels_mtu_never_exceeds_the_tunnels(records in records(), bridges in bridges()) {
        let mut observed = Observed::default();
        for path_mtu in [None, Some(1400), Some(1300), Some(1450), None] {
            let desired = desired_over(&records, &bridges, path_mtu);
            for change in &plan(&desired, &observed, &BTreeSet::new()).changes {
                observed.record(change);
                assert_kernel_mtus_fit(&observed);
            }
            prop_assert!(plan(&desired, &observed, &BTreeSet::new()).changes.is_empty());
        }
    }
}

/// The state that the observed one must be, ids aside.
fn summary(observed: &Observed) -> BTreeMap<IpNet, (IpAddr, u32, u32, u16)> {
    let of_route = |(key, route): (&RouteKey, &Route)| {
        let tunnel = observed.tunnels[&route.tunnel].get();
        (key.prefix, (tunnel.remote.into(), tunnel.mtu, tunnel.vni.get(), tunnel.port.get()))
    };
    observed.routes.iter().map(of_route).collect()
}

proptest! {
    /// From any state to any other: every step is safe, the end is what was desired, and there is nothing
    /// left to do.
    #[test]
    fn converges_step_by_step(
        histories in prop::collection::vec((records(), bridges(), prop::option::of(1280u32..1500)), 1..5)
    ) {
        let mut observed = Observed::default();
        for (records, bridges, path_mtu) in &histories {
            let desired = desired_over(records, bridges, *path_mtu);
            let first = plan(&desired, &observed, &BTreeSet::new());
            prop_assert!(first.refusals.is_empty());
            carry_out(&mut observed, &first);
            let wanted: BTreeMap<_, _> = records
                .iter()
                .map(|(subnet, record)| {
                    let (address, mtu) = expected(record, *path_mtu);
                    (*subnet, (address, mtu, record.vni.unwrap().get(), record.port.unwrap()))
                })
                .collect();
            prop_assert_eq!(summary(&observed), wanted);
            let wanted: BTreeSet<IpAddr> = records.values().flat_map(|r| r.host.addresses()).collect();
            let believed: BTreeSet<IpAddr> = observed.peers.keys().map(|key| key.ip.into()).collect();
            prop_assert_eq!(believed, wanted);
            prop_assert_eq!(observed.kernel_routes.len(), records.len() * bridges.len());
            prop_assert_eq!(observed.neighbours.len(), records.len() * bridges.len());
            prop_assert_eq!(observed.rules.len(), 2 * (bridges.len() - 1));
            for ((_, prefix), route) in &observed.kernel_routes {
                prop_assert_eq!(route.mtu, expected(&records[prefix], *path_mtu).1);
            }

            let second = plan(&desired, &observed, &first.unreferenced);
            prop_assert!(second.changes.iter().all(|change| matches!(change, Change::ClearTunnel(_))));
            carry_out(&mut observed, &second);
            prop_assert_eq!(plan(&desired, &observed, &BTreeSet::new()), Plan::default());
        }
    }

    /// Ids of different hosts never meet, a host has one at whichever of its addresses, and keeps it as long as it is a
    /// peer.
    #[test]
    fn peer_ids_are_stable_and_distinct(before in records(), after in records()) {
        let mut observed = Observed::default();
        let first = plan(&desired(&before), &observed, &BTreeSet::new());
        carry_out(&mut observed, &first);
        let ids = |observed: &Observed| -> BTreeMap<IpAddr, u32> {
            observed.peers.iter().map(|(key, peer)| (key.ip.into(), peer.id)).collect()
        };
        let old = ids(&observed);
        let second = plan(&desired(&after), &observed, &BTreeSet::new());
        carry_out(&mut observed, &second);
        let new = ids(&observed);
        for (ip, id) in &new {
            prop_assert_eq!(old.get(ip).unwrap_or(id), id);
        }
        let number = |ip: &IpAddr| match ip {
            IpAddr::V4(ip) => u16::from(ip.octets()[3]),
            IpAddr::V6(ip) => ip.segments()[7],
        };
        let hosts: BTreeSet<(u16, u32)> = new.iter().map(|(ip, id)| (number(ip), *id)).collect();
        let distinct: BTreeSet<u32> = new.values().copied().collect();
        let numbers: BTreeSet<u16> = new.keys().map(number).collect();
        prop_assert_eq!((distinct.len(), numbers.len()), (hosts.len(), hosts.len()));
        for change in &second.changes {
            if let Change::PutPeer { key, fresh: true, .. } = change {
                prop_assert!(!old.contains_key(&IpAddr::from(key.ip)));
            }
        }
    }
}

/// A peer with one subnet.
fn peer(vni: Option<Vni>) -> (IpNet, PeerSubnet) {
    let subnet = "10.1.0.0/16".parse().unwrap();
    let (host, encap) = (Ipv4Addr::new(192, 0, 2, 1).into(), Encap::Vxlan);
    (
        subnet,
        PeerSubnet {
            subnet,
            host,
            encap,
            vni,
            port: None,
            gre_key: None,
            bridge: None,
            vtep_mac: None,
            src_ips: Vec::new(),
            routed: false,
            zero_checksum: false,
        },
    )
}

#[test]
fn a_foreign_route_is_left_alone_and_named() {
    let (subnet, record) = peer(None);
    let observed = Observed { foreign_routes: [subnet].into(), ..Observed::default() };
    let plan = plan(&desired_over(&[(subnet, record)].into(), &[3, 4], None), &observed, &BTreeSet::new());
    let routes = plan.changes.iter().filter_map(|change| match change {
        Change::PutKernelRoute(route) => Some(route.table),
        _ => None,
    });
    // It is in nobody's way in a further bridge's own table.
    assert_eq!(routes.collect::<Vec<_>>(), [table::of_bridge(4)]);
    assert!(plan.refusals[0].contains("10.1.0.0/16"), "{:?}", plan.refusals);
}

#[test]
fn a_source_behind_nat_is_the_same_peer_and_goes_with_it() {
    let (subnet, record) = peer(None);
    let outer: IpAddr = "203.0.113.9".parse().unwrap();
    let behind = PeerSubnet { src_ips: vec![outer], ..record.clone() };
    let mut observed = Observed::default();
    for (record, sources) in [(behind, 2), (record, 1)] {
        let plan = plan(&desired(&[(subnet, record)].into()), &observed, &BTreeSet::new());
        carry_out(&mut observed, &plan);
        let addresses: BTreeSet<_> = observed.peers.keys().map(|key| key.ip).collect();
        let ids: BTreeSet<_> = observed.peers.values().map(|peer| peer.id).collect();
        assert_eq!((addresses.len(), ids.len()), (sources, 1));
        assert_eq!(addresses.contains(&MapIp::from(outer)), sources == 2);
    }
}

/// It takes ours from our announcement; a kernel device has only its own.
#[test]
fn a_peer_may_send_with_its_own_vni_and_with_ours() {
    let (subnet, record) = peer(Vni::new(42).ok());
    let mut observed = Observed::default();
    let plan = plan(&desired(&[(subnet, record)].into()), &observed, &BTreeSet::new());
    carry_out(&mut observed, &plan);
    let believed: BTreeSet<u32> = observed
        .peers
        .iter()
        .filter(|(_, peer)| peer.network == local().vni.key())
        .map(|(key, _)| key.vni.get())
        .collect();
    assert_eq!(believed, [0, local().vni.get(), 42].into(), "and without any, in tunnels that have none");
}

#[test]
fn a_changed_tunnel_gets_a_new_id_before_the_route_moves() {
    let (subnet, mut record) = peer(None);
    let mut observed = Observed::default();
    let first = plan(&desired(&[(subnet, record.clone())].into()), &observed, &BTreeSet::new());
    carry_out(&mut observed, &first);
    let old = observed.routes.values().next().unwrap().tunnel;
    record.vtep_mac = Some(overlay_common::Mac([2, 0, 0, 0, 0, 7]));
    let plan = plan(&desired(&[(subnet, record)].into()), &observed, &BTreeSet::new());
    let position = |wanted: fn(&Change) -> bool| plan.changes.iter().position(wanted).unwrap();
    assert!(
        position(|c| matches!(c, Change::PutTunnel(..))) < position(|c| matches!(c, Change::PutRoute(..)))
    );
    assert_eq!(plan.unreferenced, [old].into());
    assert_eq!(Be16::new(4789), observed.tunnels[&old].get().port);
}

/// Each way that goes takes an id, and gives back the old one a while later.
#[test]
fn without_a_free_id_the_old_tunnel_serves_on() {
    let (subnet, mut record) = peer(None);
    let mut observed = Observed::default();
    let first = plan(&desired(&[(subnet, record.clone())].into()), &observed, &BTreeSet::new());
    carry_out(&mut observed, &first);
    let (key, before) = observed.routes.clone().pop_first().unwrap();
    let other = Tunnel { mtu: 1, ..observed.tunnels[&before.tunnel].get() };
    for id in 1..MAX_TUNNELS as u32 {
        observed.tunnels.entry(id).or_insert((&other).into());
    }
    record.vtep_mac = Some(overlay_common::Mac([2, 0, 0, 0, 0, 7]));
    let records = [(subnet, record)].into();
    let full = plan(&desired(&records), &observed, &BTreeSet::new());
    carry_out(&mut observed, &full);
    assert!(full.refusals.iter().any(|line| line.contains("10.1.0.0/16")), "{:?}", full.refusals);
    assert_eq!(observed.routes[&key], before);
    let clearable = full.unreferenced;
    assert!(!clearable.contains(&before.tunnel));
    let cleared = plan(&desired(&records), &observed, &clearable);
    carry_out(&mut observed, &cleared);
    let then = plan(&desired(&records), &observed, &BTreeSet::new());
    carry_out(&mut observed, &then);
    assert_ne!(observed.routes[&key].tunnel, before.tunnel);
}
