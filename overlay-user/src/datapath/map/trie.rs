//! The LPM tries.

use overlay_common::map::{Route, Subnet, name};

use super::{Maps, RouteKey, Wire, absent_ok, collect};
use crate::datapath::DatapathError;

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
