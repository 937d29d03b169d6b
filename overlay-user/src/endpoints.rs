//! Endpoints: where local addresses live. The programs enter who speaks; here the stronger authorities
//! are heard (the bridge's own address, the kernel's neighbour entries), moves are decided, and who has
//! fallen silent is asked before it is forgotten.

mod contest;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use nix::time::{ClockId, clock_gettime};
use overlay_common::{
    Mac,
    addr::MapIp,
    map::{Endpoint, EndpointKey, EndpointSource, Port, endpoint_flag, port_flag},
};
use tracing::{debug, info};

use crate::{
    datapath::{DatapathError, map::Maps},
    local::{Bridge, Local},
    netlink::{FdbKind, Neighbour, Netlink, NetlinkError, NudState},
};

/// How long an endpoint may be silent before the kernel is made to ask for it.
const SILENT_AFTER: u64 = 120 * NANOSECONDS;
/// How long it may stay silent, asked again and again, before it is forgotten.
const FORGOTTEN_AFTER: u64 = 180 * NANOSECONDS;
const NANOSECONDS: u64 = 1_000_000_000;

/// Why the endpoints could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// A map refused.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// The kernel's tables could not be read.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// Where the kernel thinks an address lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    ifindex: u32,
    mac: Mac,
}

/// Enters the bridges' own addresses, and what the kernel's neighbour tables say; removes endpoints of
/// interfaces that are no ports any more; recounts what the programs learned.
///
/// # Errors
/// [`EndpointError`].
pub async fn sync(local: &Local, maps: &mut Maps, netlink: &Netlink) -> Result<(), EndpointError> {
    let ports: BTreeMap<u32, Port> = maps.ports()?.into_iter().collect();
    let mut endpoints: BTreeMap<EndpointKey, Endpoint> = maps.endpoints()?.into_iter().collect();
    let orphans = remove_orphans(local, &ports, &mut endpoints, maps)?;
    for bridge in &local.bridges {
        put_gateways(local, bridge, &endpoints, maps)?;
        let fdb = fdb(bridge, netlink).await?;
        for neighbour in netlink.neighbours_beside(bridge.index, Mac::OVERLAY_NEIGHBOUR).await? {
            if !bridge.contains(neighbour.ip) {
                continue;
            }
            let key = key_of(local, neighbour.ip);
            if orphans.get(&key).is_some_and(|orphan| outlives(&neighbour, orphan)) {
                netlink.delete_neighbour(bridge.index, neighbour.ip).await?;
                continue;
            }
            let old = endpoints.get(&key).copied();
            let place = place(&neighbour, &fdb);
            if let Some(old) = old.filter(|old| contest::is_on(old, place, &neighbour, monotonic_now())) {
                contest::decide(bridge, &key, &old, Some(&neighbour), maps, netlink).await?;
                continue;
            }
            let Some((place, port)) = place.and_then(|place| Some((place, ports.get(&place.ifindex)?)))
            else {
                continue;
            };
            if let Some(endpoint) = settle(old.as_ref(), place, port, monotonic_now()) {
                debug!(ip = %neighbour.ip, ifindex = place.ifindex, mac = %place.mac, "endpoint from the neighbour table");
                maps.put_endpoint(key, endpoint)?;
                endpoints.insert(key, endpoint);
            } else if let Some(old) = old.filter(|old| contest::is_won(old, place, &neighbour)) {
                maps.put_endpoint(key, Endpoint { flags: old.flags & !endpoint_flag::CONTESTED, ..old })?;
            }
        }
    }
    recount(&ports, &endpoints, maps)
}

/// Removes endpoints behind interfaces that are gone, which are returned, and gateways that are none any
/// more.
fn remove_orphans(
    local: &Local,
    ports: &BTreeMap<u32, Port>,
    endpoints: &mut BTreeMap<EndpointKey, Endpoint>,
    maps: &mut Maps,
) -> Result<BTreeMap<EndpointKey, Endpoint>, DatapathError> {
    let gateways: BTreeSet<EndpointKey> =
        local.bridges.iter().flat_map(Bridge::gateways).map(|ip| key_of(local, ip)).collect();
    let is_orphan = |key: &EndpointKey, endpoint: &Endpoint| {
        let stale_gateway = endpoint.flags & endpoint_flag::HOST != 0 && !gateways.contains(key);
        stale_gateway || !ports.contains_key(&endpoint.ifindex) || key.vni != local.vni.key()
    };
    let orphans: BTreeMap<EndpointKey, Endpoint> =
        endpoints.extract_if(.., |key, endpoint| is_orphan(key, endpoint)).collect();
    for key in orphans.keys() {
        maps.delete_endpoint(*key)?;
    }
    Ok(orphans)
}

/// Whether a neighbour entry is what is left of a container whose interface is gone. The kernel would go on
/// sending to its MAC address for half a minute, though a new container may have the address by then.
fn outlives(neighbour: &Neighbour, orphan: &Endpoint) -> bool {
    let foreign = matches!(neighbour.state, NudState::Permanent | NudState::NoArp);
    neighbour.mac == Some(orphan.mac) && !foreign
}

fn key_of(local: &Local, ip: IpAddr) -> EndpointKey {
    EndpointKey { vni: local.vni.key(), ip: ip.into() }
}

/// The bridge's own addresses, so that packets for the host find it and no container can claim them.
fn put_gateways(
    local: &Local,
    bridge: &Bridge,
    endpoints: &BTreeMap<EndpointKey, Endpoint>,
    maps: &mut Maps,
) -> Result<(), DatapathError> {
    let gateway = Endpoint {
        last_seen: 0,
        ifindex: bridge.index,
        flags: endpoint_flag::HOST,
        source: EndpointSource::Gateway as u32,
        mac: bridge.mac,
        gateway_mac: bridge.mac,
    };
    for key in bridge.gateways().map(|ip| key_of(local, ip)) {
        if endpoints.get(&key) != Some(&gateway) {
            maps.put_endpoint(key, gateway)?;
        }
    }
    Ok(())
}

/// The ports of a bridge by the MAC addresses behind them.
async fn fdb(bridge: &Bridge, netlink: &Netlink) -> Result<BTreeMap<Mac, u32>, NetlinkError> {
    let entries = netlink.fdb(bridge.index).await?.into_iter();
    Ok(entries
        .filter(|entry| entry.kind != FdbKind::Local && entry.ifindex != bridge.index)
        .map(|entry| (entry.mac, entry.ifindex))
        .collect())
}

/// What the neighbour table (address to MAC) and the FDB (MAC to port) together say.
fn place(neighbour: &Neighbour, fdb: &BTreeMap<Mac, u32>) -> Option<Place> {
    let mac = neighbour.mac.filter(|_| neighbour.is_valid())?;
    Some(Place { ifindex: *fdb.get(&mac)?, mac })
}

/// The entry that a neighbour's place makes of the one there is; `None` where it changes nothing. A
/// stronger authority stays.
fn settle(old: Option<&Endpoint>, place: Place, port: &Port, now: u64) -> Option<Endpoint> {
    let source = EndpointSource::Neighbour as u32;
    if let Some(old) = old {
        let same =
            old.ifindex == place.ifindex && old.mac == place.mac && old.gateway_mac == port.gateway_mac;
        if old.source > source || (same && old.source == source) {
            return None;
        }
    }
    let same_place = old.filter(|old| old.ifindex == place.ifindex);
    Some(Endpoint {
        last_seen: same_place.map_or(now, |old| old.last_seen),
        ifindex: place.ifindex,
        flags: if port.flags & port_flag::PEER != 0 { endpoint_flag::PEER } else { 0 },
        source,
        mac: place.mac,
        gateway_mac: port.gateway_mac,
    })
}

/// Tells the programs how much they have learned on each port that is still there.
fn recount(
    ports: &BTreeMap<u32, Port>,
    endpoints: &BTreeMap<EndpointKey, Endpoint>,
    maps: &mut Maps,
) -> Result<(), EndpointError> {
    let mut learned: BTreeMap<u32, u32> = BTreeMap::new();
    for endpoint in endpoints.values().filter(|endpoint| endpoint.source == EndpointSource::Spoken as u32) {
        *learned.entry(endpoint.ifindex).or_default() += 1;
    }
    for (ifindex, port) in ports {
        let count = learned.get(ifindex).copied().unwrap_or(0);
        // The programs count on meanwhile; only a count that is too high keeps anybody out.
        if port.learned > count {
            maps.put_port(*ifindex, Port { learned: count, ..*port })?;
        }
    }
    Ok(())
}

/// An address spoke from another place than the one it is known at. Who has it is asked whether it still
/// does; the answer comes as a neighbour event, and [`sync`] acts on that.
///
/// # Errors
/// [`EndpointError`].
pub async fn confirm_move(
    local: &Local,
    ip: MapIp,
    ifindex: u32,
    maps: &mut Maps,
    netlink: &Netlink,
) -> Result<(), EndpointError> {
    let key = EndpointKey { vni: local.vni.key(), ip };
    let ip = IpAddr::from(key.ip);
    let Some(bridge) = local.bridges.iter().find(|bridge| bridge.contains(ip)) else { return Ok(()) };
    let Some(endpoint) = maps.endpoint(key)? else { return Ok(()) };
    if endpoint.source > EndpointSource::Neighbour as u32 {
        return Ok(());
    }
    let neighbours = netlink.neighbours_beside(bridge.index, Mac::OVERLAY_NEIGHBOUR).await?;
    let known = neighbours.iter().find(|neighbour| neighbour.ip == ip);
    if endpoint.ifindex == ifindex {
        // Another MAC address behind the same port: only which one it is has to be asked.
        return Ok(probe(bridge, ip, known, netlink).await?);
    }
    contest::decide(bridge, &key, &endpoint, known, maps, netlink).await
}

/// Makes the kernel ask for an address, by ARP or a neighbour solicitation. `known` is what its neighbour table says of it.
async fn probe(
    bridge: &Bridge,
    ip: IpAddr,
    known: Option<&Neighbour>,
    netlink: &Netlink,
) -> Result<(), NetlinkError> {
    if known.is_some_and(|neighbour| matches!(neighbour.state, NudState::Permanent | NudState::NoArp)) {
        // Somebody's own word, which a probe would overwrite.
        return Ok(());
    }
    let mac = known.filter(|neighbour| neighbour.is_valid()).and_then(|neighbour| neighbour.mac);
    netlink.probe_neighbour(bridge.index, ip, mac).await
}

/// What silence means for an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Silence {
    /// It spoke lately, or is not subject to ageing.
    None,
    /// It answered the kernel, though the programs have not seen it speak.
    Answered,
    /// It should be asked.
    Ask,
    /// It was asked and did not answer.
    Gone,
}

fn silence(endpoint: &Endpoint, neighbour: Option<&Neighbour>, now: u64) -> Silence {
    if endpoint.source >= EndpointSource::Docker as u32 {
        return Silence::None;
    }
    let silent = now.saturating_sub(endpoint.last_seen);
    if silent < SILENT_AFTER {
        return Silence::None;
    }
    match neighbour.map(|neighbour| neighbour.state) {
        Some(NudState::Reachable | NudState::Permanent | NudState::NoArp) => Silence::Answered,
        Some(NudState::Failed) | None if silent >= FORGOTTEN_AFTER => Silence::Gone,
        _ => Silence::Ask,
    }
}

/// Asks for endpoints that have fallen silent, and forgets those that do not answer. Called every few
/// seconds.
///
/// # Errors
/// [`EndpointError`].
pub async fn age(local: &Local, maps: &mut Maps, netlink: &Netlink) -> Result<(), EndpointError> {
    let now = monotonic_now();
    for bridge in &local.bridges {
        let neighbours: BTreeMap<IpAddr, Neighbour> = netlink
            .neighbours_beside(bridge.index, Mac::OVERLAY_NEIGHBOUR)
            .await?
            .into_iter()
            .map(|neighbour| (neighbour.ip, neighbour))
            .collect();
        for (key, endpoint) in maps.endpoints()? {
            let ip = IpAddr::from(key.ip);
            if !bridge.contains(ip) {
                continue;
            }
            let known = neighbours.get(&ip);
            match silence(&endpoint, known, now) {
                Silence::None => {}
                Silence::Answered => maps.put_endpoint(key, Endpoint { last_seen: now, ..endpoint })?,
                Silence::Ask => probe(bridge, ip, known, netlink).await?,
                Silence::Gone => {
                    info!(%ip, ifindex = endpoint.ifindex, "endpoint is silent and does not answer: forgotten");
                    maps.delete_endpoint(key)?;
                }
            }
        }
    }
    Ok(())
}

/// Nanoseconds of `CLOCK_MONOTONIC`, the programs' clock.
pub fn monotonic_now() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_or(0, |time| time.tv_sec() as u64 * NANOSECONDS + time.tv_nsec() as u64)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 5]);

    fn endpoint(ifindex: u32, source: EndpointSource) -> Endpoint {
        Endpoint { last_seen: 7, ifindex, source: source as u32, mac: MAC, ..Endpoint::default() }
    }

    #[test]
    fn authorities_in_order() {
        let place = Place { ifindex: 10, mac: MAC };
        let port = Port { flags: port_flag::PEER, ..Port::default() };
        let settled = |old: Option<Endpoint>| settle(old.as_ref(), place, &port, 99);
        let fresh = settled(None).unwrap();
        assert_eq!((fresh.ifindex, fresh.flags, fresh.last_seen), (10, endpoint_flag::PEER, 99));
        assert_eq!(settled(Some(endpoint(11, EndpointSource::Spoken))).unwrap().ifindex, 10);
        let confirmed = settled(Some(endpoint(10, EndpointSource::Spoken))).unwrap();
        assert_eq!((confirmed.source, confirmed.last_seen), (EndpointSource::Neighbour as u32, 7));
        assert_eq!(settled(Some(endpoint(10, EndpointSource::Neighbour))), None);
        assert_eq!(settled(Some(endpoint(11, EndpointSource::Neighbour))).unwrap().ifindex, 10);
        assert_eq!(settled(Some(endpoint(11, EndpointSource::Docker))), None);
        assert_eq!(settled(Some(endpoint(3, EndpointSource::Gateway))), None);
    }

    #[test]
    fn silent_endpoints_are_asked_before_they_are_forgotten() {
        let now = 1_000 * NANOSECONDS;
        let seen = |ago: u64| Endpoint { last_seen: now - ago, ..endpoint(10, EndpointSource::Neighbour) };
        let neighbour =
            |state| Neighbour { ifindex: 3, ip: IpAddr::V6(Ipv6Addr::LOCALHOST), mac: Some(MAC), state };
        let judge = |ago, state: Option<NudState>| silence(&seen(ago), state.map(neighbour).as_ref(), now);
        assert_eq!(judge(NANOSECONDS, None), Silence::None);
        assert_eq!(judge(SILENT_AFTER, None), Silence::Ask);
        assert_eq!(judge(SILENT_AFTER, Some(NudState::Stale)), Silence::Ask);
        assert_eq!(judge(SILENT_AFTER, Some(NudState::Reachable)), Silence::Answered);
        assert_eq!(judge(FORGOTTEN_AFTER, Some(NudState::Probe)), Silence::Ask);
        assert_eq!(judge(FORGOTTEN_AFTER, Some(NudState::Failed)), Silence::Gone);
        assert_eq!(judge(FORGOTTEN_AFTER, None), Silence::Gone);
        let gateway = Endpoint { last_seen: 0, ..endpoint(3, EndpointSource::Gateway) };
        assert_eq!(silence(&gateway, None, now), Silence::None);
    }
}
