//! A peer without overlayd: the kernel's own vxlan device, set up as flanneld does it.

use std::net::IpAddr;

use anyhow::{Context, Result};

use crate::host::{Host, UPLINK};

/// A host's vxlan device.
#[derive(Clone, Debug)]
pub struct KernelVtep {
    /// Its name, `flannel.<VNI>`, or `flannel-v6.<VNI>` over IPv6.
    pub device: String,
    /// Its MAC address.
    pub mac: String,
}

/// Another host of the same network.
#[derive(Clone, Debug)]
pub struct Remote<'a> {
    /// Its containers' subnet, as in `172.17.0.0/16` or `fd00:17::/64`.
    pub subnet: &'a str,
    /// Its underlay address.
    pub ip: IpAddr,
    /// Its VTEP's MAC address.
    pub mac: &'a str,
}

impl KernelVtep {
    /// Creates the device on a host, over IPv4: no learning, the subnet's own address as its /32.
    ///
    /// # Errors
    /// No root, or no vxlan in this kernel.
    pub fn create(host: &Host, vni: u32, port: u16) -> Result<Self> {
        Self::over(host, host.ip.into(), format!("flannel.{vni}"), vni, port, "")
    }

    /// Creates the device on a host, over IPv6. The kernel's default is to send UDP checksums and to ask for them;
    /// with `zero_checksum` it does neither.
    ///
    /// # Errors
    /// No root, or no vxlan in this kernel.
    pub fn create_v6(host: &Host, vni: u32, port: u16, zero_checksum: bool) -> Result<Self> {
        let options = if zero_checksum { "udp6zerocsumtx udp6zerocsumrx" } else { "" };
        Self::over(host, host.ip_v6.into(), format!("flannel-v6.{vni}"), vni, port, options)
    }

    fn over(host: &Host, local: IpAddr, device: String, vni: u32, port: u16, options: &str) -> Result<Self> {
        let kind =
            format!("type vxlan id {vni} dev {UPLINK} local {local} dstport {port} nolearning {options}");
        host.ns.ip_batch(&[format!("link add {device} {kind}"), format!("link set {device} up")])?;
        let subnet = host.bridge.subnet();
        // An address is there once: with two devices, on the one of its own version.
        if local.is_ipv4() || !host.underlay.v4() {
            host.ns.ip(&format!("addr add {}/32 dev {device}", network(&subnet)?))?;
        }
        if let Some(subnet) = host.bridge.subnet_v6()
            && (local.is_ipv6() || !host.underlay.v6())
        {
            host.ns.ip(&format!("addr add {}/128 dev {device} nodad", network(&subnet)?))?;
        }
        let said = host.ns.ip(&format!("-j link show {device}"))?.stdout;
        let links: serde_json::Value = serde_json::from_str(&said)?;
        let mac =
            links[0]["address"].as_str().with_context(|| format!("{device} has no address"))?.to_owned();
        Ok(Self { device, mac })
    }

    /// Programs a peer: permanent neighbour, FDB entry and onlink route.
    ///
    /// # Errors
    /// No root.
    pub fn add_peer(&self, host: &Host, remote: &Remote<'_>) -> Result<()> {
        let (device, Remote { subnet, ip, mac }) = (&self.device, remote);
        let gateway = network(subnet)?;
        host.ns.ip(&format!("neigh replace {gateway} lladdr {mac} dev {device} nud permanent"))?;
        host.ns.exec(&["bridge", "fdb", "replace", mac, "dev", device, "dst", &ip.to_string()])?;
        host.ns.ip(&format!("route replace {subnet} via {gateway} dev {device} onlink")).map(drop)
    }
}

fn network(subnet: &str) -> Result<&str> {
    Ok(subnet.split_once('/').with_context(|| format!("{subnet} has no prefix length"))?.0)
}
