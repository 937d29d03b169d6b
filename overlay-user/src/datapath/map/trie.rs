//! The LPM tries: one for each IP version, told apart by the key.

use aya::maps::{LpmTrie, Map, MapData, MapError, lpm_trie::Key};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use overlay_common::map::{PrefixV4, PrefixV6, Route, Subnet, VNI_BITS};

use super::{Maps, RouteKey, Wire, absent_ok, collect, open};
use crate::datapath::{DatapathError, pin::Pins};

/// The two tries of one kind of entry.
pub(super) struct Tries<V> {
    v4: LpmTrie<MapData, Wire<PrefixV4>, Wire<V>>,
    v6: LpmTrie<MapData, Wire<PrefixV6>, Wire<V>>,
    names: [&'static str; 2],
}

/// A key, as its trie takes it.
enum TrieKey {
    V4(Key<Wire<PrefixV4>>),
    V6(Key<Wire<PrefixV6>>),
}

impl RouteKey {
    fn to_trie(self) -> TrieKey {
        let (vni, bits) = (self.vni, VNI_BITS + u32::from(self.prefix.prefix_len()));
        match self.prefix {
            IpNet::V4(net) => {
                TrieKey::V4(Key::new(bits, Wire(PrefixV4 { vni, addr: net.network().octets() })))
            }
            IpNet::V6(net) => {
                TrieKey::V6(Key::new(bits, Wire(PrefixV6 { vni, addr: net.network().octets() })))
            }
        }
    }

    fn from_v4(key: &Key<Wire<PrefixV4>>) -> Option<Self> {
        let Wire(PrefixV4 { vni, addr }) = key.data();
        Some(Self { vni, prefix: Ipv4Net::new(addr.into(), prefix_len(key.prefix_len())?).ok()?.into() })
    }

    fn from_v6(key: &Key<Wire<PrefixV6>>) -> Option<Self> {
        let Wire(PrefixV6 { vni, addr }) = key.data();
        Some(Self { vni, prefix: Ipv6Net::new(addr.into(), prefix_len(key.prefix_len())?).ok()?.into() })
    }
}

/// The prefix length without the VNI's bits; `None` where not the whole VNI is matched, which nobody of us writes.
fn prefix_len(bits: u32) -> Option<u8> {
    u8::try_from(bits.checked_sub(VNI_BITS)?).ok()
}

impl<V: bytemuck::Pod> Tries<V> {
    pub(super) fn open(pins: &Pins, v4: &'static str, v6: &'static str) -> Result<Self, DatapathError> {
        Ok(Self { v4: open(pins, v4, Map::LpmTrie)?, v6: open(pins, v6, Map::LpmTrie)?, names: [v4, v6] })
    }

    pub(super) fn entries(&self) -> Result<Vec<(RouteKey, V)>, DatapathError> {
        let error = |map| move |source| DatapathError::Map { action: "read", map, source };
        let v4 = collect(&self.v4, self.v4.iter()).map_err(error(self.names[0]))?;
        let v6 = collect(&self.v6, self.v6.iter()).map_err(error(self.names[1]))?;
        let v4 = v4.into_iter().filter_map(|(key, Wire(value))| Some((RouteKey::from_v4(&key)?, value)));
        let v6 = v6.into_iter().filter_map(|(key, Wire(value))| Some((RouteKey::from_v6(&key)?, value)));
        Ok(v4.chain(v6).collect())
    }

    fn get(&self, key: RouteKey) -> Result<Option<V>, DatapathError> {
        let result = match key.to_trie() {
            TrieKey::V4(key) => self.v4.get(&key, 0),
            TrieKey::V6(key) => self.v6.get(&key, 0),
        };
        match result {
            Ok(Wire(value)) => Ok(Some(value)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(source) => Err(DatapathError::Map { action: "read", map: self.name(key), source }),
        }
    }

    fn put(&mut self, key: RouteKey, value: V) -> Result<(), DatapathError> {
        let result = match key.to_trie() {
            TrieKey::V4(key) => self.v4.insert(&key, Wire(value), 0),
            TrieKey::V6(key) => self.v6.insert(&key, Wire(value), 0),
        };
        result.map_err(|source| self.write_error(key, source))
    }

    fn delete(&mut self, key: RouteKey) -> Result<(), DatapathError> {
        let result = match key.to_trie() {
            TrieKey::V4(key) => self.v4.remove(&key),
            TrieKey::V6(key) => self.v6.remove(&key),
        };
        absent_ok(result).map_err(|source| self.write_error(key, source))
    }

    fn write_error(&self, key: RouteKey, source: MapError) -> DatapathError {
        DatapathError::Map { action: "write", map: self.name(key), source }
    }

    fn name(&self, key: RouteKey) -> &'static str {
        self.names[usize::from(matches!(key.prefix, IpNet::V6(_)))]
    }
}

/// Declares the accessors of a pair of tries.
macro_rules! trie_accessors {
    ($field:ident, $value:ty, $get:ident, $put:ident, $delete:ident) => {
        impl Maps {
            #[doc = concat!("All entries of `", stringify!($field), "`.\n\n# Errors\n[`DatapathError::Map`].")]
            pub fn $field(&self) -> Result<Vec<(RouteKey, $value)>, DatapathError> {
                self.$field.entries()
            }

            #[doc = concat!("The entry of `", stringify!($field), "` that covers all of a prefix, the longest of them.\n\n# Errors\n[`DatapathError::Map`].")]
            pub fn $get(&self, key: RouteKey) -> Result<Option<$value>, DatapathError> {
                self.$field.get(key)
            }

            #[doc = concat!("Enters or replaces an entry of `", stringify!($field), "`.\n\n# Errors\n[`DatapathError::Map`].")]
            pub fn $put(&mut self, key: RouteKey, value: $value) -> Result<(), DatapathError> {
                let result = self.$field.put(key, value);
                self.changed(result)
            }

            #[doc = concat!("Removes an entry of `", stringify!($field), "`, if there is one.\n\n# Errors\n[`DatapathError::Map`].")]
            pub fn $delete(&mut self, key: RouteKey) -> Result<(), DatapathError> {
                let result = self.$field.delete(key);
                self.changed(result)
            }
        }
    };
}

trie_accessors!(routes, Route, route, put_route, delete_route);
trie_accessors!(subnets, Subnet, subnet, put_subnet, delete_subnet);
