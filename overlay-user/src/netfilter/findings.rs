//! The two questions: may packets go from port to port without the bridge, and which of the user's rules do packets
//! between hosts not see.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use ipnet::Ipv4Net;

use super::{
    read::Reading,
    rules::{Base, Chain, Effect, Family, Hook, Table, Target},
    walk::{Class, Hit, walk},
};

/// The most rules told; of the rest the number.
const TOLD: usize = 6;
/// The most characters of a rule in a note.
const RULE: usize = 110;

/// What the packets that matter have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// The bridges, by ifindex.
    pub bridges: BTreeMap<u32, Bridge>,
    /// The uplinks' names.
    pub uplinks: Vec<String>,
    /// The peers' subnets.
    pub peers: Vec<Ipv4Net>,
    /// The overlay MTU.
    pub mtu: u32,
}

/// A bridge as netfilter sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// Its name.
    pub name: String,
    /// Its address and subnet.
    pub address: Ipv4Net,
    /// The names of its ports.
    pub ports: BTreeSet<String>,
}

/// The answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// The bridges, by ifindex, between whose ports nothing filters or rewrites.
    pub local: BTreeSet<u32>,
    /// What the operator should know, one line each.
    pub notes: Vec<String>,
}

/// Answers both questions.
pub fn look(reading: &Reading, around: &Surroundings) -> Findings {
    let mut findings = Findings::default();
    for trouble in &reading.unknown {
        findings.notes.push(format!("cannot tell all that netfilter does: {trouble}"));
    }
    for (index, bridge) in &around.bridges {
        match obstacle(reading, bridge) {
            None if reading.unknown.is_empty() => drop(findings.local.insert(*index)),
            None => {}
            Some(rule) => findings.notes.push(format!(
                "containers on {} talk to each other over the bridge, not directly: {rule}",
                bridge.name
            )),
        }
        findings.notes.extend(slow_path_dropped(reading, bridge, around));
    }
    findings.notes.extend(unseen(reading, around));
    findings
}

/// What may filter or rewrite packets from one port of the bridge to another.
fn obstacle(reading: &Reading, bridge: &Bridge) -> Option<String> {
    let subnet = vec![bridge.address.trunc()];
    let between = Class {
        iif: Some(bridge.name.clone()),
        oif: Some(bridge.name.clone()),
        source: subnet.clone(),
        destination: subnet.clone(),
        source_is_host: Some(false),
        destination_is_host: Some(false),
    };
    // A bridge's own chains see its ports as interfaces.
    let of_ports = Class { iif: None, oif: None, ..between.clone() };
    // To the host, and redirected to another container: whose answers then come from port to port.
    let outward = Class { oif: None, destination: Vec::new(), destination_is_host: None, ..between.clone() };
    for (table, chain, base) in base_chains(&reading.tables) {
        let hinders = |hit: &Hit<'_>| !matches!(hit.effect, Effect::Observed);
        let found = match (table.family, base.hook) {
            (_, Hook::Device) if !is_on(base, bridge) => None,
            (Family::Bridge | Family::Netdev, _) | (_, Hook::Device) => {
                walk(table, chain, &of_ports).into_iter().find(hinders)
            }
            _ if !reading.bridge_calls_iptables => None,
            (_, hook) => walk(table, chain, &between).into_iter().find(hinders).or_else(|| {
                let hits = if hook == Hook::Prerouting { walk(table, chain, &outward) } else { Vec::new() };
                hits.into_iter().find(|hit| redirects_into(hit, bridge))
            }),
        };
        if let Some(hit) = found {
            return Some(tell(table, &hit));
        }
    }
    None
}

/// Whether a device's chain concerns the bridge. Not every nft tells the device.
fn is_on(base: &Base, bridge: &Bridge) -> bool {
    base.devices.is_empty()
        || base.devices.iter().any(|device| *device == bridge.name || bridge.ports.contains(device))
}

fn redirects_into(hit: &Hit<'_>, bridge: &Bridge) -> bool {
    match hit.effect {
        Effect::Redirected(Target::Address(to)) => is_container(bridge, *to),
        Effect::Redirected(Target::Unknown) => true,
        _ => false,
    }
}

fn is_container(bridge: &Bridge, address: Ipv4Addr) -> bool {
    bridge.address.contains(&address) && bridge.address.addr() != address
}

/// Docker's `icc=false` drops what the kernel would have to forward from the bridge to the bridge, and that is what
/// the fast path leaves to it.
fn slow_path_dropped(reading: &Reading, bridge: &Bridge, around: &Surroundings) -> Option<String> {
    if around.peers.is_empty() {
        return None;
    }
    let class = Class {
        iif: Some(bridge.name.clone()),
        oif: Some(bridge.name.clone()),
        source: vec![bridge.address.trunc()],
        destination: around.peers.clone(),
        source_is_host: Some(false),
        destination_is_host: Some(false),
    };
    let forward = base_chains(&reading.tables).filter(|(_, _, base)| base.hook == Hook::Forward);
    let dropped = |(table, chain, _): (&Table, _, _)| {
        let mut hits = walk(table, chain, &class).into_iter();
        let dropped = hits.any(|hit| *hit.effect == Effect::Dropped && is_dockers(table, &hit, &bridge.name));
        dropped.then_some(table.family)
    };
    let family = forward.filter(|(table, ..)| table.family != Family::Bridge).find_map(dropped)?;
    let (name, mtu) = (&bridge.name, around.mtu);
    let cure = match (family, &around.peers[..]) {
        (Family::Iptables, [peer]) => {
            format!("allow it with iptables -I DOCKER-USER -i {name} -o {name} -d {peer} -j ACCEPT")
        }
        (Family::Iptables, _) => {
            format!(
                "allow it with iptables -I DOCKER-USER -i {name} -o {name} -d SUBNET -j ACCEPT for each peer's"
            )
        }
        _ => format!("set the containers' MTU to {mtu}, which leaves but few of them"),
    };
    Some(format!(
        "icc=false on {name} drops what goes to peers in fragments, over {mtu} bytes without DF or with IP options: {cure}"
    ))
}

/// The user's rules that would see packets between containers of different hosts, one line each.
fn unseen(reading: &Reading, around: &Surroundings) -> Vec<String> {
    if around.peers.is_empty() {
        return Vec::new();
    }
    let mut rules: Vec<String> = Vec::new();
    for (table, chain, base) in base_chains(&reading.tables) {
        let on_uplink =
            base.devices.iter().all(|device| around.uplinks.contains(device)) && !base.devices.is_empty();
        if table.family == Family::Bridge || on_uplink || is_docker_table(table) {
            continue;
        }
        for bridge in around.bridges.values() {
            for class in between_hosts(bridge, around, base) {
                let hits = walk(table, chain, &class);
                let hits = hits.iter().filter(|hit| matters(hit) && !is_dockers(table, hit, &bridge.name));
                for rule in hits.map(|hit| tell(table, hit)) {
                    if !rules.contains(&rule) {
                        rules.push(rule);
                    }
                }
            }
        }
    }
    let more = rules.len().saturating_sub(TOLD);
    rules.truncate(TOLD);
    for rule in &mut rules {
        rule.push_str(" is not seen by packets between containers of different hosts");
    }
    if more > 0 {
        rules.push(format!(
            "and {more} more rules are not seen by packets between containers of different hosts"
        ));
    }
    rules
}

/// To peers, and from them. Users know peers behind the uplink, the kernel routes to them by the bridge: the other
/// interface is left open, but where addresses are translated, which is asked of the kernel's way alone.
fn between_hosts(bridge: &Bridge, around: &Surroundings, base: &Base) -> [Class; 2] {
    let (here, name) = (vec![bridge.address.trunc()], Some(bridge.name.clone()));
    let (device, far) = (base.hook == Hook::Device, if base.nat { name.clone() } else { None });
    let forth = Class {
        iif: if device { None } else { name.clone() },
        oif: far.clone(),
        source: here.clone(),
        destination: around.peers.clone(),
        source_is_host: Some(false),
        destination_is_host: Some(false),
    };
    let back = Class {
        iif: far,
        oif: if device { None } else { name },
        source: around.peers.clone(),
        destination: here,
        ..forth.clone()
    };
    [forth, back]
}

/// In `DOCKER-USER`, where filters belong, a log or a mark is missed too.
fn matters(hit: &Hit<'_>) -> bool {
    *hit.effect != Effect::Observed || hit.chain == "DOCKER-USER"
}

/// The chains of Docker 20.10 to 29, and the rules it puts into others: those for one bridge, from it to itself, and
/// since 28 one in `raw PREROUTING` for each container.
fn is_dockers(table: &Table, hit: &Hit<'_>, bridge: &str) -> bool {
    if is_docker_table(table) || (hit.chain.starts_with("DOCKER") && hit.chain != "DOCKER-USER") {
        return true;
    }
    if table.family != Family::Iptables {
        return false;
    }
    let words: Vec<&str> = hit.text.split(' ').collect();
    match (hit.chain, &words[..]) {
        // Docker sets it when it turns forwarding on.
        ("FORWARD", [policy, drop]) => *policy == "policy" && *drop == "DROP",
        ("FORWARD", ["-i", from, "-o", to, "-j", "DROP"]) => from == to,
        ("PREROUTING", ["-d", _, "!", "-i", from, "-j", "DROP"]) => table.name == "raw" && *from == bridge,
        _ => false,
    }
}

/// The tables of Docker's own nftables backend (29).
fn is_docker_table(table: &Table) -> bool {
    table.family == Family::Ip && table.name == "docker-bridges"
}

fn base_chains(tables: &[Table]) -> impl Iterator<Item = (&Table, &Chain, &Base)> {
    tables.iter().flat_map(|table| {
        table.chains.iter().filter_map(move |chain| Some((table, chain, chain.base.as_ref()?)))
    })
}

fn tell(table: &Table, hit: &Hit<'_>) -> String {
    let mut rule = hit.text.to_owned();
    if let Some((end, _)) = rule.char_indices().nth(RULE) {
        rule.truncate(end);
        rule.push('…');
    }
    format!("{} {}: \"{rule}\"", table.title, hit.chain)
}

#[cfg(test)]
mod tests;
