//! A container, and what runs it: namespaces here, a Docker engine elsewhere.

use std::{
    fmt::Debug,
    net::{Ipv4Addr, Ipv6Addr},
};

use anyhow::Result;

use crate::{Netns, docker};

/// A running container.
#[derive(Debug)]
pub struct Container {
    /// Its name on its host.
    pub name: String,
    /// Its network namespace.
    pub ns: Netns,
    /// Its address on docker0.
    pub ip: Ipv4Addr,
    /// Its IPv6 address on docker0, where docker0 has an IPv6 subnet.
    pub ip_v6: Option<Ipv6Addr>,
    /// The host's end of its veth pair, where the host names it; the bridge's port.
    pub port: String,
}

/// What a host's bridge is to be.
#[derive(Clone, Debug)]
pub struct Bridge {
    /// Its name.
    pub name: String,
    /// Its own address, the containers' gateway.
    pub ip: Ipv4Addr,
    /// The length of the subnet's prefix.
    pub prefix_len: u8,
    /// Its own IPv6 address, in a subnet of 64 bits, where it has one.
    pub ip_v6: Option<Ipv6Addr>,
}

impl Bridge {
    /// The containers' subnet, for example `172.17.0.0/16`.
    #[must_use]
    pub fn subnet(&self) -> String {
        let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix_len)).unwrap_or(0);
        format!("{}/{}", Ipv4Addr::from_bits(self.ip.to_bits() & mask), self.prefix_len)
    }

    /// The containers' IPv6 subnet, for example `fd00:17::/64`, where it has one.
    #[must_use]
    pub fn subnet_v6(&self) -> Option<String> {
        self.ip_v6.map(|ip| format!("{}/64", Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX))))
    }

    /// The IPv6 address of container number `index`, where there is a subnet.
    #[must_use]
    pub fn container_ip_v6(&self, index: u32) -> Option<Ipv6Addr> {
        self.ip_v6.map(|ip| Ipv6Addr::from_bits(ip.to_bits() + 1 + u128::from(index)))
    }

    /// The address of container number `index`: the ones after the gateway's.
    #[must_use]
    pub fn container_ip(&self, index: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.ip.to_bits() + 1 + index)
    }
}

/// What is asked of a new container.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Its name on its host.
    pub name: String,
    /// The full name for its namespace, where it has a named one.
    pub netns_name: String,
    /// The address it should get; an engine that gives out its own says so in [`Container::ip`].
    pub ip: Ipv4Addr,
    /// The IPv6 address it should get, where the bridge has a subnet.
    pub ip_v6: Option<Ipv6Addr>,
    /// The MTU of its eth0.
    pub mtu: u32,
}

/// Makes a host's bridge and runs its containers.
pub trait Engine: Debug + Send {
    /// Brings the bridge up in the host's namespace.
    ///
    /// # Errors
    /// It could not.
    fn start(&mut self, host: &Netns, bridge: &Bridge) -> Result<()>;

    /// Starts a container on the bridge.
    ///
    /// # Errors
    /// It could not; nothing is left of it.
    fn run(&mut self, host: &Netns, bridge: &Bridge, spec: &Spec) -> Result<Container>;

    /// Stops a container and removes it, its bridge port too.
    ///
    /// # Errors
    /// It was gone already, or is not to be removed.
    fn remove(&mut self, host: &Netns, container: Container) -> Result<()>;

    /// The Docker engine behind it, where it is one.
    fn docker(&self) -> Option<&docker::Engine> {
        None
    }

    /// The Docker engine behind it, to restart it.
    fn docker_mut(&mut self) -> Option<&mut docker::Engine> {
        None
    }
}

/// Containers that are namespaces, on a bridge made as Docker makes it.
#[derive(Debug, Default)]
pub struct Namespaces;

impl Engine for Namespaces {
    fn start(&mut self, host: &Netns, bridge: &Bridge) -> Result<()> {
        // Docker turns forwarding on; nothing sets FORWARD to DROP here.
        host.sysctl("ipv4/ip_forward", "1")?;
        let Bridge { name, ip, prefix_len, ip_v6 } = bridge;
        let mut lines = vec![
            format!("link add name {name} address {} type bridge", docker_mac(*ip)),
            format!("addr add {ip}/{prefix_len} brd + dev {name}"),
        ];
        if let Some(ip) = ip_v6 {
            host.sysctl("ipv6/conf/all/forwarding", "1")?;
            lines.push(format!("addr add {ip}/64 dev {name} nodad"));
        }
        lines.push(format!("link set {name} up"));
        host.ip_batch(&lines)
    }

    fn run(&mut self, host: &Netns, bridge: &Bridge, spec: &Spec) -> Result<Container> {
        let ns = Netns::create(&spec.netns_name)?;
        let (port, ip, mtu) = (format!("veth{}", spec.name), spec.ip, spec.mtu);
        let (here, inside) = (host.path().display().to_string(), ns.path().display().to_string());
        let mac = docker_mac(ip);
        host.ip_batch(&[
            format!(
                "link add name {port} mtu {mtu} netns {here} type veth peer name eth0 address {mac} mtu {mtu} netns {inside}"
            ),
            format!("link set {port} master {} up", bridge.name),
        ])?;
        ns.ip_batch(&[
            format!("addr add {ip}/{} brd + dev eth0", bridge.prefix_len),
            "link set eth0 up".to_owned(),
            format!("route add default via {}", bridge.ip),
        ])?;
        if let (Some(ip), Some(gateway)) = (spec.ip_v6, bridge.ip_v6) {
            // As Docker does: its own bookkeeping is what keeps addresses apart.
            ns.ip_batch(&[
                format!("addr add {ip}/64 dev eth0 nodad"),
                format!("route add default via {gateway}"),
            ])?;
        }
        Ok(Container { name: spec.name.clone(), ns, ip, ip_v6: spec.ip_v6, port })
    }

    fn remove(&mut self, host: &Netns, container: Container) -> Result<()> {
        // The pair goes with its namespace too, but some time later; Docker removes it at once.
        host.ip(&format!("link del {}", container.port)).map(drop)
    }
}

/// The MAC address Docker derives from an address: 02:42 and the four bytes.
#[must_use]
pub fn docker_mac(ip: Ipv4Addr) -> String {
    let [a, b, c, d] = ip.octets();
    format!("02:42:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}
