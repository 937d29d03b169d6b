use ipnet::{IpNet, Ipv4Net};
use overlay_common::{Be16, Encap, Vni, map::RouteSource};
use proptest::prelude::*;

use super::*;
use crate::{
    local::{
        Bridge,
        tests::{direct, local},
    },
    reconcile::{
        desired::{Desired, fold},
        table,
    },
    store::PeerSubnet,
};

/// Some subnets of a few hosts, with a few VNIs and ports.
fn records() -> impl Strategy<Value = BTreeMap<Ipv4Net, PeerSubnet>> {
    let record = (0u8..12, 1u8..6, 1u32..3, prop::sample::select(vec![4789u16, 8472])).prop_map(
        |(subnet, host, vni, port)| {
            let subnet = Ipv4Net::new([10, subnet, 0, 0].into(), 16).unwrap();
            let record = PeerSubnet {
                subnet,
                public_ip: [192, 0, 2, host].into(),
                encap: Encap::Vxlan,
                vni: Vni::new(vni).ok(),
                port: Some(port),
                vtep_mac: None,
            };
            (subnet, record)
        },
    );
    prop::collection::btree_map(0u8..24, record, 0..12).prop_map(|map| map.into_values().collect())
}

fn desired(records: &BTreeMap<Ipv4Net, PeerSubnet>) -> Desired {
    fold(&local(), records, RouteSource::Etcd, direct, |_| None).0
}

/// The same, over some bridges in some order (by ifindex), and with a path MTU to every host.
fn desired_over(records: &BTreeMap<Ipv4Net, PeerSubnet>, bridges: &[u32], path_mtu: Option<u32>) -> Desired {
    let mut local = local();
    let bridge =
        |index: &u32| Bridge { index: *index, name: format!("br{index}"), ..local.bridges[0].clone() };
    local.bridges = bridges.iter().map(bridge).collect();
    fold(&local, records, RouteSource::Etcd, direct, |_| path_mtu).0
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
        assert_eq!(tunnel.peer, route.peer);
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
        let route = &observed.routes[&RouteKey::new(local().vni, (*prefix).into())];
        assert!(kernel.mtu <= observed.tunnels[&route.tunnel].mtu, "{kernel:?}");
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
fn summary(observed: &Observed) -> BTreeMap<IpNet, (Ipv4Addr, u32, u16)> {
    observed
        .routes
        .iter()
        .map(|(key, route)| {
            let tunnel = &observed.tunnels[&route.tunnel];
            (key.prefix, (tunnel.remote.to_v4().unwrap(), tunnel.vni.get(), tunnel.port.get()))
        })
        .collect()
}

proptest! {
    /// From any state to any other: every step is safe, the end is what was desired, and there is nothing
    /// left to do.
    #[test]
    fn converges_step_by_step(
        histories in prop::collection::vec((records(), bridges(), prop::option::of(552u32..1500)), 1..5)
    ) {
        let mut observed = Observed::default();
        for (records, bridges, path_mtu) in &histories {
            let desired = desired_over(records, bridges, *path_mtu);
            let first = plan(&desired, &observed, &BTreeSet::new());
            prop_assert!(first.refusals.is_empty());
            carry_out(&mut observed, &first);
            let expected: BTreeMap<_, _> = records
                .iter()
                .map(|(subnet, r)| (IpNet::from(*subnet), (r.public_ip, r.vni.unwrap().get(), r.port.unwrap())))
                .collect();
            prop_assert_eq!(summary(&observed), expected);
            let wanted: BTreeSet<Ipv4Addr> = records.values().map(|r| r.public_ip).collect();
            let believed: BTreeSet<Ipv4Addr> = observed.peers.keys().map(|key| key.ip.to_v4().unwrap()).collect();
            prop_assert_eq!(believed, wanted);
            prop_assert_eq!(observed.kernel_routes.len(), records.len() * bridges.len());
            prop_assert_eq!(observed.neighbours.len(), records.len() * bridges.len());
            prop_assert_eq!(observed.rules.len(), bridges.len() - 1);
            let mtu = path_mtu.map_or(1450, |path| path - 50);
            prop_assert!(observed.routes.values().all(|route| observed.tunnels[&route.tunnel].mtu == mtu));
            prop_assert!(observed.kernel_routes.values().all(|route| route.mtu == mtu));

            let second = plan(&desired, &observed, &first.unreferenced);
            prop_assert!(second.changes.iter().all(|change| matches!(change, Change::ClearTunnel(_))));
            carry_out(&mut observed, &second);
            prop_assert_eq!(plan(&desired, &observed, &BTreeSet::new()), Plan::default());
        }
    }

    /// Ids of different hosts never meet, and a host keeps its id as long as it is a peer.
    #[test]
    fn peer_ids_are_stable_and_distinct(before in records(), after in records()) {
        let mut observed = Observed::default();
        let first = plan(&desired(&before), &observed, &BTreeSet::new());
        carry_out(&mut observed, &first);
        let ids = |observed: &Observed| -> BTreeMap<Ipv4Addr, u32> {
            observed.peers.iter().map(|(key, peer)| (key.ip.to_v4().unwrap(), peer.id)).collect()
        };
        let old = ids(&observed);
        let second = plan(&desired(&after), &observed, &BTreeSet::new());
        carry_out(&mut observed, &second);
        let new = ids(&observed);
        for (ip, id) in &new {
            prop_assert_eq!(old.get(ip).unwrap_or(id), id);
        }
        let distinct: BTreeSet<u32> = new.values().copied().collect();
        prop_assert_eq!(distinct.len(), new.len());
        for change in &second.changes {
            if let Change::PutPeer { key, fresh: true, .. } = change {
                prop_assert!(!old.contains_key(&key.ip.to_v4().unwrap()));
            }
        }
    }
}

/// A peer with one subnet.
fn peer(vni: Option<Vni>) -> (Ipv4Net, PeerSubnet) {
    let subnet = "10.1.0.0/16".parse().unwrap();
    let (public_ip, encap) = ([192, 0, 2, 1].into(), Encap::Vxlan);
    (subnet, PeerSubnet { subnet, public_ip, encap, vni, port: None, vtep_mac: None })
}

#[test]
fn a_foreign_route_is_left_alone_and_named() {
    let (subnet, record) = peer(None);
    let observed = Observed { foreign_routes: [subnet.into()].into(), ..Observed::default() };
    let plan = plan(&desired_over(&[(subnet, record)].into(), &[3, 4], None), &observed, &BTreeSet::new());
    let routes = plan.changes.iter().filter_map(|change| match change {
        Change::PutKernelRoute(route) => Some(route.table),
        _ => None,
    });
    // It is in nobody's way in a further bridge's own table.
    assert_eq!(routes.collect::<Vec<_>>(), [table::of_bridge(4)]);
    assert!(plan.refusals[0].contains("10.1.0.0/16"), "{:?}", plan.refusals);
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
    assert_eq!(believed, [local().vni.get(), 42].into());
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
    assert_eq!(Be16::new(4789), observed.tunnels[&old].port);
}
