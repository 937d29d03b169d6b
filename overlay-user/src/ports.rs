//! Bridges, their ports and the uplinks: the map entries and attachments that each needs, followed as links
//! come and go.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use overlay_common::{
    addr::MapIp,
    map::{Port, Subnet, Uplink, port_flag, program, subnet_flag},
};
use tracing::{debug, info, warn};

use crate::{
    datapath::{
        DatapathError,
        attach::{self, Attachment, known_program},
        held::{self, HeldLink},
        load::Programs,
        map::{Maps, RouteKey},
        pin::Pins,
    },
    local::{Bridge, Local},
    netlink::Link,
    reconcile::drift::compare,
    underlay::Underlay,
};

/// What is attached.
#[derive(Debug, Default)]
pub struct Ports {
    attached: BTreeSet<Attachment>,
    /// Each link besides its pin: whoever removes the pin does not detach the program. And where somebody else's mount
    /// namespace keeps an unmounted bpffs alive, the link is there but out of reach, and another cannot be attached.
    held: BTreeMap<Attachment, HeldLink>,
    /// The entries that were last wanted: what differs from them was changed by somebody else.
    left: Entries,
    /// What was changed so, one line each.
    drift: Vec<String>,
}

/// What the maps hold of interfaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Entries {
    uplinks: BTreeMap<u32, Uplink>,
    /// Without what the programs count.
    ports: BTreeMap<u32, Port>,
    subnets: BTreeMap<RouteKey, Subnet>,
}

impl Ports {
    /// Puts programs and entries where `links` (all of this namespace) and `local` want them, and removes
    /// those of links that are gone. A link that vanishes meanwhile is none.
    ///
    /// # Errors
    /// [`DatapathError`] where an uplink or a bridge cannot be attached. A single port that cannot is
    /// named in the log and tried again at the next call: its packets go by way of the bridge until then.
    pub fn sync(
        &mut self,
        local: &Local,
        direct: &BTreeSet<u32>,
        links: &[Link],
        programs: &mut Programs,
        maps: &mut Maps,
        pins: &Pins,
    ) -> Result<(), DatapathError> {
        let names: BTreeMap<u32, &str> = links.iter().map(|link| (link.index, link.name.as_str())).collect();
        let wanted = wanted(local, links);
        self.entries(Entries::wanted(local, direct, links), maps)?;
        let pinned: BTreeSet<(u32, String)> = pins.pinned_links()?.into_iter().collect();
        // Where nothing can be pinned, what is held is not to be put at risk.
        let nowhere = !pins.links().is_dir();
        // Who is attached last sees a packet first: what there is most of is not to pass the others.
        let mut in_order: Vec<&Attachment> = wanted.iter().collect();
        let place =
            |attachment: &&Attachment| program::TCX.iter().position(|name| *name == attachment.program);
        in_order.sort_by_key(|attachment| std::cmp::Reverse(place(attachment)));
        for attachment in in_order {
            let is_pinned = pinned.contains(&(attachment.ifindex, attachment.program.to_owned()));
            if (is_pinned || nowhere) && self.attached.contains(attachment) {
                continue;
            }
            let Some(name) = names.get(&attachment.ifindex) else { continue };
            match self.attach(attachment, name, programs, pins) {
                Ok(()) => {}
                Err(error) if essential(local, attachment.ifindex) => return Err(error),
                Err(error) => warn!("{error}: its packets go by way of the bridge"),
            }
        }
        self.remove(&wanted, maps, pins)
    }

    /// Pins the link that is held, or attaches the program.
    fn attach(
        &mut self,
        attachment: &Attachment,
        interface: &str,
        programs: &mut Programs,
        pins: &Pins,
    ) -> Result<(), DatapathError> {
        let pin = pins.link(attachment.ifindex, attachment.program);
        if let Some(held) = self.held.remove(attachment).and_then(|held| held.pinned(&pin)) {
            self.held.insert(attachment.clone(), held);
            return Ok(());
        }
        let adopted = attach::attach(programs, pins, attachment, interface)?;
        debug!(interface, program = attachment.program, adopted, "attached");
        self.attached.insert(attachment.clone());
        if self.held.len() < held::most() {
            self.held.extend(HeldLink::of(&pin).map(|held| (attachment.clone(), held)));
        }
        Ok(())
    }

    /// How many links have no pin any more.
    pub fn unpinned(&self, pins: &Pins) -> usize {
        self.attached.iter().filter(|link| !pins.link(link.ifindex, link.program).exists()).count()
    }

    /// Lets go of the links: their pins hold them from now on.
    pub fn release(&mut self) {
        self.held.clear();
    }

    /// Writes the entries that the programs need before they are attached.
    fn entries(&mut self, wanted: Entries, maps: &mut Maps) -> Result<(), DatapathError> {
        let known = Entries {
            uplinks: maps.uplinks()?.into_iter().collect(),
            ports: maps.ports()?.into_iter().collect(),
            subnets: maps.subnets()?.into_iter().collect(),
        };
        // Programs are reading these: what stands there already is left alone.
        for (index, entry) in
            wanted.uplinks.iter().filter(|(index, entry)| known.uplinks.get(index) != Some(*entry))
        {
            maps.put_uplink(*index, *entry)?;
        }
        for (index, entry) in &wanted.ports {
            put(maps, &known.ports, *index, *entry)?;
        }
        for (key, subnet) in
            wanted.subnets.iter().filter(|(key, subnet)| known.subnets.get(*key) != Some(*subnet))
        {
            maps.put_subnet(*key, *subnet)?;
        }
        for key in known.subnets.keys().filter(|key| !wanted.subnets.contains_key(*key)) {
            maps.delete_subnet(*key)?;
        }
        self.drift.extend(self.left.drift(&known, &wanted));
        self.left = wanted;
        Ok(())
    }

    /// What somebody else did to entries and links, one line each, since this was last asked.
    pub fn take_drift(&mut self) -> Vec<String> {
        std::mem::take(&mut self.drift)
    }

    /// Looks whether the programs are where they were attached; those that are not the next [`Self::sync`] attaches anew.
    pub fn look_at_links(&mut self, programs: &mut Programs, links: &[Link]) {
        let exists = |index: u32| links.iter().find(|link| link.index == index);
        let gone = |attachment: &Attachment| !attach::is_still_attached(programs, attachment);
        for attachment in self.attached.extract_if(.., gone).collect::<Vec<_>>() {
            self.held.remove(&attachment);
            // With its interface it was nobody's doing.
            if let Some(link) = exists(attachment.ifindex) {
                self.drift.push(format!("program {} was detached from {}", attachment.program, link.name));
            }
        }
    }

    /// Removes what belongs to links that are no ports of ours (any more).
    fn remove(
        &mut self,
        wanted: &BTreeSet<Attachment>,
        maps: &mut Maps,
        pins: &Pins,
    ) -> Result<(), DatapathError> {
        for (ifindex, name) in pins.pinned_links()? {
            let known = known_program(&name).filter(|program| *program != program::TUNNEL_INGRESS);
            let Some(program) = known else { continue };
            let attachment = Attachment { ifindex, program };
            if !wanted.contains(&attachment) {
                info!(ifindex, program, "detaching from a link that is gone or left its bridge");
                attach::detach(pins, &attachment)?;
                self.attached.remove(&attachment);
            }
        }
        self.attached.retain(|attachment| wanted.contains(attachment));
        self.held.retain(|attachment, _| wanted.contains(attachment));
        let indexes: BTreeSet<u32> = wanted.iter().map(|attachment| attachment.ifindex).collect();
        for (ifindex, _) in maps.ports()? {
            if !indexes.contains(&ifindex) {
                maps.delete_port(ifindex)?;
            }
        }
        for (ifindex, _) in maps.uplinks()? {
            if !indexes.contains(&ifindex) {
                maps.delete_uplink(ifindex)?;
            }
        }
        Ok(())
    }
}

impl Entries {
    fn wanted(local: &Local, direct: &BTreeSet<u32>, links: &[Link]) -> Self {
        let uplinks =
            local.uplinks.iter().map(|uplink| (uplink.index, uplink_entry(local.underlay))).collect();
        let mut ports = BTreeMap::new();
        for bridge in &local.bridges {
            let both = if direct.contains(&bridge.index) { port_flag::LOCAL } else { 0 };
            ports.insert(bridge.index, port(local, bridge, both | port_flag::BRIDGE));
            for link in links.iter().filter(|link| link.master == Some(bridge.index)) {
                let flags = if link.peer_elsewhere { port_flag::PEER } else { 0 };
                ports.insert(link.index, port(local, bridge, both | flags));
            }
        }
        Self { uplinks, ports, subnets: subnets(local) }
    }

    /// What of these, and still wanted, is `known` to be otherwise.
    fn drift(&self, known: &Self, wanted: &Self) -> Vec<String> {
        let mut drift = Vec::new();
        let uplink = |index: &u32| format!("uplink {index} in the map");
        compare_still(&self.uplinks, &known.uplinks, &wanted.uplinks, uplink, &mut drift);
        let counted = |ports: &BTreeMap<u32, Port>| -> BTreeMap<u32, Port> {
            ports
                .iter()
                .map(|(index, port)| (*index, Port { learned: 0, last_event_ms: 0, ..*port }))
                .collect()
        };
        let port = |index: &u32| format!("port {index} in the map");
        compare_still(&self.ports, &counted(&known.ports), &wanted.ports, port, &mut drift);
        let subnet = |key: &RouteKey| format!("subnet {} in the map", key.prefix);
        compare_still(&self.subnets, &known.subnets, &wanted.subnets, subnet, &mut drift);
        drift
    }
}

/// As [`compare`], of what is wanted now as it was then.
fn compare_still<K: Ord + Copy, V: PartialEq + Copy>(
    left: &BTreeMap<K, V>,
    known: &BTreeMap<K, V>,
    wanted: &BTreeMap<K, V>,
    name: impl Fn(&K) -> String,
    drift: &mut Vec<String>,
) {
    let still = |(key, value): (&K, &V)| (wanted.get(key) == Some(value)).then_some((*key, *value));
    let left: BTreeMap<K, V> = left.iter().filter_map(still).collect();
    let known =
        known.iter().filter(|(key, _)| left.contains_key(*key)).map(|(key, value)| (*key, *value)).collect();
    compare(&left, &known, name, drift);
}

/// The uplinks and the bridges: without them there is no overlay.
fn essential(local: &Local, ifindex: u32) -> bool {
    local.uplink(ifindex).is_some() || local.bridges.iter().any(|bridge| bridge.index == ifindex)
}

fn wanted(local: &Local, links: &[Link]) -> BTreeSet<Attachment> {
    let mut wanted = BTreeSet::new();
    for uplink in &local.uplinks {
        wanted.insert(Attachment { ifindex: uplink.index, program: uplink.program() });
        if uplink.ethernet {
            wanted.insert(Attachment { ifindex: uplink.index, program: program::UPLINK_KINDS });
            wanted.insert(Attachment { ifindex: uplink.index, program: program::UPLINK_RESOLVE });
        }
    }
    for bridge in &local.bridges {
        wanted.insert(Attachment { ifindex: bridge.index, program: program::WORKLOAD_EGRESS });
        wanted.insert(Attachment { ifindex: bridge.index, program: program::BRIDGE_EGRESS });
        let ports = links.iter().filter(|link| link.master == Some(bridge.index));
        wanted
            .extend(ports.map(|link| Attachment { ifindex: link.index, program: program::WORKLOAD_EGRESS }));
    }
    let exists: BTreeSet<u32> = links.iter().map(|link| link.index).collect();
    wanted.retain(|attachment| exists.contains(&attachment.ifindex));
    wanted
}

/// Whichever of the uplinks has an address, packets to it come in on any of them.
fn uplink_entry(underlay: Underlay) -> Uplink {
    let v4 = underlay.v4().map(|ip| ip.octets()).unwrap_or_default();
    Uplink { v4, v6: underlay.v6().map(|ip| ip.octets()).unwrap_or_default() }
}

/// What the programs know of the bridges' subnets.
fn subnets(local: &Local) -> BTreeMap<RouteKey, Subnet> {
    let of_bridge = |bridge: &Bridge| {
        let (index, broadcast) = (bridge.index, MapIp::from(bridge.address.broadcast()));
        let entry = move |(subnet, gateway): (IpNet, IpAddr)| {
            // IPv6 has none.
            let broadcast = if gateway.is_ipv4() { broadcast } else { MapIp::default() };
            let entry = Subnet { bridge: index, gateway: gateway.into(), broadcast, flags: 0 };
            (RouteKey::new(local.vni, subnet), entry)
        };
        bridge.subnets().zip(bridge.gateways()).map(entry).collect::<Vec<_>>()
    };
    // Through the first bridge, as what the host sends itself.
    let routed = |subnet: &IpNet| {
        let bridge = local.bridges.first()?;
        let gateway = bridge.gateways().find(|gateway| gateway.is_ipv4() == subnet.addr().is_ipv4())?;
        let flags = subnet_flag::ROUTED;
        let entry =
            Subnet { bridge: bridge.index, gateway: gateway.into(), broadcast: MapIp::default(), flags };
        Some((RouteKey::new(local.vni, *subnet), entry))
    };
    let bridged = local.bridges.iter().flat_map(of_bridge);
    local.routed.iter().filter_map(routed).chain(bridged).collect()
}

fn port(local: &Local, bridge: &Bridge, flags: u32) -> Port {
    let v6 = bridge.address_v6;
    Port {
        vni: local.vni.key(),
        bridge: bridge.index,
        flags,
        subnet: bridge.address.network().octets(),
        mask: bridge.address.netmask().octets(),
        gateway: bridge.address.addr().octets(),
        subnet_v6: v6.map(|v6| v6.network().octets()).unwrap_or_default(),
        // All ones where there is none: no address is in it then.
        mask_v6: v6.map_or([0xff; 16], |v6| v6.netmask().octets()),
        gateway_v6: v6.map(|v6| v6.addr().octets()).unwrap_or_default(),
        gateway_mac: bridge.mac,
        padding: [0; 2],
        learned: 0,
        last_event_ms: 0,
    }
}

/// Writes an entry unless it stands there already; what the programs count in it is kept.
fn put(maps: &mut Maps, known: &BTreeMap<u32, Port>, ifindex: u32, port: Port) -> Result<(), DatapathError> {
    let old = known.get(&ifindex);
    let new = old.map_or(port, |old| Port { learned: old.learned, last_event_ms: old.last_event_ms, ..port });
    if old == Some(&new) { Ok(()) } else { maps.put_port(ifindex, new) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::tests::local;

    fn link(index: u32, master: Option<u32>) -> Link {
        Link {
            index,
            name: format!("if{index}"),
            kind: Some("veth".into()),
            ethernet: true,
            mac: None,
            mtu: 1500,
            up: true,
            master,
            peer_elsewhere: true,
        }
    }

    #[test]
    fn every_port_of_our_bridges_and_nothing_else() {
        let links = [link(2, None), link(3, None), link(7, Some(3)), link(8, Some(9)), link(9, None)];
        let wanted = wanted(&local(), &links);
        let pairs: Vec<_> = wanted.iter().map(|a| (a.ifindex, a.program)).collect();
        assert_eq!(
            pairs,
            [
                (2, program::UPLINK_INGRESS),
                (2, program::UPLINK_KINDS),
                (2, program::UPLINK_RESOLVE),
                (3, program::BRIDGE_EGRESS),
                (3, program::WORKLOAD_EGRESS),
                (7, program::WORKLOAD_EGRESS)
            ]
        );
    }

    #[test]
    fn links_that_are_gone_want_nothing() {
        assert!(wanted(&local(), &[]).is_empty());
    }
}
