//! Typed handles to the pinned maps, the same for the daemon and for `overlayctl`.

mod array;
mod batch;
mod generation;
mod hash;
mod raw;
mod trie;

use aya::{
    Pod,
    maps::{Array, HashMap, IterableMap, Map, MapData, MapError, PerCpuArray, RingBuf},
};
use ipnet::IpNet;
use overlay_common::{
    Vni,
    addr::MapIp,
    map::{
        Decap, Endpoint, EndpointKey, Neighbour, NeighbourKey, Node, Note, PathMtu, Peer, PeerKey, Port,
        Route, Sampling, Status, Subnet, Traffic, Tunnel, TunnelDevice, Uplink, name,
    },
    vni::VniKey,
};

pub use self::raw::RawMap;
use self::{generation::Counter, trie::Tries};
use super::{DatapathError, pin::Pins};

/// A value that crosses into the kernel.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Wire<T>(T);

// SAFETY: `Wire` is transparent over a type for which any bytes are a value and which has no padding.
unsafe impl<T: bytemuck::Pod> aya::Pod for Wire<T> {}

/// A route's key: its prefix inside a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteKey {
    /// The network.
    pub vni: VniKey,
    /// The subnet, without host bits.
    pub prefix: IpNet,
}

impl RouteKey {
    /// The key of `prefix` in the network `vni`.
    pub fn new(vni: Vni, prefix: IpNet) -> Self {
        Self { vni: vni.key(), prefix: prefix.trunc() }
    }
}

/// Every map but the ring buffers and what only programs use.
pub struct Maps {
    ports: HashMap<MapData, u32, Wire<Port>>,
    endpoints: HashMap<MapData, Wire<EndpointKey>, Wire<Endpoint>>,
    routes: Tries<Route>,
    subnets: Tries<Subnet>,
    tunnels: Array<MapData, Wire<Tunnel>>,
    peers: HashMap<MapData, Wire<PeerKey>, Wire<Peer>>,
    uplinks: HashMap<MapData, u32, Wire<Uplink>>,
    decaps: HashMap<MapData, u32, Wire<Decap>>,
    listen_ports: HashMap<MapData, u32, u32>,
    node: Array<MapData, Wire<Node>>,
    status: Array<MapData, Wire<Status>>,
    counters: PerCpuArray<MapData, Wire<Traffic>>,
    drops: PerCpuArray<MapData, u64>,
    path_mtus: HashMap<MapData, Wire<MapIp>, Wire<PathMtu>>,
    neighbours: HashMap<MapData, Wire<NeighbourKey>, Wire<Neighbour>>,
    tunnel_devices: HashMap<MapData, u32, Wire<TunnelDevice>>,
    notes: Array<MapData, Wire<Note>>,
    sampling: Array<MapData, Wire<Sampling>>,
    generation: Counter,
}

/// Opens a pinned map as its type; aya compares the sizes of keys and values.
fn open<T>(pins: &Pins, map: &'static str, build: impl FnOnce(MapData) -> Map) -> Result<T, DatapathError>
where
    T: TryFrom<Map, Error = MapError>,
{
    let error = |source| DatapathError::Map { action: "open", map, source };
    let data = MapData::from_pin(pins.map(map)).map_err(error)?;
    T::try_from(build(data)).map_err(error)
}

/// An absent entry is no error.
fn absent_ok(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// All entries of a hash or a trie; one that vanished while the map was walked is skipped.
fn collect<K: Pod, V: Pod>(
    map: &impl IterableMap<K, V>,
    one_by_one: impl Iterator<Item = Result<(K, V), MapError>>,
) -> Result<Vec<(K, V)>, MapError> {
    let mut entries = Vec::new();
    if batch::each(map.map(), |key, value| entries.push((key, value)))? {
        return Ok(entries);
    }
    one_by_one.filter(|entry| !matches!(entry, Err(MapError::KeyNotFound))).collect()
}

impl Maps {
    /// Opens the maps pinned under `pins`.
    ///
    /// # Errors
    /// [`DatapathError::Map`] naming the first that cannot be opened or has other sizes.
    pub fn open(pins: &Pins) -> Result<Self, DatapathError> {
        Ok(Self {
            ports: open(pins, name::PORTS, Map::HashMap)?,
            endpoints: open(pins, name::ENDPOINTS, Map::HashMap)?,
            routes: Tries::open(pins, name::ROUTES_V4, name::ROUTES_V6)?,
            subnets: Tries::open(pins, name::SUBNETS_V4, name::SUBNETS_V6)?,
            tunnels: open(pins, name::TUNNELS, Map::Array)?,
            peers: open(pins, name::PEERS, Map::HashMap)?,
            uplinks: open(pins, name::UPLINKS, Map::HashMap)?,
            decaps: open(pins, name::DECAPS, Map::HashMap)?,
            listen_ports: open(pins, name::LISTEN_PORTS, Map::HashMap)?,
            node: open(pins, name::NODE, Map::Array)?,
            status: open(pins, name::STATUS, Map::Array)?,
            counters: open(pins, name::COUNTERS, Map::PerCpuArray)?,
            drops: open(pins, name::DROPS, Map::PerCpuArray)?,
            path_mtus: open(pins, name::PATH_MTUS, Map::HashMap)?,
            neighbours: open(pins, name::NEIGHBOURS, Map::LruHashMap)?,
            tunnel_devices: open(pins, name::TUNNEL_DEVICES, Map::HashMap)?,
            notes: open(pins, name::NOTES, Map::Array)?,
            sampling: open(pins, name::SAMPLING, Map::Array)?,
            generation: Counter::open(pins)?,
        })
    }

    /// Has the programs forget what they remember of the tables. Every change of one does so itself.
    pub fn forget_flows(&self) {
        self.generation.advance();
    }

    /// Passes on how a change of a table went.
    fn changed<T>(&self, result: T) -> T {
        self.forget_flows();
        result
    }

    /// Opens the ring buffer of events. Only one reader may use it at a time.
    ///
    /// # Errors
    /// [`DatapathError::Map`].
    pub fn events(pins: &Pins) -> Result<RingBuf<MapData>, DatapathError> {
        open(pins, name::EVENTS, Map::RingBuf)
    }

    /// Opens the ring buffer of samples. Only one reader may use it at a time.
    ///
    /// # Errors
    /// [`DatapathError::Map`].
    pub fn samples(pins: &Pins) -> Result<RingBuf<MapData>, DatapathError> {
        open(pins, name::SAMPLES, Map::RingBuf)
    }
}
