//! Typed handles to the pinned maps, the same for the daemon and for `overlayctl`.

use aya::maps::{
    Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, PerCpuValues, RingBuf, lpm_trie::Key,
};
use ipnet::Ipv4Net;
use overlay_common::{
    DropReason, Vni,
    map::{
        Direction, Endpoint, EndpointKey, Node, Peer, PeerKey, Port, PrefixV4, Route, Status, Subnet,
        Traffic, Tunnel, Uplink, name,
    },
    vni::VniKey,
};

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
    pub prefix: Ipv4Net,
}

impl RouteKey {
    /// The key of `prefix` in the network `vni`.
    pub fn new(vni: Vni, prefix: Ipv4Net) -> Self {
        Self { vni: vni.key(), prefix: prefix.trunc() }
    }

    fn to_trie(self) -> Key<Wire<PrefixV4>> {
        let bits = PrefixV4::VNI_BITS + u32::from(self.prefix.prefix_len());
        Key::new(bits, Wire(PrefixV4 { vni: self.vni, addr: self.prefix.network().octets() }))
    }

    /// `None` for a prefix that does not match the whole VNI, which nobody of us writes.
    fn from_trie(key: &Key<Wire<PrefixV4>>) -> Option<Self> {
        let (bits, Wire(data)) = (key.prefix_len(), key.data());
        let len = u8::try_from(bits.checked_sub(PrefixV4::VNI_BITS)?).ok()?;
        Some(Self { vni: data.vni, prefix: Ipv4Net::new(data.addr.into(), len).ok()? })
    }
}

/// Every map but the ring buffer.
pub struct Maps {
    ports: HashMap<MapData, u32, Wire<Port>>,
    endpoints: HashMap<MapData, Wire<EndpointKey>, Wire<Endpoint>>,
    routes: LpmTrie<MapData, Wire<PrefixV4>, Wire<Route>>,
    subnets: LpmTrie<MapData, Wire<PrefixV4>, Wire<Subnet>>,
    tunnels: Array<MapData, Wire<Tunnel>>,
    peers: HashMap<MapData, Wire<PeerKey>, Wire<Peer>>,
    uplinks: HashMap<MapData, u32, Wire<Uplink>>,
    listen_ports: HashMap<MapData, u32, u32>,
    node: Array<MapData, Wire<Node>>,
    status: Array<MapData, Wire<Status>>,
    counters: PerCpuArray<MapData, Wire<Traffic>>,
    drops: PerCpuArray<MapData, u64>,
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

/// Collects entries; one that vanished while the map was walked is skipped.
fn collect<K, V>(entries: impl Iterator<Item = Result<(K, V), MapError>>) -> Result<Vec<(K, V)>, MapError> {
    entries.filter(|entry| !matches!(entry, Err(MapError::KeyNotFound))).collect()
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
            routes: open(pins, name::ROUTES_V4, Map::LpmTrie)?,
            subnets: open(pins, name::SUBNETS_V4, Map::LpmTrie)?,
            tunnels: open(pins, name::TUNNELS, Map::Array)?,
            peers: open(pins, name::PEERS, Map::HashMap)?,
            uplinks: open(pins, name::UPLINKS, Map::HashMap)?,
            listen_ports: open(pins, name::LISTEN_PORTS, Map::HashMap)?,
            node: open(pins, name::NODE, Map::Array)?,
            status: open(pins, name::STATUS, Map::Array)?,
            counters: open(pins, name::COUNTERS, Map::PerCpuArray)?,
            drops: open(pins, name::DROPS, Map::PerCpuArray)?,
        })
    }

    /// Opens the ring buffer of events. Only one reader may use it at a time.
    ///
    /// # Errors
    /// [`DatapathError::Map`].
    pub fn events(pins: &Pins) -> Result<RingBuf<MapData>, DatapathError> {
        open(pins, name::EVENTS, Map::RingBuf)
    }
}

/// Declares the accessors of a hash map.
macro_rules! hash_accessors {
    ($field:ident, $name:expr, $key:ty, $value:ty, $to:expr, $from:expr, $all:ident, $get:ident, $put:ident, $delete:ident) => {
        impl Maps {
            #[doc = concat!("All entries of `", stringify!($field), "`.\n\n# Errors\n[`DatapathError::Map`].")]
            pub fn $all(&self) -> Result<Vec<($key, $value)>, DatapathError> {
                let entries = collect(self.$field.iter())
                    .map_err(|source| DatapathError::Map { action: "read", map: $name, source })?;
                Ok(entries.into_iter().map(|(key, Wire(value))| ($from(key), value)).collect())
            }

            #[doc = concat!("One entry of `", stringify!($field), "`.\n\n# Errors\n[`DatapathError::Map`].")]
            pub fn $get(&self, key: $key) -> Result<Option<$value>, DatapathError> {
                match self.$field.get(&$to(key), 0) {
                    Ok(Wire(value)) => Ok(Some(value)),
                    Err(MapError::KeyNotFound) => Ok(None),
                    Err(source) => Err(DatapathError::Map { action: "read", map: $name, source }),
                }
            }

            #[doc = concat!("Enters or replaces an entry of `", stringify!($field), "`.\n\n# Errors\n[`DatapathError::Map`].")]
            pub fn $put(&mut self, key: $key, value: $value) -> Result<(), DatapathError> {
                self.$field
                    .insert($to(key), Wire(value), 0)
                    .map_err(|source| DatapathError::Map { action: "write", map: $name, source })
            }

            #[doc = concat!("Removes an entry of `", stringify!($field), "`, if there is one.\n\n# Errors\n[`DatapathError::Map`].")]
            pub fn $delete(&mut self, key: $key) -> Result<(), DatapathError> {
                absent_ok(self.$field.remove(&$to(key)))
                    .map_err(|source| DatapathError::Map { action: "write", map: $name, source })
            }
        }
    };
}

hash_accessors!(ports, name::PORTS, u32, Port, |k| k, |k| k, ports, port, put_port, delete_port);
hash_accessors!(
    uplinks,
    name::UPLINKS,
    u32,
    Uplink,
    |k| k,
    |k| k,
    uplinks,
    uplink,
    put_uplink,
    delete_uplink
);
hash_accessors!(
    peers,
    name::PEERS,
    PeerKey,
    Peer,
    Wire,
    |k: Wire<_>| k.0,
    peers,
    peer,
    put_peer,
    delete_peer
);
hash_accessors!(
    endpoints,
    name::ENDPOINTS,
    EndpointKey,
    Endpoint,
    Wire,
    |k: Wire<_>| k.0,
    endpoints,
    endpoint,
    put_endpoint,
    delete_endpoint
);

/// Declares the accessors of an LPM trie.
macro_rules! trie_accessors {
    ($field:ident, $name:expr, $value:ty, $all:ident, $put:ident, $delete:ident) => {
        impl Maps {
            #[doc = concat!("All entries of `", stringify!($field), "`.\n\n# Errors\n[`DatapathError::Map`].")]
            pub fn $all(&self) -> Result<Vec<(RouteKey, $value)>, DatapathError> {
                let entries = collect(self.$field.iter())
                    .map_err(|source| DatapathError::Map { action: "read", map: $name, source })?;
                Ok(entries
                    .into_iter()
                    .filter_map(|(key, Wire(value))| Some((RouteKey::from_trie(&key)?, value)))
                    .collect())
            }

            #[doc = concat!("Enters or replaces an entry of `", stringify!($field), "`.\n\n# Errors\n[`DatapathError::Map`].")]
            pub fn $put(&mut self, key: RouteKey, value: $value) -> Result<(), DatapathError> {
                self.$field
                    .insert(&key.to_trie(), Wire(value), 0)
                    .map_err(|source| DatapathError::Map { action: "write", map: $name, source })
            }

            #[doc = concat!("Removes an entry of `", stringify!($field), "`, if there is one.\n\n# Errors\n[`DatapathError::Map`].")]
            pub fn $delete(&mut self, key: RouteKey) -> Result<(), DatapathError> {
                absent_ok(self.$field.remove(&key.to_trie()))
                    .map_err(|source| DatapathError::Map { action: "write", map: $name, source })
            }
        }
    };
}

trie_accessors!(routes, name::ROUTES_V4, Route, routes, put_route, delete_route);
trie_accessors!(subnets, name::SUBNETS_V4, Subnet, subnets, put_subnet, delete_subnet);

impl Maps {
    /// The tunnels in use, by id.
    ///
    /// # Errors
    /// [`DatapathError::Map`].
    pub fn tunnels(&self) -> Result<Vec<(u32, Tunnel)>, DatapathError> {
        let mut tunnels = Vec::new();
        for (id, tunnel) in (0..).zip(self.tunnels.iter()) {
            let Wire(tunnel) =
                tunnel.map_err(|source| DatapathError::Map { action: "read", map: name::TUNNELS, source })?;
            if tunnel.template_len != 0 {
                tunnels.push((id, tunnel));
            }
        }
        Ok(tunnels)
    }

    /// Writes a tunnel. The id must not be in use: see [`Tunnel`].
    ///
    /// # Errors
    /// [`DatapathError::Map`].
    pub fn put_tunnel(&mut self, id: u32, tunnel: Tunnel) -> Result<(), DatapathError> {
        let result = self.tunnels.set(id, Wire(tunnel), 0);
        result.map_err(|source| DatapathError::Map { action: "write", map: name::TUNNELS, source })
    }

    /// The further UDP ports listened on.
    ///
    /// # Errors
    /// [`DatapathError::Map`].
    pub fn listen_ports(&self) -> Result<Vec<(u16, u32)>, DatapathError> {
        let entries = collect(self.listen_ports.iter());
        let entries = entries.map_err(|source| DatapathError::Map {
            action: "read",
            map: name::LISTEN_PORTS,
            source,
        })?;
        Ok(entries.into_iter().filter_map(|(port, encap)| Some((u16::try_from(port).ok()?, encap))).collect())
    }

    /// Listens on a UDP port.
    ///
    /// # Errors
    /// [`DatapathError::Map`].
    pub fn put_listen_port(&mut self, port: u16, encap: u32) -> Result<(), DatapathError> {
        let result = self.listen_ports.insert(u32::from(port), encap, 0);
        result.map_err(|source| DatapathError::Map { action: "write", map: name::LISTEN_PORTS, source })
    }

    /// Listens on a UDP port no more.
    ///
    /// # Errors
    /// [`DatapathError::Map`].
    pub fn delete_listen_port(&mut self, port: u16) -> Result<(), DatapathError> {
        let result = absent_ok(self.listen_ports.remove(&u32::from(port)));
        result.map_err(|source| DatapathError::Map { action: "write", map: name::LISTEN_PORTS, source })
    }

    /// What the programs know of this host.
    ///
    /// # Errors
    /// [`DatapathError::Map`].
    pub fn node(&self) -> Result<Node, DatapathError> {
        let result = self.node.get(&0, 0);
        result.map(|Wire(node)| node).map_err(|source| DatapathError::Map {
            action: "read",
            map: name::NODE,
            source,
        })
    }

    /// Tells the programs about this host.
    ///
    /// # Errors
    /// [`DatapathError::Map`].
    pub fn put_node(&mut self, node: Node) -> Result<(), DatapathError> {
        let result = self.node.set(0, Wire(node), 0);
        result.map_err(|source| DatapathError::Map { action: "write", map: name::NODE, source })
    }

    /// The daemon's last word on itself.
    ///
    /// # Errors
    /// [`DatapathError::Map`].
    pub fn status(&self) -> Result<Status, DatapathError> {
        let result = self.status.get(&0, 0);
        result.map(|Wire(status)| status).map_err(|source| DatapathError::Map {
            action: "read",
            map: name::STATUS,
            source,
        })
    }

    /// Replaces the daemon's word on itself.
    ///
    /// # Errors
    /// [`DatapathError::Map`].
    pub fn put_status(&mut self, status: Status) -> Result<(), DatapathError> {
        let result = self.status.set(0, Wire(status), 0);
        result.map_err(|source| DatapathError::Map { action: "write", map: name::STATUS, source })
    }

    /// A peer's traffic in one direction, all CPUs together.
    ///
    /// # Errors
    /// [`DatapathError::Map`].
    pub fn traffic(&self, peer: u32, direction: Direction) -> Result<Traffic, DatapathError> {
        let values = self.counters.get(&Traffic::index(peer, direction), 0);
        let values =
            values.map_err(|source| DatapathError::Map { action: "read", map: name::COUNTERS, source })?;
        Ok(values.iter().fold(Traffic::default(), |sum, Wire(cpu)| Traffic {
            packets: sum.packets + cpu.packets,
            bytes: sum.bytes + cpu.bytes,
        }))
    }

    /// Sets a peer's traffic to zero, for an id that changes hands.
    ///
    /// # Errors
    /// [`DatapathError::Map`].
    pub fn reset_traffic(&mut self, peer: u32) -> Result<(), DatapathError> {
        let error = |source| DatapathError::Map { action: "write", map: name::COUNTERS, source };
        let cpus = aya::util::nr_cpus().map_err(|(_, source)| error(MapError::IoError(source)))?;
        for direction in [Direction::ToPeer, Direction::FromPeer] {
            let zeroes = PerCpuValues::try_from(vec![Wire(Traffic::default()); cpus])
                .map_err(|source| error(MapError::IoError(source)))?;
            self.counters.set(Traffic::index(peer, direction), zeroes, 0).map_err(error)?;
        }
        Ok(())
    }

    /// Packets dropped for a reason, all CPUs together.
    ///
    /// # Errors
    /// [`DatapathError::Map`].
    pub fn drops(&self, reason: DropReason) -> Result<u64, DatapathError> {
        let values = self.drops.get(&reason.number(), 0);
        let values =
            values.map_err(|source| DatapathError::Map { action: "read", map: name::DROPS, source })?;
        Ok(values.iter().sum())
    }
}
