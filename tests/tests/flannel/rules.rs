//! How flanneld 0.28 reads what is in etcd, stated again from its source (`pkg/subnet/etcd/registry.go`,
//! `pkg/subnet/subnet.go`, `pkg/lease/lease.go`, `pkg/ip`, `pkg/backend/vxlan`): never more generous than it is.
//!
//! What it cannot parse among its subnets is an event without a subnet, and that it takes for an empty list: all its routes
//! go. A nil that it does not expect ends it.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
};

use serde_json::{Map, Value};

/// The subnets of a key: `ParseSubnetKey`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Subnets {
    pub(crate) v4: (Ipv4Addr, u8),
    pub(crate) v6: Option<(Ipv6Addr, u8)>,
}

/// What a key and its value say: `LeaseAttrs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) subnets: Subnets,
    pub(crate) public_ip: Ipv4Addr,
    pub(crate) public_ip_v6: Option<Ipv6Addr>,
    pub(crate) backend_type: String,
    /// `BackendData` and `BackendV6Data`: decoded by the backend, and by that of the network alone.
    pub(crate) data: [Option<Value>; 2],
}

/// What the vxlan backend reads of `BackendData`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Vtep {
    pub(crate) vni: u32,
    pub(crate) mac: [u8; 6],
}

/// Whether a key is among those that flanneld lists and watches: by prefix, and without a slash at its end.
pub(crate) fn is_watched(prefix: &str, key: &str) -> bool {
    key.starts_with(&format!("{prefix}/subnets"))
}

/// `(\d+\.\d+.\d+.\d+)-(\d+)(?:&([a-f\d:]+)-(\d+))?$`, then `net.ParseIP`, and lengths of 5 and 7 bits.
pub(crate) fn parse_key(key: &str) -> Result<Subnets, String> {
    let refused = || format!("{key:?} is not a subnet");
    let name = key.rsplit('/').next().unwrap_or(key);
    let (v4, v6) = name.split_once('&').map_or((name, None), |(v4, v6)| (v4, Some(v6)));
    let (ip, len) = v4.split_once('-').ok_or_else(refused)?;
    let v4 = (ip.parse().map_err(|_| refused())?, bits(len, 31).ok_or_else(refused)?);
    let v6 = match v6 {
        None => None,
        Some(v6) => {
            let (ip, len) = v6.split_once('-').ok_or_else(refused)?;
            if !ip.bytes().all(|byte| matches!(byte, b'a'..=b'f' | b'0'..=b'9' | b':')) {
                return Err(refused());
            }
            Some((ip.parse().map_err(|_| refused())?, bits(len, 127).ok_or_else(refused)?))
        }
    };
    Ok(Subnets { v4, v6 })
}

fn bits(text: &str, most: u8) -> Option<u8> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|bits| digits && *bits <= most)
}

/// `kvToIPLease`, and the same in `parseSubnetWatchResponse`.
pub(crate) fn parse(key: &str, value: &str) -> Result<Lease, String> {
    let subnets = parse_key(key)?;
    let value: Value = serde_json::from_str(value).map_err(|error| format!("{value}: {error}"))?;
    let fields = value.as_object().ok_or_else(|| format!("{value} is no object"))?;
    // IP4 is no pointer: null is given to its decoder, which refuses it. Without the field it stays 0.0.0.0.
    let public_ip = match field(fields, "PublicIP")? {
        None => Ipv4Addr::UNSPECIFIED,
        Some(ip) => text(ip)?.parse().map_err(|_| format!("PublicIP {ip}"))?,
    };
    let public_ip_v6 = match field(fields, "PublicIPv6")? {
        None | Some(Value::Null) => None,
        Some(ip) => Some(text(ip)?.parse().map_err(|_| format!("PublicIPv6 {ip}"))?),
    };
    let backend_type = match field(fields, "BackendType")? {
        None | Some(Value::Null) => String::new(),
        Some(kind) => text(kind)?.to_owned(),
    };
    let data = [field(fields, "BackendData")?.cloned(), field(fields, "BackendV6Data")?.cloned()];
    Ok(Lease { subnets, public_ip, public_ip_v6, backend_type, data })
}

/// A field by its name in any case. The last one would count, and there is to be one.
fn field<'a>(fields: &'a Map<String, Value>, name: &str) -> Result<Option<&'a Value>, String> {
    let mut found = fields.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
    match (found.next(), found.next()) {
        (found, None) => Ok(found.map(|(_, value)| value)),
        _ => Err(format!("{name} is there more than once")),
    }
}

fn text(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| format!("{value} is no text"))
}

impl Lease {
    /// What a flanneld of this backend makes of it, with IPv6 and without (`handleSubnetEvents`): the VTEP of each
    /// subnet, or nothing where the lease is of another backend.
    pub(crate) fn vteps(&self, backend: &str) -> Result<Option<[Option<Vtep>; 2]>, String> {
        if self.backend_type != backend {
            return Ok(None);
        }
        if self.subnets.v6.is_some() && self.public_ip_v6.is_none() {
            return Err("PublicIPv6 is nil, and its address is taken".into());
        }
        if backend != "vxlan" {
            return Ok(Some([None, None]));
        }
        let v4 = vtep(self.data[0].as_ref())?;
        let v6 = self.subnets.v6.map(|_| vtep(self.data[1].as_ref())).transpose()?;
        Ok(Some([Some(v4), v6]))
    }
}

/// `vxlanLeaseAttrs`, and a MAC address that an Ethernet device may have.
fn vtep(data: Option<&Value>) -> Result<Vtep, String> {
    let data = data.ok_or("no BackendData: the end of JSON was not expected")?;
    let fields = data.as_object().ok_or_else(|| format!("{data} is no object"))?;
    let vni = match field(fields, "VNI")? {
        None => 0,
        Some(vni) => vni.as_u64().and_then(|vni| vni.try_into().ok()).ok_or_else(|| format!("VNI {vni}"))?,
    };
    let mac = text(field(fields, "VtepMAC")?.ok_or("no VtepMAC")?)?;
    let octets: Option<Vec<u8>> = mac
        .split(':')
        .map(|octet| (octet.len() == 2).then(|| u8::from_str_radix(octet, 16).ok()).flatten())
        .collect();
    let mac = octets.and_then(|octets| octets.try_into().ok()).ok_or_else(|| format!("VtepMAC {mac}"))?;
    Ok(Vtep { vni, mac })
}

/// flanneld's list of the others' leases, followed event by event: `LeaseWatcher.Update`.
#[derive(Debug, Default)]
pub(crate) struct Watcher {
    leases: Vec<Lease>,
}

impl Watcher {
    /// A key was written.
    pub(crate) fn put(&mut self, key: &str, value: &str) -> Result<(), String> {
        let lease = parse(key, value)?;
        match self.position(lease.subnets)? {
            Some(found) => self.leases[found] = lease,
            None => self.leases.push(lease),
        }
        Ok(())
    }

    /// A key was deleted.
    pub(crate) fn delete(&mut self, key: &str) -> Result<(), String> {
        let found = self.position(parse_key(key)?)?;
        // It would say that there is none, and take away the routes of that subnet all the same.
        self.leases.remove(found.ok_or_else(|| format!("{key} was not there"))?);
        Ok(())
    }

    /// What it holds, by subnet.
    pub(crate) fn leases(&self) -> BTreeMap<Subnets, Lease> {
        self.leases.iter().map(|lease| (lease.subnets, lease.clone())).collect()
    }

    /// `sameSubnet`: whose IPv6 subnets are compared where the one that is known has one, nil or not.
    fn position(&self, subnets: Subnets) -> Result<Option<usize>, String> {
        for (index, known) in self.leases.iter().map(|lease| lease.subnets).enumerate() {
            if known.v4 != subnets.v4 {
                continue;
            }
            match (known.v6, subnets.v6) {
                (None, _) => return Ok(Some(index)),
                (Some(_), None) => return Err(format!("{known:?} is compared with one without IPv6: nil")),
                (Some(known), Some(new)) if known == new => return Ok(Some(index)),
                (Some(_), Some(_)) => {}
            }
        }
        Ok(None)
    }
}
