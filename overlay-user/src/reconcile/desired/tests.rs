use std::net::{Ipv4Addr, Ipv6Addr};

use overlay_common::{Encap, Mac, map::tunnel_flag};

use super::*;
use crate::local::tests::{direct, local};

fn record(subnet: &str, host: [u8; 4]) -> (IpNet, PeerSubnet) {
    at(subnet, Ipv4Addr::from(host).into())
}

fn at(subnet: &str, host: Underlay) -> (IpNet, PeerSubnet) {
    let subnet = subnet.parse().unwrap();
    let record = PeerSubnet {
        subnet,
        host,
        encap: Encap::Vxlan,
        vni: None,
        port: None,
        gre_key: None,
        bridge: None,
        vtep_mac: None,
        src_ips: Vec::new(),
        routed: false,
        zero_checksum: true,
    };
    (subnet, record)
}

/// A host with these addresses: 172.16.199.n and fd00:199::n.
fn host(v4: Option<u8>, v6: Option<u16>) -> Underlay {
    let v6 = v6.map(|n| Ipv6Addr::new(0xfd00, 0x199, 0, 0, 0, 0, 0, n));
    Underlay::new(v4.map(|n| Ipv4Addr::new(172, 16, 199, n)), v6).unwrap()
}

/// This host with these addresses, and an IPv6 subnet on docker0.
fn dual(underlay: Underlay) -> Local {
    let mut local = Local { public: underlay, underlay, ..local() };
    local.bridges[0].address_v6 = "fd00:17::1/64".parse().ok();
    local
}

fn fold_on(local: &Local, records: &[(IpNet, PeerSubnet)]) -> (Desired, Vec<String>) {
    fold(local, &records.iter().cloned().collect(), RouteSource::Etcd, direct, |_| None)
}

fn fold_all(records: &[(IpNet, PeerSubnet)]) -> (Desired, Vec<String>) {
    fold_on(&local(), records)
}

#[test]
fn defaults_come_from_the_network() {
    let (desired, refusals) = fold_all(&[record("172.27.0.0/16", [172, 16, 199, 27])]);
    assert!(refusals.is_empty());
    let remote = &desired.subnets[&"172.27.0.0/16".parse().unwrap()];
    assert_eq!((remote.tunnel.vni, remote.tunnel.port.get()), (local().vni.key(), local().port));
    assert_eq!(remote.tunnel.template[50..56], [0xff; 6], "broadcast where the VTEP's MAC is not known");
    let route = &desired.kernel_routes[&(MAIN_TABLE, "172.27.0.0/16".parse().unwrap())];
    assert_eq!((route.gateway, route.source), (IpAddr::from([172, 27, 0, 0]), IpAddr::from([172, 17, 0, 1])));
}

#[test]
fn a_path_mtu_is_the_peers_alone() {
    let records = [record("172.27.0.0/16", [172, 16, 199, 27]), record("172.37.0.0/16", [172, 16, 199, 37])];
    let path = |ip: IpAddr| (ip == IpAddr::from([172, 16, 199, 27])).then_some(1400);
    let (desired, _) = fold(&local(), &records.into(), RouteSource::Etcd, direct, path);
    let mtus = |subnet: &str| {
        let subnet: IpNet = subnet.parse().unwrap();
        (desired.subnets[&subnet].tunnel.mtu, desired.kernel_routes[&(MAIN_TABLE, subnet)].mtu)
    };
    assert_eq!((mtus("172.27.0.0/16"), mtus("172.37.0.0/16")), ((1350, 1350), (1450, 1450)));
}

#[test]
fn every_further_bridge_has_a_table_and_a_rule() {
    let mut local = local();
    let address = "172.18.0.1/24".parse().unwrap();
    local.bridges.push(Bridge { index: 9, name: "br1".into(), address, ..local.bridges[0].clone() });
    let (desired, _) = fold_on(&local, &[record("172.27.0.0/16", [172, 16, 199, 27])]);
    let routes: Vec<_> = desired.kernel_routes.values().map(|r| (r.table, r.ifindex, r.source)).collect();
    let (first, second) = (IpAddr::from([172, 17, 0, 1]), IpAddr::from([172, 18, 0, 1]));
    assert_eq!(routes, [(MAIN_TABLE, 3, first), (table::of_bridge(9), 9, second)]);
    let rule =
        OverlayRule { family: Family::V4, priority: 7900, iif: "br1".into(), table: table::of_bridge(9) };
    assert_eq!(desired.rules, [rule].into());
}

/// The first that speaks it has the main table, whichever of the bridges that is.
#[test]
fn routes_of_ipv6_lead_through_the_bridges_that_speak_it() {
    let mut local = dual(host(Some(17), Some(0x17)));
    let v6 = local.bridges[0].address_v6.take();
    for (index, address) in [(8, "172.18.0.1/24"), (9, "172.19.0.1/24")] {
        let (name, address) = (format!("br{index}"), address.parse().unwrap());
        local.bridges.push(Bridge { index, name, address, address_v6: v6, ..local.bridges[0].clone() });
    }
    local.bridges[2].address_v6 = "fd00:19::1/64".parse().ok();
    let (desired, _) = fold_on(&local, &[at("fd00:27::/64", host(None, Some(0x27)))]);
    let routes: Vec<_> = desired.kernel_routes.values().map(|r| (r.table, r.ifindex, r.source)).collect();
    let source = |text: &str| text.parse::<IpAddr>().unwrap();
    assert_eq!(
        routes,
        [(MAIN_TABLE, 8, source("fd00:17::1")), (table::of_bridge(9), 9, source("fd00:19::1"))]
    );
    let rules: Vec<_> = desired.rules.iter().map(|rule| (rule.family, rule.iif.as_str())).collect();
    assert_eq!(rules, [(Family::V4, "br8"), (Family::V4, "br9"), (Family::V6, "br9")]);
}

/// No tunnel to who asks for none, where nobody stands in between who knows nothing of containers' addresses.
#[test]
fn without_a_tunnel_to_neighbours_only() {
    let (subnet, peer) = record("172.27.0.0/16", [172, 16, 199, 27]);
    let records = [(subnet, PeerSubnet { encap: Encap::Direct, ..peer })];
    let to = |local: &Local, hops: &dyn Fn(IpAddr) -> Slots| {
        let (desired, _) = fold(local, &records.clone().into(), RouteSource::Etcd, hops, |_| None);
        desired.subnets[&subnet].tunnel
    };
    let straight = to(&local(), &direct);
    assert_eq!((straight.encap, straight.template_len, straight.mtu), (Encap::Direct as u32, 14, 1500));
    assert_eq!(straight.room_flags, 0);
    let gateway = |_| direct([172, 16, 199, 1].into());
    let mut one_of_two = direct([172, 16, 199, 27].into());
    one_of_two[7].next_hop = IpAddr::from([172, 16, 199, 1]).into();
    let mut bare = local();
    bare.uplinks[0].ethernet = false;
    for tunnel in [to(&local(), &gateway), to(&local(), &|_| one_of_two), to(&bare, &direct)] {
        assert_eq!((tunnel.encap, tunnel.template_len, tunnel.mtu), (Encap::Vxlan as u32, 64, 1450));
    }
}

/// IPv6 over a neighbour that is reached by IPv4 alone has no next hop that the kernel would take.
#[test]
fn without_a_tunnel_in_the_underlays_own_version_only() {
    let own = dual(host(Some(17), None));
    let (subnet, peer) = at("fd00:27::/64", host(Some(27), None));
    let (desired, _) = fold_on(&own, &[(subnet, PeerSubnet { encap: Encap::Direct, ..peer })]);
    assert_eq!(desired.subnets[&subnet].tunnel.encap, Encap::Vxlan as u32);
    let both = dual(host(Some(17), Some(0x17)));
    let (subnet, peer) = at("fd00:27::/64", host(Some(27), Some(0x27)));
    let (desired, _) = fold_on(&both, &[(subnet, PeerSubnet { encap: Encap::Direct, ..peer })]);
    assert_eq!(desired.subnets[&subnet].tunnel.encap, Encap::Direct as u32);
}

#[test]
fn our_own_address_with_another_vtep_is_another_host_s() {
    let (subnet, peer) = record("10.9.0.0/24", [172, 16, 199, 17]);
    for (vtep_mac, says) in [
        (Some(Mac([2, 0, 0, 0, 0, 9])), "own address 172.16.199.17, by another VTEP (02:00:00:00:00:09)"),
        (Some(local().vtep_mac), "no --bridge has it"),
        (None, "no --bridge has it"),
    ] {
        let records =
            [(subnet, PeerSubnet { vtep_mac, ..peer.clone() }), record("172.27.0.0/16", [172, 16, 199, 27])];
        let (desired, refusals) = fold_all(&records);
        assert!(refusals.len() == 1 && refusals[0].contains(says), "{refusals:?}");
        assert!(desired.subnets.keys().eq(&["172.27.0.0/16".parse::<IpNet>().unwrap()]));
    }
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
    let own = host(Some(17), Some(0x17));
    let (desired, refusals) = fold_on(
        &dual(own),
        &[at("fd00:17::/64", own), at("172.17.0.0/16", own), at("fd00:17::/48", host(Some(27), None))],
    );
    assert!(desired.subnets.is_empty());
    assert!(refusals.len() == 1 && refusals[0].contains("fd00:17::/64 of docker0"), "{refusals:?}");
}

/// The way a subnet is reached: 4 or 6 outside, 0 for refused. The table of the design.
#[test]
fn the_outer_version_is_the_inner_one_where_both_ends_have_it() {
    let (v4, v6, both) = ((Some(27), None), (None, Some(0x27)), (Some(27), Some(0x27)));
    let ours = |(a, b): (Option<u8>, Option<u16>)| host(a.map(|_| 17), b.map(|_| 0x17));
    for (here, there, inner4, inner6) in [
        (v4, v4, 4, 4),
        (v4, v6, 0, 0),
        (v4, both, 4, 4),
        (v6, v4, 0, 0),
        (v6, v6, 6, 6),
        (v6, both, 6, 6),
        (both, v4, 4, 4),
        (both, v6, 6, 6),
        (both, both, 4, 6),
    ] {
        for (subnet, expected) in [("172.27.0.0/16", inner4), ("fd00:27::/64", inner6)] {
            let record = at(subnet, host(there.0, there.1));
            let (desired, refusals) = fold_on(&dual(ours(here)), &[record]);
            let outer = desired.subnets.values().next().map_or(0, |remote| {
                let tunnel = remote.tunnel;
                let overhead = if tunnel.remote.is_v4() { 50 } else { 70 };
                assert_eq!((tunnel.local.is_v4(), tunnel.mtu), (tunnel.remote.is_v4(), 1500 - overhead));
                assert_eq!(desired.kernel_routes.values().next().unwrap().mtu, tunnel.mtu);
                if tunnel.remote.is_v4() { 4 } else { 6 }
            });
            assert_eq!(outer, expected, "{subnet} from {here:?} to {there:?}");
            assert_eq!(refusals.len(), usize::from(expected == 0), "{refusals:?}");
            assert!(refusals.iter().all(|line| line.contains(subnet) && line.contains("in common")));
        }
    }
}

/// Frames to who has not said where they go are for its neighbours, of whom ARP tells.
#[test]
fn the_neighbours_of_bridges_are_learned() {
    let (subnet, peer) = record("172.27.0.0/16", [172, 16, 199, 27]);
    let of = |encap, vtep_mac, bridge| {
        let record = PeerSubnet { encap, vtep_mac, bridge, gre_key: Some(7), ..peer.clone() };
        fold_all(&[(subnet, record)]).0.subnets[&subnet].tunnel
    };
    let mac = Some(Mac([2, 0, 0, 0, 0, 9]));
    let learns = |tunnel: Tunnel| tunnel.flags & tunnel_flag::LEARN != 0;
    for (encap, len, mtu, port) in
        [(Encap::Vxlan, 64, 1450, 4789), (Encap::Geneve, 64, 1450, 6081), (Encap::Gre, 56, 1458, 0)]
    {
        let open = of(encap, None, Some(true));
        assert!(learns(open) && !learns(of(encap, mac, Some(true))), "{encap}");
        assert_eq!(learns(of(encap, None, None)), encap == Encap::Gre);
        assert!(!learns(of(encap, None, Some(false))), "{encap}");
        assert_eq!(IpAddr::from(open.gateway), IpAddr::from([172, 27, 0, 1]));
        assert_eq!((open.template_len, open.mtu, open.port.get()), (len, mtu, port), "{encap}");
    }
    for (encap, len, mtu) in [(Encap::GreL3, 42, 1472), (Encap::Ipip, 34, 1480), (Encap::Direct, 14, 1500)] {
        let tunnel = of(encap, None, Some(true));
        assert!(!learns(tunnel), "{encap}");
        assert_eq!((tunnel.template_len, tunnel.mtu, tunnel.port.get()), (len, mtu, 0), "{encap}");
    }
}

/// A record's port is that of the kind that it names.
#[test]
fn a_port_goes_with_its_kind() {
    let (subnet, peer) = record("172.27.0.0/16", [172, 16, 199, 27]);
    let port = |encap| {
        let record = PeerSubnet { encap, port: Some(7777), ..peer.clone() };
        fold_all(&[(subnet, record)]).0.subnets[&subnet].tunnel.port.get()
    };
    assert_eq!([Encap::Vxlan, Encap::Geneve, Encap::Gre].map(port), [7777, 7777, 0]);
}

#[test]
fn checksums_are_for_those_who_ask_for_them_over_ipv6() {
    let local = dual(host(Some(17), Some(0x17)));
    let flags = |subnet, host, zero_checksum| {
        let (subnet, record) = at(subnet, host);
        let (desired, _) = fold_on(&local, &[(subnet, PeerSubnet { zero_checksum, ..record })]);
        desired.subnets[&subnet].tunnel.flags & tunnel_flag::UDP_CHECKSUM
    };
    let v6 = host(None, Some(0x27));
    assert_eq!(flags("fd00:27::/64", v6, false), tunnel_flag::UDP_CHECKSUM);
    assert_eq!(flags("172.27.0.0/16", v6, false), tunnel_flag::UDP_CHECKSUM);
    assert_eq!(flags("fd00:27::/64", v6, true), 0);
    assert_eq!(flags("fd00:27::/64", host(Some(27), None), false), 0, "over IPv4");
}

#[test]
fn ipv6_has_a_least_mtu() {
    let underlay = host(Some(17), Some(0x17));
    let with_uplink = |mtu| {
        let mut local = dual(underlay);
        local.uplinks[0].mtu = mtu;
        local
    };
    let v6 = [at("fd00:27::/64", host(None, Some(0x27)))];
    assert_eq!(fold_on(&with_uplink(1350), &v6).1, [""; 0]);
    let (desired, refusals) = fold_on(&with_uplink(1349), &v6);
    assert!(desired.subnets.is_empty() && desired.kernel_routes.is_empty());
    assert!(
        refusals.len() == 1 && refusals[0].contains("1279") && refusals[0].contains("1280"),
        "{refusals:?}"
    );
    // Over IPv4 it fits, and IPv4 has no such limit.
    let others = [at("fd00:27::/64", host(Some(27), None)), at("172.27.0.0/16", host(Some(27), None))];
    assert_eq!(fold_on(&with_uplink(1330), &others).1, [""; 0]);
    assert_eq!(fold_on(&with_uplink(1329), &others).0.subnets.len(), 1);
    // What a router says, or who says to be one, takes no subnet away.
    let records = BTreeMap::from(v6);
    let (desired, troubles) = fold(&dual(underlay), &records, RouteSource::Etcd, direct, |_| Some(1300));
    assert_eq!(desired.subnets.values().next().unwrap().tunnel.mtu, 1280);
    assert!(troubles.len() == 1 && troubles[0].contains("larger ones"), "{troubles:?}");
}

#[test]
fn a_host_without_ipv6_inside_is_not_told_of_it() {
    let (desired, refusals) = fold_all(&[at("fd00:27::/64", host(None, Some(0x27)))]);
    assert!(desired.subnets.is_empty() && refusals.is_empty(), "{refusals:?}");
    assert_eq!(peers(&local(), [&at("fd00:27::/64", host(Some(27), None)).1]), BTreeSet::new());
}

#[test]
fn a_host_behind_nat_is_believed_from_its_outer_address_unless_that_is_another_hosts() {
    let outer: IpAddr = "203.0.113.9".parse().unwrap();
    let (subnet, first) = record("172.27.0.0/16", [172, 16, 199, 27]);
    let (other, second) = record("172.37.0.0/16", [172, 16, 199, 37]);
    let sources = |src_ips: Vec<IpAddr>| {
        let first = PeerSubnet { src_ips, ..first.clone() };
        let (desired, troubles) = fold_on(&local(), &[(subnet, first), (other, second.clone())]);
        (desired.subnets[&subnet].sources.clone(), troubles)
    };
    let own = IpAddr::from([172, 16, 199, 27]);
    assert_eq!(sources(vec![outer]), (vec![own, outer], vec![]));
    let (believed, troubles) = sources(vec![[172, 16, 199, 37].into()]);
    assert_eq!(believed, [own]);
    assert!(troubles[0].contains("172.16.199.37") && troubles[0].contains("--src-ip"), "{troubles:?}");
    // Our own address is nobody's either, and such a peer is not served at all.
    let ours = PeerSubnet { src_ips: vec![[172, 16, 199, 17].into()], ..first.clone() };
    let (desired, troubles) = fold_on(&local(), &[(subnet, ours)]);
    assert!(desired.subnets.is_empty() && troubles[0].contains("this host's own address"), "{troubles:?}");
}
