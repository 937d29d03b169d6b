//! The hash maps.

use aya::maps::MapError;
use overlay_common::{
    addr::MapIp,
    map::{
        Decap, Endpoint, EndpointKey, Neighbour, NeighbourKey, PathMtu, Peer, PeerKey, Port, TunnelDevice,
        Uplink, name,
    },
};

use super::{Maps, Wire, absent_ok, collect};
use crate::datapath::DatapathError;

/// Declares the accessors of a hash map.
macro_rules! hash_accessors {
    ($field:ident, $name:expr, $key:ty, $value:ty, $to:expr, $from:expr, $all:ident, $get:ident, $put:ident, $delete:ident) => {
        impl Maps {
            #[doc = concat!("All entries of `", stringify!($field), "`.\n\n# Errors\n[`DatapathError::Map`].")]
            pub fn $all(&self) -> Result<Vec<($key, $value)>, DatapathError> {
                let entries = collect(&self.$field, self.$field.iter())
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
                let result = self.$field.insert($to(key), Wire(value), 0);
                self.changed(result)
                    .map_err(|source| DatapathError::Map { action: "write", map: $name, source })
            }

            #[doc = concat!("Removes an entry of `", stringify!($field), "`, if there is one.\n\n# Errors\n[`DatapathError::Map`].")]
            pub fn $delete(&mut self, key: $key) -> Result<(), DatapathError> {
                let result = absent_ok(self.$field.remove(&$to(key)));
                self.changed(result)
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
hash_accessors!(decaps, name::DECAPS, u32, Decap, |k| k, |k| k, decaps, decap, put_decap, delete_decap);
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
hash_accessors!(
    path_mtus,
    name::PATH_MTUS,
    MapIp,
    PathMtu,
    Wire,
    |k: Wire<_>| k.0,
    path_mtus,
    path_mtu,
    put_path_mtu,
    delete_path_mtu
);
hash_accessors!(
    neighbours,
    name::NEIGHBOURS,
    NeighbourKey,
    Neighbour,
    Wire,
    |k: Wire<_>| k.0,
    neighbours,
    neighbour,
    put_neighbour,
    delete_neighbour
);
hash_accessors!(
    tunnel_devices,
    name::TUNNEL_DEVICES,
    u32,
    TunnelDevice,
    |k| k,
    |k| k,
    tunnel_devices,
    tunnel_device,
    put_tunnel_device,
    delete_tunnel_device
);

impl Maps {
    /// The further UDP ports listened on.
    ///
    /// # Errors
    /// [`DatapathError::Map`].
    pub fn listen_ports(&self) -> Result<Vec<(u16, u32)>, DatapathError> {
        let entries = collect(&self.listen_ports, self.listen_ports.iter());
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
}
