//! flannel's etcd v3 schema, which is ours: the names of the keys, and what their values say.
//!
//! `<prefix>/config`, `<prefix>/subnets/10.5.52.0-24` and `<prefix>/subnets/10.5.52.0-24&fc00:1::-64`. Field
//! names are matched whatever their case, as Go's JSON decoder does, and unknown fields are ignored. The errors
//! name the field; the caller names the key.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use super::{Subnets, address};

mod config;
mod json;
mod lease;
mod node;
mod pool;

pub use config::{FLANNEL_PORT, parse_config};
pub use lease::{
    Lease, backend_type, is_routed, lease_value, owner, parse_lease, reservation_value, routed_value,
    vtep_mac,
};
pub use node::{node_value, parse_node};
pub use pool::{Pool, Pools, Prefix, parse_pools};

/// The key of the network's configuration.
pub fn config_key(prefix: &str) -> String {
    format!("{prefix}/config")
}

/// The prefix of all subnets' keys. flanneld drops all its routes when it meets a name in here that it
/// cannot parse: nothing but [`subnet_key`] is ever written.
pub fn subnets_prefix(prefix: &str) -> String {
    format!("{prefix}/subnets/")
}

/// The prefix of all nodes' keys: beside the subnets, where flanneld does not look.
pub fn nodes_prefix(prefix: &str) -> String {
    format!("{prefix}/overlayd/nodes/")
}

/// The key of a node, which is there while its daemon is.
pub fn node_key(prefix: &str, node: &str) -> String {
    format!("{}{node}", nodes_prefix(prefix))
}

/// The key of a bridge's subnets.
pub fn subnet_key(prefix: &str, subnets: Subnets) -> String {
    format!("{}{}", subnets_prefix(prefix), subnet_name(subnets))
}

fn subnet_name(Subnets { v4, v6 }: Subnets) -> String {
    let v6 = v6.map(|net| format!("&{}-{}", net.addr(), net.prefix_len())).unwrap_or_default();
    format!("{}-{}{v6}", v4.addr(), v4.prefix_len())
}

/// Reads the last part of a subnet's key: `10.5.52.0-24` or `10.5.52.0-24&fc00:1::-64`.
///
/// # Errors
/// One line: what is wrong and what is expected.
pub fn parse_subnet_name(name: &str) -> Result<Subnets, String> {
    let subnets = split_name(name)
        // Go's and Rust's parsers differ on "+24" and "024", and IPv6 addresses have many spellings; a second
        // one would be a second key.
        .filter(|subnets| subnet_name(*subnets) == name)
        .ok_or("the key names no subnet: one like 10.5.52.0-24 or 10.5.52.0-24&fc00:1::-64 is expected")?;
    for subnet in subnets.each() {
        address::subnet(subnet).map_err(|error| format!("the key's subnet {error}"))?;
    }
    Ok(subnets)
}

fn split_name(name: &str) -> Option<Subnets> {
    let (v4, v6) = match name.split_once('&') {
        Some((v4, v6)) => (v4, Some(v6)),
        None => (name, None),
    };
    let (address, length) = v4.split_once('-')?;
    let v4 = Ipv4Net::new(address.parse::<Ipv4Addr>().ok()?, length.parse().ok()?).ok()?;
    let v6 = match v6.map(|v6| v6.split_once('-')) {
        None => None,
        Some(Some((address, length))) => {
            Some(Ipv6Net::new(address.parse::<Ipv6Addr>().ok()?, length.parse().ok()?).ok()?)
        }
        Some(None) => return None,
    };
    Some(Subnets { v4, v6 })
}

#[cfg(test)]
mod tests;
