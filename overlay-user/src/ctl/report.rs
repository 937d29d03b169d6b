//! What each command tells, read from the maps. The field names are the JSON's, and stay.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use overlay_common::{
    DropReason, Encap, Kinds,
    addr::MapIp,
    map::{DecapState, Direction, EndpointSource, RouteSource, Traffic, Tunnel},
    vni::VniKey,
};
use serde::Serialize;

use super::uplinks::{self, Names, Uplink, Way, first_address};
use crate::{
    datapath::{DatapathError, map::Maps},
    endpoints::monotonic_now,
    exit,
    status::{self, STALE_AFTER},
};

/// `overlayctl status`.
#[derive(Debug, Serialize)]
pub struct Status {
    /// The node's name.
    pub node: String,
    /// `ok`, `degraded` or `not running`.
    pub state: &'static str,
    /// What is wrong, or empty.
    pub message: String,
    /// The daemon's process id, 0 where it does not run.
    pub pid: u32,
    /// Seconds since the daemon started; 0 where it does not run.
    pub uptime_seconds: u64,
    /// The MAC address of this host's VTEP.
    pub vtep_mac: String,
    /// The kinds in which peers may send; VXLAN always is one.
    pub takes: Vec<&'static str>,
    /// The network's VNI.
    pub vni: u32,
    /// The UDP port.
    pub port: u16,
    /// The overlay MTU, bytes.
    pub mtu: u32,
    /// The first uplink's name.
    pub uplink: String,
    /// Where its tunnel packets are decapsulated: `tc`, `xdp`, or `trial` for tc until XDP has proved itself.
    pub decap: &'static str,
    /// Why there.
    pub decap_reason: String,
    /// The uplinks, the first one first.
    pub uplinks: Vec<Uplink>,
    /// The address that peers send to: the IPv4 one where there are two.
    pub public_ip: String,
    /// The IPv6 address that peers send to; `null` for none.
    pub public_ipv6: Option<String>,
    /// The subnets of this host.
    pub subnets: Vec<String>,
    /// Where routes come from: `etcd` or `file`.
    pub store: &'static str,
    /// `ok`, `degraded` or `starting`.
    pub store_state: &'static str,
    /// Seconds since the store was last in step; `null` for never.
    pub store_age_seconds: Option<u64>,
    /// Peers known.
    pub peers: usize,
    /// Routes known.
    pub routes: usize,
    /// Endpoints known, the bridges' own addresses included.
    pub endpoints: usize,
    /// Packets dropped, all reasons together.
    pub drops: u64,
    /// How often the daemon has repaired what somebody else had changed, since it started.
    pub repaired: u64,
    /// What the operator should know though nothing is wrong.
    pub notes: Vec<String>,
}

impl Status {
    /// 0, 3 or 4.
    pub fn exit_code(&self) -> u8 {
        match self.state {
            "ok" => exit::OK,
            "degraded" => exit::DEGRADED,
            _ => exit::NOT_RUNNING,
        }
    }
}

/// Reads the status.
///
/// # Errors
/// [`DatapathError`].
pub fn status(maps: &Maps) -> Result<Status, DatapathError> {
    let (node, told) = (maps.node()?, maps.status()?);
    let now = status::now();
    let alive = told.pid != 0 && now.saturating_sub(told.heartbeat) <= STALE_AFTER;
    let message = status::text(&told.message);
    let state = match (alive, message.is_empty()) {
        (false, _) => "not running",
        (true, true) => "ok",
        (true, false) => "degraded",
    };
    let mut drops = 0;
    for reason in DropReason::ALL {
        drops += maps.drops(*reason)?;
    }
    let uplinks = uplinks::all(maps, &Names::of(maps)?)?;
    let first = uplinks.first().map(|first| (first.decap, first.decap_reason.clone()));
    let (decap, decap_reason) = first.unwrap_or((DecapState::Tc.name(), String::new()));
    Ok(Status {
        node: status::text(&told.node_name),
        state,
        message,
        pid: if alive { told.pid } else { 0 },
        uptime_seconds: if alive { now.saturating_sub(told.started) } else { 0 },
        vtep_mac: node.vtep_mac.to_string(),
        takes: takes(Kinds::from_bits(node.kinds)),
        vni: node.vni.get(),
        port: node.port.get(),
        mtu: told.mtu,
        uplink: status::text(&told.uplink_name),
        decap,
        decap_reason,
        uplinks,
        public_ip: first_address(told.public_ip, told.public_ip_v6),
        public_ipv6: Some(told.public_ip_v6).filter(|ip| *ip != MapIp::default()).map(address),
        subnets: maps.subnets()?.into_iter().map(|(key, _)| key.prefix.to_string()).collect(),
        store: status::store_kind(told.store_kind),
        store_state: status::store_state(told.store_state),
        store_age_seconds: (told.store_synced != 0).then(|| now.saturating_sub(told.store_synced)),
        peers: maps.peers()?.into_iter().filter(|(key, _)| key.vni == VniKey::NONE).count(),
        routes: maps.routes()?.len(),
        endpoints: maps.endpoints()?.len(),
        drops,
        repaired: told.repaired,
        notes: maps.notes()?,
    })
}

fn takes(kinds: Kinds) -> Vec<&'static str> {
    let takes = |encap: &Encap| kinds.with(Encap::Vxlan).contains(*encap);
    Encap::ALL.into_iter().filter(takes).map(Encap::name).collect()
}

/// One row of `overlayctl peers`.
#[derive(Debug, Serialize)]
pub struct Peer {
    /// The host's underlay address.
    pub public_ip: String,
    /// Its subnets.
    pub subnets: Vec<String>,
    /// The VNI on the wire.
    pub vni: u32,
    /// The UDP port; none for a kind of tunnel without UDP.
    pub port: Option<u16>,
    /// The tunnel kind.
    pub encap: &'static str,
    /// The largest inner packet to it, bytes.
    pub mtu: u32,
    /// The ways through the underlay to it, by which its flows are spread.
    pub hops: Vec<Way>,
    /// Packets sent to it.
    pub packets_to: u64,
    /// Inner bytes sent to it.
    pub bytes_to: u64,
    /// Packets received from it.
    pub packets_from: u64,
    /// Inner bytes received from it.
    pub bytes_from: u64,
}

/// Reads the peers: one row for each host, or more where its subnets are reached in different ways.
///
/// # Errors
/// [`DatapathError`].
pub fn peers(maps: &Maps) -> Result<Vec<Peer>, DatapathError> {
    /// Address, VNI, port and tunnel kind: what makes one row.
    type Key = (MapIp, u32, u16, u32);
    /// Peer id, least MTU, subnets, and one of its tunnels.
    type Row = (u32, u32, BTreeSet<IpNet>, Tunnel);
    let names = Names::of(maps)?;
    let mut rows: BTreeMap<Key, Row> = BTreeMap::new();
    // Routes first: a route that is moved meanwhile leaves the tunnel that it led to.
    let routes = maps.routes()?;
    let tunnels: BTreeMap<_, _> = maps.tunnels()?.into_iter().collect();
    for (key, route) in routes {
        let Some(tunnel) = tunnels.get(&route.tunnel) else { continue };
        let key_of_row = (tunnel.remote, tunnel.vni.get(), tunnel.port.get(), tunnel.encap);
        let row =
            rows.entry(key_of_row).or_insert_with(|| (route.peer, tunnel.mtu, BTreeSet::new(), *tunnel));
        // Its tunnels differ while one takes the other's place.
        row.1 = row.1.min(tunnel.mtu);
        row.2.insert(key.prefix);
    }
    rows.into_iter()
        .map(|((ip, vni, port, encap), (id, mtu, subnets, tunnel))| {
            let Traffic { packets: packets_to, bytes: bytes_to } = maps.traffic(id, Direction::ToPeer)?;
            let Traffic { packets: packets_from, bytes: bytes_from } =
                maps.traffic(id, Direction::FromPeer)?;
            Ok(Peer {
                public_ip: address(ip),
                subnets: subnets.iter().map(ToString::to_string).collect(),
                vni,
                port: Some(port).filter(|port| *port != 0),
                encap: encap_name(encap),
                mtu,
                hops: uplinks::ways(&tunnel, &names),
                packets_to,
                bytes_to,
                packets_from,
                bytes_from,
            })
        })
        .collect()
}

/// One row of `overlayctl routes`.
#[derive(Debug, Serialize)]
pub struct Route {
    /// The peer's subnet.
    pub prefix: String,
    /// The VNI on the wire.
    pub vni: u32,
    /// The host that owns it.
    pub peer: String,
    /// The tunnel kind.
    pub encap: &'static str,
    /// Where it came from: `etcd` or `file`.
    pub source: &'static str,
}

/// Reads the routes.
///
/// # Errors
/// [`DatapathError`].
pub fn routes(maps: &Maps) -> Result<Vec<Route>, DatapathError> {
    let mut routes = maps.routes()?;
    let tunnels: BTreeMap<_, _> = maps.tunnels()?.into_iter().collect();
    routes.sort_by_key(|(key, _)| *key);
    let row = |(key, route): (crate::datapath::map::RouteKey, overlay_common::map::Route)| {
        let tunnel = tunnels.get(&route.tunnel);
        Route {
            prefix: key.prefix.to_string(),
            vni: tunnel.map_or(key.vni, |tunnel| tunnel.vni).get(),
            peer: tunnel.map_or_else(String::new, |tunnel| address(tunnel.remote)),
            encap: encap_name(tunnel.map_or(0, |tunnel| tunnel.encap)),
            source: RouteSource::from_number(route.source).map_or("unknown", RouteSource::name),
        }
    };
    Ok(routes.into_iter().map(row).collect())
}

/// One row of `overlayctl endpoints`.
#[derive(Debug, Serialize)]
pub struct Endpoint {
    /// The address.
    pub ip: String,
    /// Its MAC address.
    pub mac: String,
    /// The interface behind which it lives.
    pub ifindex: u32,
    /// The network.
    pub vni: u32,
    /// Who says so: `spoken`, `neighbour`, `docker`, or `gateway` for the bridge's own address.
    pub source: &'static str,
    /// Seconds since it last spoke through the overlay's programs; `null` for a gateway.
    pub idle_seconds: Option<u64>,
}

/// Reads the endpoints.
///
/// # Errors
/// [`DatapathError`].
pub fn endpoints(maps: &Maps) -> Result<Vec<Endpoint>, DatapathError> {
    let now = monotonic_now();
    let mut endpoints = maps.endpoints()?;
    endpoints.sort_by_key(|(key, _)| *key);
    let row = |(key, endpoint): (overlay_common::map::EndpointKey, overlay_common::map::Endpoint)| {
        let ages = endpoint.source != EndpointSource::Gateway as u32;
        Endpoint {
            ip: address(key.ip),
            mac: endpoint.mac.to_string(),
            ifindex: endpoint.ifindex,
            vni: key.vni.get(),
            source: EndpointSource::name_of(endpoint.source),
            idle_seconds: ages.then(|| now.saturating_sub(endpoint.last_seen) / 1_000_000_000),
        }
    };
    Ok(endpoints.into_iter().map(row).collect())
}

/// One row of `overlayctl drops`.
#[derive(Debug, Serialize)]
pub struct Drop {
    /// The reason's name.
    pub reason: &'static str,
    /// The reason's number.
    pub code: u32,
    /// Packets dropped for it.
    pub packets: u64,
    /// What it means.
    pub meaning: &'static str,
}

/// Reads the drop counters: every reason, or the one that is wanted, zeroes included.
///
/// # Errors
/// [`DatapathError`].
pub fn drops(maps: &Maps, wanted: Option<DropReason>) -> Result<Vec<Drop>, DatapathError> {
    let row = |reason: &DropReason| {
        Ok(Drop {
            reason: reason.name(),
            code: reason.number(),
            packets: maps.drops(*reason)?,
            meaning: reason.meaning().trim(),
        })
    };
    let is_wanted = |reason: &&DropReason| wanted.is_none_or(|wanted| wanted == **reason);
    DropReason::ALL.iter().filter(is_wanted).map(row).collect()
}

fn encap_name(number: u32) -> &'static str {
    Encap::from_number(number).map_or("unknown", Encap::name)
}

/// An address as text.
pub(super) fn address(ip: MapIp) -> String {
    std::net::IpAddr::from(ip).to_string()
}
