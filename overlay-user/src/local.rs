//! This host in the overlay: its uplink, its bridges, its VTEP.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, bail, ensure};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use overlay_common::{Mac, Vni, parse::VXLAN_V4_OVERHEAD};

use crate::{
    config::Config,
    netlink::{Link, Netlink},
    store::NetworkConfig,
};

/// The smallest MTU that IPv4 must be able to carry without fragmenting everything: RFC 791's 576 bytes.
const SMALLEST_MTU: u32 = 576;

/// A bridge whose subnet is part of the overlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// Its ifindex.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MAC address: the containers' gateway.
    pub mac: Mac,
    /// Its address and the length of its subnet.
    pub address: Ipv4Net,
    /// Its global or unique local IPv6 address and the length of that subnet, where it has one.
    pub address_v6: Option<Ipv6Net>,
}

impl Bridge {
    /// The addresses of the bridge itself: its containers' gateways.
    pub fn gateways(&self) -> impl Iterator<Item = IpAddr> {
        let v6 = self.address_v6.map(|address| IpAddr::V6(address.addr()));
        std::iter::once(IpAddr::V4(self.address.addr())).chain(v6)
    }

    /// Whether an address lies in one of the bridge's subnets.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(ip) => self.address.contains(&ip),
            IpAddr::V6(ip) => self.address_v6.is_some_and(|address| address.contains(&ip)),
        }
    }
}

/// The interface to the other hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// Its ifindex.
    pub index: u32,
    /// Its name.
    pub name: String,
}

/// This host, as far as the data path is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// The network's VNI.
    pub vni: Vni,
    /// The network's UDP port.
    pub port: u16,
    /// Our VTEP's MAC address.
    pub vtep_mac: Mac,
    /// The address that peers send to: announced.
    pub public_ip: Ipv4Addr,
    /// The uplink's own address: the outer source. Differs from `public_ip` behind NAT.
    pub underlay_ip: Ipv4Addr,
    /// The uplink.
    pub uplink: Uplink,
    /// The overlay MTU: the largest inner packet, bytes.
    pub mtu: u32,
    /// The bridges, each with its subnet.
    pub bridges: Vec<Bridge>,
}

impl Local {
    /// Looks this host up in the kernel. Changes nothing.
    ///
    /// # Errors
    /// One line for the first thing that does not fit the configuration.
    pub async fn discover(
        config: &Config,
        network: Option<NetworkConfig>,
        vtep_mac: Mac,
        netlink: &Netlink,
    ) -> anyhow::Result<Self> {
        let (uplink, underlay_ip) = uplink(config, netlink).await?;
        let mut bridges = Vec::new();
        for name in &config.bridges {
            bridges.push(bridge(name, netlink).await?);
        }
        refuse_overlaps(&bridges)?;
        let network = network.unwrap_or_default();
        let most = overlay_mtu(uplink.mtu);
        ensure!(
            most >= SMALLEST_MTU,
            "uplink {} has MTU {}: too small for an overlay, {} is the least",
            uplink.name,
            uplink.mtu,
            SMALLEST_MTU + VXLAN_V4_OVERHEAD
        );
        let wanted = config.mtu.unwrap_or(most);
        ensure!(
            wanted >= SMALLEST_MTU,
            "--mtu {wanted} is too small: {SMALLEST_MTU} to {most} are possible over {} with MTU {}",
            uplink.name,
            uplink.mtu
        );
        let mtu = wanted.min(most);
        Ok(Self {
            vni: network.vni.unwrap_or(config.vni),
            port: network.port.unwrap_or(config.port),
            vtep_mac,
            public_ip: config.public_ip.unwrap_or(underlay_ip),
            underlay_ip,
            uplink: Uplink { index: uplink.index, name: uplink.name },
            mtu,
            bridges,
        })
    }

    /// One line where the configuration asks for more than the uplink carries. The overlay's MTU is what it
    /// carries then: the rest would be lost without a word.
    pub fn mtu_trouble(&self, config: &Config) -> Option<String> {
        let wanted = config.mtu.filter(|wanted| *wanted > self.mtu)?;
        let (most, uplink) = (self.mtu, &self.uplink.name);
        Some(format!(
            "--mtu {wanted} does not fit over {uplink} with MTU {}: {SMALLEST_MTU} to {most} are possible; give one \
             of these, or raise the uplink's MTU",
            most + VXLAN_V4_OVERHEAD
        ))
    }

    /// The ifindexes of the bridges.
    pub fn bridge_indexes(&self) -> Vec<u32> {
        self.bridges.iter().map(|bridge| bridge.index).collect()
    }
}

/// Finds a link, or says which there are.
async fn link(netlink: &Netlink, name: &str, flag: &str) -> anyhow::Result<Link> {
    if let Some(link) = netlink.link_by_name(name).await? {
        return Ok(link);
    }
    let mut names: Vec<String> = netlink.links().await?.into_iter().map(|link| link.name).collect();
    names.sort();
    bail!("interface {name} does not exist: name another with {flag}; there are {}", names.join(", "))
}

async fn uplink(config: &Config, netlink: &Netlink) -> anyhow::Result<(Link, Ipv4Addr)> {
    let link = link(netlink, &config.iface, "--iface").await?;
    ensure!(link.up, "uplink {} is down: bring it up first with `ip link set {} up`", link.name, link.name);
    ensure!(
        link.mac.is_some(),
        "uplink {} has no Ethernet header: choose an Ethernet interface with --iface",
        link.name
    );
    let addresses = netlink.ipv4_addresses(link.index).await?;
    let own = config.public_ip.filter(|ip| addresses.iter().any(|address| address.addr() == *ip));
    let first = addresses.first().map(|address| address.addr());
    let address = own.or(first).with_context(|| {
        format!("uplink {} has no IPv4 address: give it one, or choose another with --iface", link.name)
    })?;
    Ok((link, address))
}

async fn bridge(name: &str, netlink: &Netlink) -> anyhow::Result<Bridge> {
    let link = link(netlink, name, "--bridge").await?;
    ensure!(
        link.kind.as_deref() == Some("bridge"),
        "{name} is not a bridge but {}: name the bridge of your containers with --bridge",
        link.kind.as_deref().unwrap_or("a physical interface")
    );
    ensure!(link.up, "bridge {name} is down: bring it up first with `ip link set {name} up`");
    let addresses = netlink.addresses(link.index).await?;
    let v4 = addresses.iter().find_map(|address| match address {
        IpNet::V4(address) => Some(*address),
        IpNet::V6(_) => None,
    });
    let address = v4.with_context(|| {
        format!("bridge {name} has no IPv4 address: its subnet is what this host announces")
    })?;
    ensure!(
        address.prefix_len() <= 30,
        "bridge {name} has the address {address}: a subnet of at least four addresses is needed"
    );
    let mac = link.mac.with_context(|| format!("bridge {name} has no MAC address"))?;
    let address_v6 = addresses.into_iter().find_map(ipv6_subnet);
    Ok(Bridge { index: link.index, name: link.name, mac, address, address_v6 })
}

/// An address whose subnet has meaning beyond the link, with room for containers.
fn ipv6_subnet(address: IpNet) -> Option<Ipv6Net> {
    let IpNet::V6(address) = address else { return None };
    let ip = address.addr();
    let everywhere = !ip.is_unicast_link_local() && !ip.is_multicast() && !ip.is_loopback();
    (everywhere && address.prefix_len() <= 126).then_some(address)
}

fn refuse_overlaps(bridges: &[Bridge]) -> anyhow::Result<()> {
    for (n, a) in bridges.iter().enumerate() {
        for b in &bridges[n + 1..] {
            ensure!(
                !overlaps(a.address, b.address),
                "bridges {} ({}) and {} ({}) overlap: each needs a subnet of its own",
                a.name,
                a.address,
                b.name,
                b.address
            );
        }
    }
    Ok(())
}

/// True where two prefixes share an address.
pub fn overlaps(a: Ipv4Net, b: Ipv4Net) -> bool {
    let (a, b) = (a.trunc(), b.trunc());
    a.contains(&b) || b.contains(&a)
}

/// The largest inner packet over an uplink with this MTU, in bytes.
const fn overlay_mtu(uplink_mtu: u32) -> u32 {
    uplink_mtu.saturating_sub(VXLAN_V4_OVERHEAD)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A host as tests see it: 172.16.199.17 with docker0 172.17.0.1/16.
    pub(crate) fn local() -> Local {
        Local {
            vni: Vni::DEFAULT,
            port: 4789,
            vtep_mac: Mac([2, 0, 0, 0, 0, 1]),
            public_ip: [172, 16, 199, 17].into(),
            underlay_ip: [172, 16, 199, 17].into(),
            uplink: Uplink { index: 2, name: "eth0".into() },
            mtu: 1450,
            bridges: vec![Bridge {
                index: 3,
                name: "docker0".into(),
                mac: Mac([2, 0x42, 0, 0, 0, 1]),
                address: "172.17.0.1/16".parse().unwrap(),
                address_v6: None,
            }],
        }
    }

    #[test]
    fn a_bridges_ipv6_subnet_is_global_or_unique_local_and_has_room() {
        let subnet = |text: &str| ipv6_subnet(text.parse().unwrap()).is_some();
        assert!(subnet("fd00:17::1/64") && subnet("2001:db8::1/112") && subnet("fd00:17::1/126"));
        assert!(!subnet("fe80::1/64") && !subnet("::1/128") && !subnet("fd00:17::1/127"));
        assert!(!subnet("172.17.0.1/16"));
    }

    #[test]
    fn overlapping_bridges_are_refused() {
        let mut bridges = local().bridges;
        bridges.push(Bridge {
            name: "br1".into(),
            address: "172.17.9.1/24".parse().unwrap(),
            ..bridges[0].clone()
        });
        let error = refuse_overlaps(&bridges).unwrap_err().to_string();
        assert!(error.contains("docker0") && error.contains("br1"), "{error}");
    }
}
