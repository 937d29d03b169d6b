//! Which of the store's records are for us to serve.

use std::net::IpAddr;

use ipnet::IpNet;

use super::outer::{Outer, outer};
use crate::{
    local::{Local, overlaps},
    store::PeerSubnet,
};

/// What is made of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// Our own announcement.
    Ours,
    /// Of no use here: no bridge speaks its version of IP.
    Unspoken,
    /// It cannot be used, and why.
    Refused(String),
    /// A peer's, reached in this way.
    Usable(Outer),
}

pub(super) fn judge(local: &Local, record: &PeerSubnet) -> Judgement {
    let PeerSubnet { subnet, host, .. } = record;
    let ours = host.shares(local.public);
    let is_ours =
        |ip: &IpAddr| local.underlay.addresses().chain(local.public.addresses()).any(|own| own == *ip);
    if let Some(ip) = record.src_ips.iter().find(|ip| is_ours(ip)).filter(|_| !ours) {
        return Judgement::Refused(format!(
            "peer {host} says that its packets come from {ip}, which is this host's own address: ignored; correct its --src-ip"
        ));
    }
    let own = local.bridges.iter().find_map(|bridge| {
        let mut subnets = bridge.subnets();
        Some((bridge, subnets.find(|own| overlaps(*subnet, *own))?))
    });
    match own {
        Some((_, own)) if ours && own == *subnet => Judgement::Ours,
        Some((bridge, own)) => Judgement::Refused(overlap_message(record, &bridge.name, own)),
        None if ours && record.vtep_mac.is_some_and(|mac| mac != local.vtep_mac) => {
            Judgement::Refused(format!(
                "subnet {subnet} is announced with this host's own address {host}, by another VTEP ({}): ignored; give one of \
             the two hosts another --public-ip, or delete the entry if it was this host's",
                record.vtep_mac.unwrap_or_default()
            ))
        }
        None if ours && record.routed => Judgement::Ours,
        None if ours || host.shares(local.underlay) => Judgement::Refused(format!(
            "subnet {subnet} is announced with this host's own address {host}, but no --bridge has it: ignored; \
             delete its entry, or name its bridge"
        )),
        None if matches!(subnet, IpNet::V6(_)) && !local.speaks_v6() => Judgement::Unspoken,
        None => match outer(local.underlay, *host, *subnet) {
            Some(outer) => Judgement::Usable(outer),
            None => Judgement::Refused(format!(
                "subnet {subnet} of peer {host} cannot be reached: this host's underlay address is {}, and they have \
                 no version of IP in common; give one of them an address of the other's version",
                local.underlay
            )),
        },
    }
}

/// What is said where a peer's subnet and one of ours overlap.
pub fn overlap_message(record: &PeerSubnet, bridge: &str, own: IpNet) -> String {
    format!(
        "subnet {} of peer {} overlaps {own} of {bridge} on this host: give one of the two bridges another subnet",
        record.subnet, record.host,
    )
}
