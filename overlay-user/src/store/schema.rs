//! flannel's etcd v3 schema, which is ours: the names of the keys, and what their values say.
//!
//! `<prefix>/config` and `<prefix>/subnets/10.5.52.0-24`. Field names are matched whatever their case, as
//! Go's JSON decoder does, and unknown fields are ignored. The errors name the field; the caller names the
//! key.

use std::{net::Ipv4Addr, net::Ipv6Addr};

use ipnet::Ipv4Net;
use overlay_common::{Encap, Vni};
use serde_json::{Map, Value};

use super::{Announcement, NetworkConfig, PeerSubnet, address};

/// The UDP port of a configuration without `Port`: the Linux kernel's, which flannel leaves in place.
pub const FLANNEL_PORT: u16 = 8472;

/// What the value of a subnet's key says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lease {
    /// A peer.
    Peer(PeerSubnet),
    /// In order, but nothing that we can send to; the text says why.
    Ignored(String),
}

/// The key of the network's configuration.
pub fn config_key(prefix: &str) -> String {
    format!("{prefix}/config")
}

/// The prefix of all subnets' keys. flanneld drops all its routes when it meets a name in here that it
/// cannot parse: nothing but [`subnet_key`] is ever written.
pub fn subnets_prefix(prefix: &str) -> String {
    format!("{prefix}/subnets/")
}

/// The key of a subnet.
pub fn subnet_key(prefix: &str, subnet: Ipv4Net) -> String {
    format!("{}{}", subnets_prefix(prefix), subnet_name(subnet))
}

fn subnet_name(subnet: Ipv4Net) -> String {
    format!("{}-{}", subnet.addr(), subnet.prefix_len())
}

/// Reads the last part of a subnet's key: `10.5.52.0-24` or `10.5.52.0-24&fc00:1::-64`, of which the IPv4
/// part is taken.
///
/// # Errors
/// One line: what is wrong and what is expected.
pub fn parse_subnet_name(name: &str) -> Result<Ipv4Net, String> {
    let malformed = || "the key names no subnet: one like 10.5.52.0-24 is expected".to_owned();
    let (v4, v6) = match name.split_once('&') {
        Some((v4, v6)) => (v4, Some(v6)),
        None => (name, None),
    };
    let (address, length) = v4.split_once('-').ok_or_else(malformed)?;
    let address: Ipv4Addr = address.parse().map_err(|_| malformed())?;
    let length: u8 = length.parse().map_err(|_| malformed())?;
    let net = Ipv4Net::new(address, length).map_err(|_| malformed())?;
    // Go's and Rust's number parsers differ on "+24" and "024"; a second spelling would be a second key.
    if subnet_name(net) != v4 || !v6.is_none_or(is_v6_name) {
        return Err(malformed());
    }
    address::subnet(net).map_err(|error| format!("the key's subnet {error}"))
}

fn is_v6_name(name: &str) -> bool {
    name.split_once('-').is_some_and(|(address, length)| {
        address.parse::<Ipv6Addr>().is_ok() && length.parse::<u8>().is_ok_and(|length| length <= 128)
    })
}

/// Reads a subnet's key and value.
///
/// # Errors
/// One line: which field, what is wrong and what is expected.
pub fn parse_lease(name: &str, value: &[u8]) -> Result<Lease, String> {
    let subnet = parse_subnet_name(name)?;
    let lease = object(value)?;
    let encap = match text(&lease, "BackendType")? {
        None | Some("") => {
            return Ok(Lease::Ignored("it has no BackendType; peers of type vxlan are served".into()));
        }
        Some(kind) => match kind.parse::<Encap>() {
            Ok(encap) => encap,
            Err(_) => {
                return Ok(Lease::Ignored(format!(
                    "its BackendType is {kind:?}; peers of type vxlan are served"
                )));
            }
        },
    };
    let public_ip = text(&lease, "PublicIP")?.ok_or("PublicIP is missing: the host's address is expected")?;
    let public_ip = address::host(public_ip, subnet).map_err(|error| format!("PublicIP {error}"))?;
    let none = Map::new();
    let data = child(&lease, "BackendData")?.unwrap_or(&none);
    let vtep_mac = match text(data, "VtepMAC")? {
        Some(mac) => address::vtep_mac(mac).map_err(|error| format!("BackendData.VtepMAC {error}"))?,
        None => None,
    };
    let (vni, port) = (vni(data, "BackendData.VNI")?, port(data, "BackendData.Port")?);
    Ok(Lease::Peer(PeerSubnet { subnet, public_ip, encap, vni, port, vtep_mac }))
}

/// The host that a subnet's value names, where it can be read at all.
pub fn owner(value: &[u8]) -> Option<Ipv4Addr> {
    text(&object(value).ok()?, "PublicIP").ok()??.parse().ok()
}

/// Writes the value of our own subnet's key, byte for byte as flannel does.
pub fn lease_value(announcement: &Announcement) -> String {
    let Announcement { subnet: _, public_ip, vni, vtep_mac } = announcement;
    let mac = Value::from(vtep_mac.as_str());
    format!(
        r#"{{"PublicIP":"{public_ip}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":{vni},"VtepMAC":{mac}}}}}"#
    )
}

/// Reads the network's configuration. Without `VNI` it is 1, without `Port` 8472, as for flannel.
///
/// # Errors
/// One line: which field, what is wrong and what is expected.
pub fn parse_config(value: &[u8]) -> Result<NetworkConfig, String> {
    let config = object(value)?;
    let network = match text(&config, "Network")? {
        Some(text) => Some(parse_network(text)?),
        None => None,
    };
    let none = Map::new();
    let backend = child(&config, "Backend")?.unwrap_or(&none);
    if let Some(kind) = text(backend, "Type")?
        && kind.parse::<Encap>().is_err()
    {
        return Err(format!("Backend.Type {kind:?} is not served: \"vxlan\" is expected"));
    }
    let vni = vni(backend, "Backend.VNI")?.unwrap_or(Vni::DEFAULT);
    let port = port(backend, "Backend.Port")?.unwrap_or(FLANNEL_PORT);
    Ok(NetworkConfig { network, vni: Some(vni), port: Some(port) })
}

fn parse_network(text: &str) -> Result<Ipv4Net, String> {
    let net: Ipv4Net = text
        .parse()
        .map_err(|_| format!("Network {text:?} is no subnet: one like 10.5.0.0/16 is expected"))?;
    // flannel drops host bits here.
    address::subnet(net.trunc()).map_err(|error| format!("Network {error}"))
}

fn object(value: &[u8]) -> Result<Map<String, Value>, String> {
    match serde_json::from_slice(value) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err("the value is no JSON object: {\"PublicIP\":…} or the like is expected".into()),
        Err(error) => Err(format!("the value is no JSON ({error})")),
    }
}

/// A field by the last part of its path, whatever its case; `null` is as good as absent.
fn field<'a>(map: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    let name = path.rsplit('.').next().unwrap_or(path);
    let value = map
        .get(name)
        .or_else(|| map.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value))?;
    (!value.is_null()).then_some(value)
}

fn text<'a>(map: &'a Map<String, Value>, path: &str) -> Result<Option<&'a str>, String> {
    field(map, path)
        .map(|value| value.as_str().ok_or_else(|| format!("{path} is {value}: text is expected")))
        .transpose()
}

fn child<'a>(map: &'a Map<String, Value>, path: &str) -> Result<Option<&'a Map<String, Value>>, String> {
    field(map, path)
        .map(|value| value.as_object().ok_or_else(|| format!("{path} is {value}: an object is expected")))
        .transpose()
}

fn vni(map: &Map<String, Value>, path: &str) -> Result<Option<Vni>, String> {
    let Some(value) = field(map, path) else { return Ok(None) };
    value
        .as_u64()
        .and_then(|number| u32::try_from(number).ok())
        .and_then(|number| Vni::new(number).ok())
        .map(Some)
        .ok_or_else(|| format!("{path} is {value}: a number from 1 to {} is expected", Vni::MAX))
}

/// Port 0 is flannel's way to say "the default".
fn port(map: &Map<String, Value>, path: &str) -> Result<Option<u16>, String> {
    let Some(value) = field(map, path) else { return Ok(None) };
    match value.as_u64().map(u16::try_from) {
        Some(Ok(0)) => Ok(None),
        Some(Ok(port)) => Ok(Some(port)),
        _ => Err(format!("{path} is {value}: a number from 1 to 65535 is expected")),
    }
}

#[cfg(test)]
mod tests;
