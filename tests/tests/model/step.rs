//! What can happen.

use std::time::Duration;

use overlay_common::Encap;
use proptest::{prelude::*, sample::select};

/// The keys of subnets that come and go. Those from [`CONTESTED`] on claim what another one of them claims.
pub(crate) const NAMES: [&str; 8] = [
    "10.50.0.0-24",
    "10.50.1.0-24",
    "10.50.2.0-25",
    "10.50.3.0-24&fd00:5003::-64",
    "10.50.4.0-24&fd00:5004::-80",
    "10.51.0.0-24",
    "10.51.0.0-24&fd00:51::-64",
    "10.52.0.0-24&fd00:51::-64",
];

/// The first of the keys that share a subnet.
pub(crate) const CONTESTED: usize = 5;

/// Keys that name no subnet, or not in the one way that counts, whatever their values.
pub(crate) const ODD: [&str; 8] = [
    "",
    "x",
    "10.50.0.0-024",
    "10.50.0.0-24/x",
    "10.60.0.1-24",
    "10.60.0.0-33",
    "fd00:60::-64",
    "10.60.0.0-24&FD00:60::-64",
];

/// Values that cannot be read.
pub(crate) const SPOILED: [&str; 6] = [
    "",
    "{",
    "[]",
    r#"{"BackendType":"vxlan"}"#,
    r#"{"PublicIP":"banana","BackendType":"vxlan"}"#,
    r#"{"PublicIP":"172.16.199.100","BackendType":"vxlan","BackendData":{"VNI":0}}"#,
];

/// A value that is in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Value {
    /// The last byte of the host's address; [`Value::OURS`] is the daemon's own host.
    pub(crate) host: u8,
    /// How it is reached; `None` for a backend that overlayd does not know.
    pub(crate) encap: Option<Encap>,
    pub(crate) vni: Option<u32>,
    pub(crate) port: Option<u16>,
    pub(crate) mac: bool,
}

impl Value {
    /// What the daemon refuses: a subnet of its own host that none of its bridges has.
    pub(crate) const OURS: u8 = 17;

    pub(crate) fn json(self) -> String {
        let mut data = Vec::new();
        data.extend(self.vni.map(|vni| format!(r#""VNI":{vni}"#)));
        data.extend(self.port.map(|port| format!(r#""Port":{port}"#)));
        data.extend(self.mac.then(|| format!(r#""VtepMAC":"02:00:00:00:00:{:02x}""#, self.host)));
        let kind = self.encap.map_or("wireguard", Encap::backend_type);
        let data = data.join(",");
        format!(
            r#"{{"PublicIP":"172.16.199.{}","BackendType":"{kind}","BackendData":{{{data}}}}}"#,
            self.host
        )
    }
}

/// What somebody does to the kernel behind the daemon's back.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Drift {
    /// The kernel's route to a subnet is deleted.
    KernelRoute(usize),
    /// The neighbour behind it is.
    Neighbour(usize),
    /// The entry of a route in the programs' map is.
    Route(usize),
    /// A peer's entries are.
    Peer(usize),
    /// A route that nobody asked for is entered.
    StrayRoute,
    /// So is one of the kernel, in the daemon's name.
    StrayKernelRoute,
}

/// One thing that happens. None but the last waits for what comes of it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Put(usize, Value),
    Delete(usize),
    Spoil(usize, &'static str),
    PutOdd(&'static str, Value),
    DeleteOdd(&'static str),
    Compact,
    FreezeEtcd,
    ThawEtcd,
    KillEtcd,
    StartEtcd,
    KillDaemon,
    StopDaemon,
    StartDaemon,
    HangUp,
    Drift(Drift),
    Wait(Duration),
    /// Everything is there, and comes to what the keys say.
    Settle,
}

fn value() -> impl Strategy<Value = Value> {
    let vni = select(vec![None, None, Some(1), Some(7), Some(42)]);
    let host = prop_oneof![9 => 100u8..104, 1 => Just(Value::OURS)];
    let encap = prop_oneof![
        8 => Just(Some(Encap::Vxlan)),
        5 => select(Encap::ALL.to_vec()).prop_map(Some),
        1 => Just(None),
    ];
    (host, encap, vni, select(vec![None, None, Some(8472)]), any::<bool>()).prop_map(
        |(host, encap, vni, port, mac)| {
            let port = port.filter(|_| encap == Some(Encap::Vxlan));
            Value { host, encap, vni, port, mac }
        },
    )
}

fn drift() -> impl Strategy<Value = Drift> {
    let name = 0..NAMES.len();
    prop_oneof![
        name.clone().prop_map(Drift::KernelRoute),
        name.clone().prop_map(Drift::Neighbour),
        name.clone().prop_map(Drift::Route),
        name.prop_map(Drift::Peer),
        Just(Drift::StrayRoute),
        Just(Drift::StrayKernelRoute),
    ]
}

/// One thing, or something that befalls etcd or the daemon, and a key that changes before anybody can have noticed.
pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop_oneof![4 => step().prop_map(|step| vec![step]), 1 => gap()]
}

fn gap() -> impl Strategy<Value = Vec<Step>> {
    let fault = select(vec![Step::KillEtcd, Step::KillEtcd, Step::KillDaemon, Step::HangUp, Step::Compact]);
    let change = select(vec![true, true, false]);
    let drawn = (0..NAMES.len(), value(), 100u64..400, fault, change, value(), any::<[bool; 2]>());
    drawn.prop_map(|(name, before, known, fault, goes, after, [comes, settles])| {
        let known = Step::Wait(Duration::from_millis(known));
        let mut steps = vec![Step::Put(name, before), known, fault];
        steps.extend(goes.then_some(Step::Delete(name)));
        steps.extend((comes || !goes).then_some(Step::Put(name, after)));
        steps.extend(settles.then_some(Step::Settle));
        steps
    })
}

fn step() -> impl Strategy<Value = Step> {
    let name = 0..NAMES.len();
    prop_oneof![
        14 => (name.clone(), value()).prop_map(|(name, value)| Step::Put(name, value)),
        5 => name.prop_map(Step::Delete),
        3 => (0..CONTESTED, select(SPOILED.to_vec())).prop_map(|(name, how)| Step::Spoil(name, how)),
        1 => (select(ODD.to_vec()), value()).prop_map(|(name, value)| Step::PutOdd(name, value)),
        1 => select(ODD.to_vec()).prop_map(Step::DeleteOdd),
        1 => Just(Step::Compact),
        1 => Just(Step::FreezeEtcd),
        1 => Just(Step::ThawEtcd),
        1 => Just(Step::KillEtcd),
        1 => Just(Step::StartEtcd),
        1 => Just(Step::KillDaemon),
        1 => Just(Step::StopDaemon),
        1 => Just(Step::StartDaemon),
        2 => Just(Step::HangUp),
        1 => drift().prop_map(Step::Drift),
        3 => (0u64..1500).prop_map(|ms| Step::Wait(Duration::from_millis(ms))),
    ]
}
