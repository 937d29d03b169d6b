//! A peer without overlayd: the kernel's own vxlan device, set up as flanneld does it.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};

use crate::host::{Host, UPLINK};

/// A host's vxlan device.
#[derive(Clone, Debug)]
pub struct KernelVtep {
    /// Its name, `flannel.<VNI>`.
    pub device: String,
    /// Its MAC address.
    pub mac: String,
}

/// Another host of the same network.
#[derive(Clone, Debug)]
pub struct Remote<'a> {
    /// Its containers' subnet, as in `172.17.0.0/16`.
    pub subnet: &'a str,
    /// Its underlay address.
    pub ip: Ipv4Addr,
    /// Its VTEP's MAC address.
    pub mac: &'a str,
}

impl KernelVtep {
    /// Creates the device on a host: no learning, the subnet's own address as its /32.
    ///
    /// # Errors
    /// No root, or no vxlan in this kernel.
    pub fn create(host: &Host, vni: u32, port: u16) -> Result<Self> {
        let device = format!("flannel.{vni}");
        let subnet = host.bridge.subnet();
        let (ip, net) = (host.ip, network(&subnet)?);
        host.ns.ip_batch(&[
            format!(
                "link add {device} type vxlan id {vni} dev {UPLINK} local {ip} dstport {port} nolearning"
            ),
            format!("addr add {net}/32 dev {device}"),
            format!("link set {device} up"),
        ])?;
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
