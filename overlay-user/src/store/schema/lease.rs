//! The value of a subnet's key.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use overlay_common::{Encap, Mac, Vni};
use serde_json::{Map, Value};

use super::{
    json::{child, flag, list, number, object, port, text, vni},
    parse_subnet_name,
};
use crate::{
    store::{Announcement, PeerSubnet, Subnets, address},
    underlay::Underlay,
};

/// What the value of a subnet's key says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lease {
    /// A peer: the IPv4 subnet, and the IPv6 one where the key names one. The host is the same.
    Peer(Vec<PeerSubnet>),
    /// In order, but nothing that we can send to; the text says why.
    Ignored(String),
    /// Kept for a host that does not use it yet.
    Reserved,
}

/// Reads a subnet's key and value.
///
/// # Errors
/// One line: which field, what is wrong and what is expected.
pub fn parse_lease(name: &str, value: &[u8]) -> Result<Lease, String> {
    let subnets = parse_subnet_name(name)?;
    let lease = object(value)?;
    let extras = child(&lease, "Overlayd")?;
    let encap = match text(&lease, "BackendType")? {
        None | Some("") if is_reservation(extras)? => return host(&lease, subnets).map(|_| Lease::Reserved),
        None | Some("") => {
            return Ok(Lease::Ignored(format!(
                "it has no BackendType; peers of type {} are served",
                served()
            )));
        }
        Some(kind) => match Encap::from_backend_type(kind) {
            Some(encap) => encap,
            None => {
                return Ok(Lease::Ignored(format!(
                    "its BackendType is {kind:?}; peers of type {} are served",
                    served()
                )));
            }
        },
    };
    let host = host(&lease, subnets)?;
    let zero_checksum = match extras {
        Some(extras) => flag(extras, "Overlayd.UDP6ZeroChecksum")?.unwrap_or(false),
        None => false,
    };
    let routed = match extras {
        Some(extras) => flag(extras, "Overlayd.Routed")?.unwrap_or(false),
        None => false,
    };
    let src_ips = src_ips(&lease, subnets)?;
    let v4 = Backend::read(&lease, "BackendData")?.unwrap_or_default();
    let v6 = Backend::read(&lease, "BackendV6Data")?.unwrap_or(v4);
    let peer = |subnet| {
        let Backend { vni, port, gre_key, vtep_mac, bridge } =
            if matches!(subnet, IpNet::V4(_)) { v4 } else { v6 };
        let src_ips = src_ips.clone();
        PeerSubnet {
            subnet,
            host,
            src_ips,
            routed,
            encap,
            vni,
            port,
            gre_key,
            vtep_mac,
            bridge,
            zero_checksum,
        }
    };
    Ok(Lease::Peer(subnets.each().map(peer).collect()))
}

fn is_reservation(extras: Option<&Map<String, Value>>) -> Result<bool, String> {
    extras.map_or(Ok(false), |extras| Ok(flag(extras, "Overlayd.Reserved")?.unwrap_or(false)))
}

/// The types of peers that are served, for messages.
pub(super) fn served() -> String {
    Encap::ALL.map(Encap::backend_type).join(", ")
}

/// The host's addresses. flannel always writes `PublicIP`: 0.0.0.0 is none.
fn host(lease: &Map<String, Value>, subnets: Subnets) -> Result<Underlay, String> {
    let v4 = match text(lease, "PublicIP")? {
        None | Some("0.0.0.0") => None,
        Some(text) => Some(address::host(text, subnets.each()).map_err(|error| format!("PublicIP {error}"))?),
    };
    let v6 = match text(lease, "PublicIPv6")? {
        None | Some("::") => None,
        Some(text) => {
            Some(address::host(text, subnets.each()).map_err(|error| format!("PublicIPv6 {error}"))?)
        }
    };
    Underlay::new(v4, v6)
        .ok_or_else(|| "PublicIP is missing, and so is PublicIPv6: the host's address is expected".into())
}

/// Other addresses that the host's packets come from.
fn src_ips(lease: &Map<String, Value>, subnets: Subnets) -> Result<Vec<IpAddr>, String> {
    let Some(extras) = child(lease, "Overlayd")? else { return Ok(Vec::new()) };
    let ip = |value: &Value| {
        let text = value
            .as_str()
            .ok_or_else(|| format!("Overlayd.SrcIPs {value} is no text: an address is expected"))?;
        address::host(text, subnets.each()).map_err(|error| format!("Overlayd.SrcIPs {error}"))
    };
    list(extras, "Overlayd.SrcIPs")?.iter().map(ip).collect()
}

/// How one of the subnets is reached.
#[derive(Clone, Copy, Default)]
struct Backend {
    vni: Option<Vni>,
    port: Option<u16>,
    gre_key: Option<u32>,
    vtep_mac: Option<Mac>,
    bridge: Option<bool>,
}

impl Backend {
    fn read(lease: &Map<String, Value>, name: &str) -> Result<Option<Self>, String> {
        let Some(data) = child(lease, name)? else { return Ok(None) };
        let vtep_mac = match text(data, &format!("{name}.VtepMAC"))? {
            Some(mac) => address::vtep_mac(mac).map_err(|error| format!("{name}.VtepMAC {error}"))?,
            None => None,
        };
        let (vni, port) = (vni(data, &format!("{name}.VNI"))?, port(data, &format!("{name}.Port"))?);
        let gre_key = number(data, &format!("{name}.GREKey"))?;
        let bridge = flag(data, &format!("{name}.Bridge"))?;
        Ok(Some(Self { vni, port, gre_key, vtep_mac, bridge }))
    }
}

/// The host that a subnet's value names, where it can be read at all.
pub fn owner(value: &[u8]) -> Option<Underlay> {
    let lease = object(value).ok()?;
    let v4 = text(&lease, "PublicIP").ok().flatten().and_then(|text| text.parse::<Ipv4Addr>().ok());
    let v6 = text(&lease, "PublicIPv6").ok().flatten().and_then(|text| text.parse::<Ipv6Addr>().ok());
    Underlay::new(v4.filter(|v4| !v4.is_unspecified()), v6.filter(|v6| !v6.is_unspecified()))
}

/// The MAC address of its VTEP, where it can be read at all.
pub fn vtep_mac(value: &[u8]) -> Option<Mac> {
    let lease = object(value).ok()?;
    let mac = text(child(&lease, "BackendData").ok()??, "BackendData.VtepMAC").ok()??;
    address::vtep_mac(mac).ok()?
}

/// How it is sent to, where it can be read at all.
pub fn backend_type(value: &[u8]) -> Option<String> {
    let lease = object(value).ok()?;
    text(&lease, "BackendType").ok()?.filter(|kind| !kind.is_empty()).map(str::to_owned)
}

/// Whether a value is of a subnet that its host's kernel routes for.
pub fn is_routed(value: &[u8]) -> bool {
    let routed =
        |lease: Map<String, Value>| flag(child(&lease, "Overlayd").ok()??, "Overlayd.Routed").ok()?;
    object(value).ok().and_then(routed).unwrap_or(false)
}

/// Writes the value of a key of a subnet that a host's kernel routes for, from the value of the host's own.
///
/// # Errors
/// The value is no JSON object.
pub fn routed_value(own: &[u8]) -> Result<String, String> {
    let mut lease = object(own)?;
    let extras = lease.entry("Overlayd").or_insert_with(|| Value::Object(Map::new()));
    let extras = extras.as_object_mut().ok_or("Overlayd is no object")?;
    extras.insert("Routed".to_owned(), Value::Bool(true));
    Ok(Value::Object(lease).to_string())
}

/// Writes the value of a key that keeps subnets for a host: nobody sends there, and the host finds it by its address.
pub fn reservation_value(subnets: Subnets, host: Underlay) -> String {
    let (v4, v6) = public_ips(subnets, host);
    format!(r#"{{"PublicIP":"{v4}","PublicIPv6":{v6},"Overlayd":{{"Reserved":true}}}}"#)
}

/// Writes the value of our own subnets' key: of a node that knows IPv4 only, byte for byte as flannel does.
pub fn lease_value(announcement: &Announcement) -> String {
    let Announcement { subnets, host, src_ips, vni, vtep_mac, encap } = announcement;
    let kind = encap.backend_type();
    let mac = Value::from(vtep_mac.as_str());
    let data = format!(r#"{{"VNI":{vni},"VtepMAC":{mac}}}"#);
    let (v4, v6) = public_ips(*subnets, *host);
    let data_v6 = if subnets.v6.is_some() { format!(r#","BackendV6Data":{data}"#) } else { String::new() };
    // Go ignores fields it does not know.
    let zero_checksum = host.v6().map(|_| r#""UDP6ZeroChecksum":true"#.to_owned());
    let src_ips: Vec<String> = src_ips.iter().map(|ip| format!(r#""{ip}""#)).collect();
    let src_ips = (!src_ips.is_empty()).then(|| format!(r#""SrcIPs":[{}]"#, src_ips.join(",")));
    let extras: Vec<String> = zero_checksum.into_iter().chain(src_ips).collect();
    let extras =
        if extras.is_empty() { String::new() } else { format!(r#","Overlayd":{{{}}}"#, extras.join(",")) };
    format!(
        r#"{{"PublicIP":"{v4}","PublicIPv6":{v6},"BackendType":"{kind}","BackendData":{data}{data_v6}{extras}}}"#
    )
}

/// `PublicIP` and `PublicIPv6` of a host with these subnets.
fn public_ips(subnets: Subnets, host: Underlay) -> (Ipv4Addr, String) {
    let v6 = match (host.v6(), subnets.v6) {
        (Some(v6), _) => format!(r#""{v6}""#),
        // A dual-stack flanneld takes the address of an IPv6 subnet's host for granted: null would end it.
        (None, Some(_)) => format!(r#""{}""#, Ipv6Addr::UNSPECIFIED),
        (None, None) => "null".into(),
    };
    (host.v4().unwrap_or(Ipv4Addr::UNSPECIFIED), v6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reservation_is_nobodys_peer() {
        let (v4, v6) = ("192.0.2.7".parse().ok(), "2001:db8::7".parse().ok());
        let alone = Subnets { v4: "10.9.0.0/24".parse().unwrap(), v6: None };
        let dual = Subnets { v6: "fd00:9::/64".parse().ok(), ..alone };
        for (v4, v6) in [(v4, None), (None, v6), (v4, v6)] {
            let host = Underlay::new(v4, v6).unwrap();
            for (subnets, name) in [(alone, "10.9.0.0-24"), (dual, "10.9.0.0-24&fd00:9::-64")] {
                let value = reservation_value(subnets, host);
                assert_eq!(parse_lease(name, value.as_bytes()), Ok(Lease::Reserved), "{value}");
                assert_eq!((owner(value.as_bytes()), vtep_mac(value.as_bytes())), (Some(host), None));
                assert_eq!(backend_type(value.as_bytes()), None);
                assert!(subnets.v6.is_none() || !value.contains("null"), "{value}");
            }
        }
        let in_use = r#"{"PublicIP":"192.0.2.7","BackendType":"vxlan","Overlayd":{"Reserved":true}}"#;
        assert!(matches!(parse_lease("10.9.0.0-24", in_use.as_bytes()), Ok(Lease::Peer(_))));
        assert_eq!(backend_type(in_use.as_bytes()).as_deref(), Some("vxlan"));
        let nobodys = r#"{"Overlayd":{"Reserved":true}}"#;
        assert!(parse_lease("10.9.0.0-24", nobodys.as_bytes()).unwrap_err().contains("PublicIP is missing"));
    }
}
