use std::{collections::BTreeMap, net::Ipv4Addr};

use ipnet::IpNet;
use overlay_common::{Encap, Mac, Vni, map::RouteSource};
use proptest::prelude::*;

use super::*;
use crate::{
    hops::Slots,
    local::{
        Local,
        tests::{direct, local},
    },
    reconcile::{
        desired::fold,
        observe::Observed,
        plan::plan,
        records::{Records, Touched},
    },
    store::PeerSubnet,
    underlay::Underlay,
};

fn here() -> Local {
    let underlay = Underlay::new(Some([192, 0, 2, 100].into()), "fd00:199::100".parse().ok()).unwrap();
    let mut local = Local { public: underlay, underlay, ..local() };
    local.bridges[0].address_v6 = "fd00:17::1/64".parse().ok();
    let mut second = local.bridges[0].clone();
    (second.index, second.name, second.address) = (9, "br1".into(), "172.19.0.1/24".parse().unwrap());
    second.address_v6 = None;
    local.bridges.push(second);
    local
}

/// What happens: a record comes or changes, a subnet goes, a complete list comes.
#[derive(Clone, Debug)]
enum Step {
    Put(PeerSubnet),
    Delete(IpNet),
    Snapshot(BTreeMap<IpNet, PeerSubnet>),
    /// Somebody changes the kernel behind our back, and everything is read again.
    Drift(u8),
    /// The grace is over.
    Clear,
}

/// A few subnets; some begin with the same address.
fn subnet() -> impl Strategy<Value = IpNet> {
    let texts = [
        "10.1.0.0/16",
        "10.1.0.0/24",
        "10.2.0.0/24",
        "10.3.0.0/24",
        "fd00:1::/48",
        "fd00:1::/64",
        "fd00:2::/64",
    ];
    prop::sample::select(texts.to_vec()).prop_map(|text| text.parse().unwrap())
}

/// A few hosts, which have addresses in common or not, as records go.
fn host() -> impl Strategy<Value = Underlay> {
    (prop::option::of(1u8..5), prop::option::of(1u16..5)).prop_filter_map("an address", |(v4, v6)| {
        let v4 = v4.map(|n| Ipv4Addr::new(192, 0, 2, n));
        Underlay::new(v4, v6.map(|n| [0xfd00, 0x199, 0, 0, 0, 0, 0, n].into()))
    })
}

fn record() -> impl Strategy<Value = PeerSubnet> {
    let port = prop::sample::select(vec![None, Some(8472u16), Some(4790)]);
    let vni = prop::sample::select(vec![None, Some(7u32)]);
    (subnet(), host(), port, vni, prop::option::of(1u8..3)).prop_map(|(subnet, host, port, vni, mac)| {
        PeerSubnet {
            subnet,
            host,
            encap: Encap::Vxlan,
            vni: vni.and_then(|vni| Vni::new(vni).ok()),
            port,
            gre_key: None,
            bridge: None,
            vtep_mac: mac.map(|mac| Mac([2, 0, 0, 0, 0, mac])),
            src_ips: Vec::new(),
            routed: false,
            zero_checksum: true,
        }
    })
}

fn snapshot() -> impl Strategy<Value = BTreeMap<IpNet, PeerSubnet>> {
    prop::collection::vec(record(), 0..6)
        .prop_map(|records| records.into_iter().map(|record| (record.subnet, record)).collect())
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => record().prop_map(Step::Put),
        3 => subnet().prop_map(Step::Delete),
        1 => snapshot().prop_map(Step::Snapshot),
        1 => any::<u8>().prop_map(Step::Drift),
        1 => Just(Step::Clear),
    ]
}

fn wanted(records: &BTreeMap<IpNet, PeerSubnet>) -> Desired {
    let hops = |ip| -> Slots { direct(ip) };
    fold(&here(), records, RouteSource::Etcd, hops, |_| None).0
}

/// As the daemon does it, with the maps and the kernel always willing.
fn bring(part: &Part, records: &Records, held: &mut Held, stage: Stage) {
    let mut plan = plan_part(part, wanted(&records.of(&part.subnets)), held);
    assert_eq!(plan.refusals, [""; 0]);
    if stage == Stage::Maps {
        plan.changes.retain(|change| change.is_for_maps(held));
    }
    for change in &plan.changes {
        match change {
            Change::PutTunnel(id, _) => {
                assert!(!held.observed().tunnels.contains_key(id), "a tunnel in use is overwritten");
            }
            Change::ClearTunnel(id) => assert!(held.is_idle(*id), "a tunnel in use is cleared"),
            _ => {}
        }
        held.record(change);
        for (key, route) in &held.observed().routes {
            let tunnel = held.observed().tunnels.get(&route.tunnel);
            assert!(tunnel.is_some_and(|tunnel| tunnel.get().peer == route.peer), "{key:?} has no tunnel");
        }
    }
}

fn bring_all(records: &Records, held: &mut Held) {
    let rules = desired::rules(&here());
    let parts = Part::all(records, held, 2);
    for stage in [Stage::Maps, Stage::All] {
        parts.iter().for_each(|part| bring(part, records, held, stage));
    }
    let missing: Vec<Change> =
        rules.difference(&held.observed().rules).map(|rule| Change::PutRule(rule.clone())).collect();
    missing.iter().for_each(|rule| held.record(rule));
}

/// Takes something out of what is there, as somebody with bpftool or ip would.
fn drift(observed: &mut Observed, what: u8) {
    match what % 6 {
        0 => drop(observed.routes.pop_first()),
        1 => drop(observed.peers.pop_last()),
        2 => drop(observed.kernel_routes.pop_first()),
        3 => drop(observed.neighbours.pop_last()),
        4 => drop(observed.listen_ports.insert(4791, Encap::Vxlan as u32)),
        _ => observed.routes.values_mut().take(1).for_each(|route| route.source = 0),
    }
}

proptest! {
    /// However it was come by, what parts lead to is what looking at everything at once would: nothing is left to do.
    #[test]
    fn parts_lead_where_the_whole_does(steps in prop::collection::vec(step(), 1..24)) {
        let (mut records, mut held) = (Records::default(), Held::new(Observed::default(), &BTreeMap::new()));
        bring_all(&records, &mut held);
        for step in steps {
            let mut touched = Touched::default();
            match &step {
                Step::Put(record) => records.put(record.clone(), &mut touched),
                Step::Delete(subnet) => records.delete(*subnet, &mut touched),
                Step::Snapshot(all) => records.replace(all.clone(), &mut touched),
                Step::Drift(what) => {
                    let mut observed = held.observed().clone();
                    drift(&mut observed, *what);
                    held = Held::new(observed, &held.into_parts().1);
                    touched.all = true;
                }
                Step::Clear => {
                    for id in held.idle_for(Duration::ZERO) {
                        held.record(&Change::ClearTunnel(id));
                    }
                }
            }
            if touched.all {
                bring_all(&records, &mut held);
            } else {
                bring(&Part::around(&touched, &records, &held), &records, &mut held, Stage::All);
            }
            let all = wanted(records.by_subnet());
            let whole = plan(&all, held.observed(), &BTreeSet::new());
            let idle = held.idle_for(Duration::ZERO);
            let lost: Vec<_> = whole.changes.iter().filter(|change| !is_lost_neighbour(change, &held)).collect();
            prop_assert_eq!(lost, Vec::<&Change>::new(), "after {:?}", step);
            prop_assert_eq!(whole.unreferenced, idle);
            prop_assert_eq!(plan::Used::of(held.observed()), trimmed(held.used()));
        }
    }

    /// What is kept change by change is what reading it anew would give.
    #[test]
    fn what_is_kept_is_what_would_be_read(steps in prop::collection::vec(record(), 1..16)) {
        let (mut records, mut held) = (Records::default(), Held::new(Observed::default(), &BTreeMap::new()));
        for record in steps {
            let mut touched = Touched::default();
            records.put(record, &mut touched);
            bring(&Part::around(&touched, &records, &held), &records, &mut held, Stage::All);
            let anew = Held::new(held.observed().clone(), &BTreeMap::new());
            prop_assert_eq!(anew.index(), held.index());
            prop_assert_eq!(&Records::from(records.by_subnet().clone()), &records);
        }
    }
}

/// Neighbours to which no route leads go when everything is looked at.
fn is_lost_neighbour(change: &Change, held: &Held) -> bool {
    let Change::DeleteNeighbour((ifindex, ip)) = change else { return false };
    let mut routes = held.observed().kernel_routes.values();
    !routes.any(|route| route.ifindex == *ifindex && route.gateway == *ip)
}

/// Without the empty end that removals leave.
fn trimmed(used: &plan::Used) -> plan::Used {
    plan::Used { peers: used.peers.iter().collect(), tunnels: used.tunnels.iter().collect() }
}
