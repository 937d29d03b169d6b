//! The network's configuration.

use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use overlay_common::{Encap, Vni};
use serde_json::Map;

use super::{
    json::{child, flag, object, port, text, vni},
    lease::served,
};
use crate::store::{NetworkConfig, address};

/// The UDP port of a configuration without `Port`: the Linux kernel's, which flannel leaves in place.
pub const FLANNEL_PORT: u16 = 8472;

/// Reads the network's configuration. Without `VNI` it is 1, without `Port` 8472, and without `EnableIPv6` there is no
/// IPv6, as for flannel; `IPv6Network` counts where that is true.
///
/// # Errors
/// One line: which field, what is wrong and what is expected.
pub fn parse_config(value: &[u8]) -> Result<NetworkConfig, String> {
    let config = object(value)?;
    let read = |path| text(&config, path);
    let network =
        read("Network")?.map(|text| prefix::<Ipv4Net>("Network", text, "10.5.0.0/16")).transpose()?;
    let network_v6 =
        read("IPv6Network")?.map(|text| prefix::<Ipv6Net>("IPv6Network", text, "fd00:5::/48")).transpose()?;
    let enabled = flag(&config, "EnableIPv6")?.unwrap_or(false);
    let none = Map::new();
    let backend = child(&config, "Backend")?.unwrap_or(&none);
    if let Some(kind) = text(backend, "Type")?
        // flannel looks its backends up by their names in lower case.
        && Encap::from_backend_type(&kind.to_ascii_lowercase()).is_none()
    {
        return Err(format!("Backend.Type {kind:?} is not served: one of {} is expected", served()));
    }
    let vni = vni(backend, "Backend.VNI")?.unwrap_or(Vni::DEFAULT);
    let port = port(backend, "Backend.Port")?.unwrap_or(FLANNEL_PORT);
    let network_v6 = network_v6.filter(|_| enabled);
    Ok(NetworkConfig { network, network_v6, ipv6: Some(enabled), vni: Some(vni), port: Some(port) })
}

/// A prefix whose host bits flannel drops.
trait Prefix: FromStr + Copy + Into<IpNet> {
    fn without_host_bits(self) -> Self;
}

impl Prefix for Ipv4Net {
    fn without_host_bits(self) -> Self {
        self.trunc()
    }
}

impl Prefix for Ipv6Net {
    fn without_host_bits(self) -> Self {
        self.trunc()
    }
}

fn prefix<N: Prefix>(name: &str, text: &str, example: &str) -> Result<N, String> {
    let net: N =
        text.parse().map_err(|_| format!("{name} {text:?} is no subnet: one like {example} is expected"))?;
    let net = net.without_host_bits();
    address::subnet(net.into()).map_err(|error| format!("{name} {error}"))?;
    Ok(net)
}
